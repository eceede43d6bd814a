"""Sphinx configuration: `python -m sphinx -W -b html docs build/docs`.

Builds HTML from the Markdown pages of this folder and the docstrings of the public names. Public is what a package's
`__all__` names; a name is documented under the package from which users import it.
"""

from __future__ import annotations

import re
from enum import EnumType
from importlib import import_module
from importlib.metadata import version as version_of
from typing import Any

from docutils import nodes
from sphinx.addnodes import desc, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "K2EG for Python"
author = "the authors of K2EG for Python"
release = version = version_of("k2eg")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

# In docstrings `name` is code, and a link if the name is documented.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), "Emits"]  # no second entry per attribute
napoleon_preprocess_types = False

# An annotation that names an undocumented class is an error, with these exceptions.
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # the default role also marks plain code
    (
        "py:.*",
        r"(reactivex|pandas|xarray|collections|typing|datetime|enum|pathlib|types|concurrent|asyncio|threading)\..*",
    ),
    ("py:.*", r"(k2eg_rx\.protocol\.\w+\.)?(\w*Command|ReplyTo|Serialization|Place)"),  # of providers and transports
    (
        "py:.*",
        r"k2eg_rx\.(gateway|testing|frames|metrics|quix)\.\w+\..*",
    ),  # private parts of classes that users only receive
    (
        "py:.*",
        r"[a-z]+|[A-Z][A-Za-z]*Error|abc\.DisposableBase|Claim|Collector|Monitored|Written|Framable|NDArray|Observable|Path|Headers|Partition|(k2eg_rx\.history\.time_points\.)?Positions|_[A-Z].*|.*\._[A-Za-z]+",
    ),
]

PUBLIC = (
    "k2eg_rx",
    "k2eg_rx.operators",
    "k2eg_rx.scans",
    "k2eg_rx.aio",
    "k2eg_rx.frames",
    "k2eg_rx.recording",
    "k2eg_rx.testing",
    "k2eg_rx.gateway",
    "k2eg_rx.transport",
    "k2eg.dml",
    "k2eg.serialization",
)

_NAME = re.compile(r"(?<!`)(`[^`\n]+`)(?!`)(?=(\w?))")


def _public_names() -> dict[str, str]:
    """Returns the documented name of each public class and function, keyed by its defining module and name."""
    names: dict[str, str] = {}
    for package in PUBLIC:
        module = import_module(package)
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            if hasattr(thing, "__qualname__"):
                names.setdefault(f"{thing.__module__}.{thing.__qualname__}", f"{package}.{name}")
    return names


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> Any:
    """Resolves a reference to a name in its defining module to the place where the name is documented."""
    if node.get("refdomain") != "py":
        return None
    defined, _, member = str(node["reftarget"]).rpartition(".")
    public = _PUBLIC_NAMES.get(node["reftarget"])
    if public is None and defined in _PUBLIC_NAMES:
        public = f"{_PUBLIC_NAMES[defined]}.{member}"
    if public is None:
        return None
    if content.astext() == node["reftarget"]:  # show the bare name, not its defining module
        content[:] = [nodes.Text(content.astext().rpartition(".")[2])]
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)


def _as_rest(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Separates a name in backquotes from letters behind it (`PVUpdate`s), as reStructuredText requires."""
    lines[:] = [_NAME.sub(lambda name: name[1] + ("\\ " if name[2] else ""), line) for line in lines]


def _signature(_app: Sphinx, what: str, _name: str, thing: Any, _options: Any, signature: str, returned: str) -> Any:
    """Leaves out the signature of an enum, which is not called, and shows defaults that have no source text as dots."""
    if isinstance(thing, EnumType):
        return "", None
    if what in {"class", "exception", "function"} and signature:
        return _DEFAULT_WITHOUT_SOURCE.sub("= ...", signature), returned
    return None


def _functions_first(_app: Sphinx, doctree: nodes.document) -> None:
    """Sorts what a section describes by its kind; each description follows its entry of the index."""
    for section in doctree.findall(nodes.section):
        places = [place for place, node in enumerate(section) if isinstance(node, desc) and node["domain"] == "py"]
        pairs = [(section[place - 1], section[place]) for place in places]
        pairs.sort(key=lambda pair: _KINDS.get(pair[1]["objtype"], len(_KINDS)))
        for place, pair in zip(places, pairs, strict=True):
            section[place - 1], section[place] = pair


_PUBLIC_NAMES = _public_names()
_KINDS = {"function": 0, "class": 1, "exception": 2}
_DEFAULT_WITHOUT_SOURCE = re.compile(r"= ?<[^>]*>")


def setup(app: Sphinx) -> None:
    """Registers the handlers above; called by Sphinx."""
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _as_rest)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _functions_first, priority=400)  # before the table of contents is read from it
