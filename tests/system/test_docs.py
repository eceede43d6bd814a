"""Runs every Python block of the documentation, compares its output, and builds the site.

The blocks of a page form one program. A block that prints is followed by a block marked ``text`` with its output, where
``...`` matches anything; in a block marked ``text like``, numbers may differ. A block that begins with ``# NAME.py`` is
written to that file, in one folder per page; pytest runs the file if its name begins with ``test_``. Blocks of other
languages (``console``, ``ini``) are not run.
"""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sphinx.search.en import SearchEnglish

from k2eg_rx import Client, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial.md"
HOW_TO = sorted([*(DOCS / "how-to").glob("*.md"), *(DOCS / "recipes").glob("*.md")])
PARTS = ("operators", "scans", "aio", "notebook", "frames", "recording", "quix", "testing", "gateway")
DOCUMENTED = ("k2eg_rx", *(f"k2eg_rx.{part}" for part in PARTS))
BUILD_SECONDS = 240  # timeout for a busy machine; an idle one takes a twentieth of it
PYTEST_SECONDS = 50.0  # timeout for a busy machine

_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python", "text", "console", "ini", "{toctree}", "{literalinclude}"}
_FILE = re.compile(r"\s*# (\w+\.py)\n")
_NUMBER = re.compile(r"-?\b\d+(\.\d+)?(e[+-]\d+)?")


@dataclass(frozen=True)
class Block:
    """A Python block of a page.

    Attributes:
        code: The code, padded with empty lines so that line numbers in tracebacks are those of the page.
        line: The number of its first line in the page.
        file: The name of the file to write it to; None if it is part of the page's program.
        output: The output that the page shows.
        like: Whether numbers in the output may differ.
    """

    code: str
    line: int
    file: str | None
    output: str
    like: bool = False

    def matches(self, actual: str) -> bool:
        """Whether the page shows this output."""
        expected = self.output
        if self.like:
            expected, actual = _NUMBER.sub("N", expected), _NUMBER.sub("N", actual)
        return doctest.OutputChecker().check_output(expected, actual, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def fences(page: str) -> list[re.Match[str]]:
    """Returns the fenced blocks of a page."""
    return list(_FENCE.finditer(page))


def blocks(page: str) -> list[Block]:
    """Returns the Python blocks of a page."""
    found = fences(page)
    following = [*found[1:], None]
    python_blocks: list[Block] = []
    for fence, after in zip(found, following, strict=True):
        if fence[1] == "python":
            line = page.count("\n", 0, fence.start(3))
            output = after if after is not None and after[1] == "text" else None
            file = _FILE.match(fence[3])
            python_blocks.append(
                Block(
                    "\n" * line + fence[3],
                    line + 1,
                    file and file[1],
                    output[3] if output else "",
                    bool(output and "like" in output[2]),
                )
            )
    return python_blocks


def run_tests(file: Path) -> None:
    """Runs a test file with pytest in a subprocess."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", file.name]
    finished = subprocess.run(
        command, cwd=file.parent, capture_output=True, text=True, timeout=PYTEST_SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a page block by block and compares the output with the page."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        if block.file is None:
            exec(compile(block.code, page, "exec"), namespace)
        else:
            (folder / block.file).write_text(block.code)
            if block.file.startswith("test_"):
                run_tests(folder / block.file)
        printed = capsys.readouterr().out
        assert block.matches(printed), (
            f"{page.relative_to(ROOT)}:{block.line} prints\n{printed}\nexpected\n{block.output}"
        )


@pytest.fixture
def demo(stack: EmbeddedStack, fresh_app_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registers the embedded stack as the running demo, with its initial setpoints."""
    (tmp_path / "broker").write_text(stack.broker_address)
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "broker"))
    monkeypatch.delenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", raising=False)
    with Client("demo", fresh_app_name) as client:
        for uri, value in {"pva://demo:setpoint1": 1.5, "pva://demo:setpoint2": 2.5}.items():
            first(client.put_stream(uri, value))


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs each page in an empty working directory; recipes import their programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")


@pytest.mark.usefixtures("demo")
@pytest.mark.timeout(360)  # a dozen seconds of updates from the IOC and two runs of pytest
def test_tutorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(TUTORIAL, tmp_path, capsys)


@pytest.mark.usefixtures("demo")
def test_stream_processing_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    *others, block = blocks(README.read_text())
    assert len(others) == 2, "test_examples.py runs the other two blocks, which wait for the Enter key"
    exec(compile(block.code, README, "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"the last of 100 instants in the recording\ndemo:sine100: mean -?\d+\.\d+ mV at \d+", printed)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_how_to(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(page, tmp_path, capsys)


@pytest.mark.parametrize("page", [TUTORIAL, *HOW_TO], ids=lambda page: page.stem)
def test_every_block_is_closed_and_has_a_known_language(page: Path) -> None:
    text = page.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(fences(text)), "a block is not closed"
    assert {fence[1] for fence in fences(text)} <= _LANGUAGES


def test_blocks_have_their_line_file_and_output() -> None:
    page = "# A page\n\n```python\nprint(1)\n```\n\nIt prints\n\n```text\n1\n```\n\n```python\n# a.py\nx = 2\n```\n"
    assert [(block.line, block.file, block.output) for block in blocks(page)] == [(4, None, "1\n"), (14, "a.py", "")]


def test_every_operator_has_a_how_to_page() -> None:
    text = "".join(page.read_text() for page in HOW_TO)
    functions = [name for name in import_module("k2eg_rx.operators").__all__ if name[0].islower()]
    assert [name for name in functions if f"{name}(" not in text] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the site, without a warning; returns its folder."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", folder / "trees", DOCS,
         folder / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


@pytest.mark.timeout(BUILD_SECONDS + 20)
def test_the_reference_has_every_public_name_functions_first(site: Path) -> None:
    pages = [page.read_text() for page in (site / "api").glob("*.html")]
    names = [f"{package}.{name}" for package in DOCUMENTED for name in import_module(package).__all__]
    assert [name for name in names if not any(f'id="{name}"' in page for page in pages)] == []
    for page in (site / "api" / f"{part}.html" for part in PARTS):
        kinds = re.findall(rf'<dl class="py (\w+)">\s*<dt [^>]*id="k2eg_rx\.{page.stem}\.\w+"', page.read_text())
        assert kinds == sorted(kinds, key=["function", "class", "exception", "type", "data"].index), page.stem


@pytest.mark.timeout(BUILD_SECONDS + 20)
def test_the_reference_has_no_sentence_as_a_type_and_no_raw_default(site: Path) -> None:
    for page in (site / "api").glob("*.html"):
        text = page.read_text()
        # napoleon takes what is before a colon in a property's first line for its type
        assert 'Type<span class="colon">' not in text, f"{page.stem}: a property's summary has a colon"
        assert "&lt;factory&gt;" not in text, page.stem


# The word of a task, and the page that the site's search must list among the pages with the word in a title.
SEARCHED = {
    "scan": "recipes/scan",
    "plot": "recipes/correlation",
    "jupyter": "recipes/notebook",
    "restore": "recipes/save-restore",
    "debounce": "recipes/alarm-notifier",
    "archive": "recipes/archiver",
    "feedback": "recipes/feedback",
    "orbit": "recipes/orbit-display",
    "correlation": "recipes/correlation",
    "notebook": "recipes/notebook",
    "model": "recipes/model",
    "hdf5": "recipes/hdf5",
    "duckdb": "recipes/query-recording",
    "polars": "recipes/query-recording",
    "pytest": "recipes/test-a-loop",
    "web": "recipes/web-service",
}


@pytest.mark.timeout(BUILD_SECONDS + 20)
@pytest.mark.parametrize("word", SEARCHED)
def test_the_search_finds_the_recipe(site: Path, word: str) -> None:
    index = (site / "searchindex.js").read_text()
    found = json.loads(index[index.index("(") + 1 : index.rindex(")")])
    pages = found["titleterms"].get(SearchEnglish({}).stem(word), [])  # of all headings; they come first in the results
    titles = {found["docnames"][page] for page in (pages if isinstance(pages, list) else [pages])}
    assert SEARCHED[word] in titles
