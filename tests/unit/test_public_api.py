"""The public API: every public name with its signature, as listed in ``tests/data/public_api.txt``.

`python -m pytest tests/unit/test_public_api.py --update-public-api` writes the list anew. A difference is a change of
the API: it belongs into CHANGELOG.md.
"""

from __future__ import annotations

import enum
import inspect
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import k2eg_rx
from k2eg_rx import Client

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "tests" / "data" / "public_api.txt"
README = (ROOT / "README.md").read_text()
PACKAGES = (
    "k2eg",
    "k2eg.broker",
    "k2eg.dml",
    "k2eg.serialization",
    "k2eg_rx",
    "k2eg_rx.aio",
    "k2eg_rx.frames",
    "k2eg_rx.gateway",
    "k2eg_rx.metrics",
    "k2eg_rx.notebook",
    "k2eg_rx.operators",
    "k2eg_rx.quix",
    "k2eg_rx.recording",
    "k2eg_rx.scans",
    "k2eg_rx.testing",
    "k2eg_rx.transport",
)


def default(value: object) -> str:
    """Returns a parameter's default as users would write it."""
    if isinstance(value, enum.Enum):
        return repr(value.value)
    return (
        value.__name__ if inspect.isclass(value) or inspect.isfunction(value) else re.sub(r" at 0x\w+", "", repr(value))
    )


def parameters(function: Any) -> str:
    """Returns a function's parameters without `self` and without types."""
    signature = inspect.signature(function)
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in {"self", "cls"}
    ]
    parts: list[str] = []
    for parameter in kept:
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        given = "" if parameter.default is parameter.empty else f"={default(parameter.default)}"
        parts.append(f"{star}{parameter.name}{given}")
    return ", ".join(parts)


def members(owner: type) -> Iterator[str]:
    """Yields the public members of a class that this project defines."""
    if issubclass(owner, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in owner)
        return
    for name in sorted(dir(owner)):
        defined = next((base for base in owner.__mro__ if name in vars(base)), None)
        if name.startswith("_") or defined is None or not defined.__module__.startswith("k2eg"):
            continue
        member = inspect.getattr_static(owner, name)
        member = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        yield f"{name}({parameters(member)})" if callable(member) else name
    for name in sorted(inspect.get_annotations(owner)):
        if not name.startswith("_") and name not in dir(owner):
            yield name


def listing() -> str:
    """Returns the list of all public names."""
    lines: list[str] = []
    for package in PACKAGES:
        module = import_module(package)
        lines.append(f"{package}")
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if inspect.isclass(thing):
                try:
                    made = "" if issubclass(thing, enum.Enum) else f"({parameters(thing)})"
                except ValueError:
                    made = ""
                lines.append(f"    {name}{made}")
                lines.extend(f"        {member}" for member in members(thing))
            else:
                lines.append(f"    {name}({parameters(thing)})" if inspect.isfunction(thing) else f"    {name}")
    return "\n".join(lines) + "\n"


def test_the_public_api_is_as_listed(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-public-api"):
        LISTED.write_text(listing())
    assert listing() == LISTED.read_text(), "the public API changed: see this module's docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_classes_and_functions_are_documented(package: str) -> None:
    module = import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    undocumented = [
        name
        for name, thing in public.items()
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.getdoc(thing)
    ]
    assert undocumented == []


def test_the_readme_lists_every_stream_and_every_blocking_call_with_its_signature() -> None:
    streams = [name for name in dir(Client) if name.endswith("_stream")]
    streams += [
        plain for name in streams if hasattr(Client, plain := name.removesuffix("_stream")) and plain != "status"
    ]
    missing = [
        signature
        for name in streams
        if f"| `{(signature := f'{name}({parameters(getattr(Client, name))})')}` |" not in README
    ]
    assert missing == []


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert k2eg_rx.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'k2eg_rx' has no attribute 'Generic'"):
        _ = k2eg_rx.Generic  # pyright: ignore[reportAttributeAccessIssue]
