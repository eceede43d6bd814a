"""The documentation, run as written: every Python block of a page, with what it prints; and the site, without warnings.

The blocks of a page are one program. A block that prints is followed by one marked ``text`` with what it prints, in
which ``...`` stands for anything. Functions of a page that are called ``test_...`` are run like those of a module, with
the fixtures of `k2eg_rx.testing.fixtures`. What is not to be run is marked as something else (``console``, ``ini``).
"""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k2eg_rx import Client, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

pytest_plugins = ["k2eg_rx.testing.fixtures"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
BUILD_SECONDS = 240  # on a machine that does much else; alone it takes a twentieth of it

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python", "text", "console", "ini", "{toctree}"}
_OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A Python block of a page.

    Attributes:
        code: The code, with as many empty lines before it as the page has, so that tracebacks tell its lines.
        line: The line on which it begins.
        printed: What the page says that it prints.
    """

    code: str
    line: int
    printed: str


def fences(page: str) -> list[re.Match[str]]:
    """The fenced blocks of a page."""
    return list(_FENCE.finditer(page))


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page."""
    found = fences(page)
    following = [*found[1:], None]
    made: list[Block] = []
    for fence, after in zip(found, following, strict=True):
        if fence[1] == "python":
            line = page.count("\n", 0, fence.start(2))
            printed = after[2] if after is not None and after[1] == "text" else ""
            made.append(Block("\n" * line + fence[2], line + 1, printed))
    return made


def run(page: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a page, block by block, and compares what they print with what the page says."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        before = set(namespace)
        exec(compile(block.code, page, "exec"), namespace)
        for name in [name for name in namespace if name.startswith("test_") and name not in before]:
            wanted = inspect.signature(namespace[name]).parameters
            namespace[name](**{argument: request.getfixturevalue(argument) for argument in wanted})
        printed = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(block.printed, printed, _OUTPUT), (
            f"{page.relative_to(ROOT)}:{block.line} prints\n{printed}\nand not\n{block.printed}"
        )


@pytest.fixture
def demo(stack: EmbeddedStack, fresh_app_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes the stack the running demo of this process, fresh from its start."""
    (tmp_path / "broker").write_text(stack.broker_address)
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "broker"))
    monkeypatch.delenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", raising=False)
    with Client("demo", fresh_app_name) as client:
        for uri, value in {"pva://demo:setpoint1": 1.5, "pva://demo:setpoint2": 2.5}.items():
            first(client.put_stream(uri, value))


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has what a page writes be in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("demo")
def test_the_tutorial(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    run(TUTORIAL, request, capsys)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_how_to(page: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    run(page, request, capsys)


@pytest.mark.parametrize("page", [TUTORIAL, *HOW_TO], ids=lambda page: page.stem)
def test_every_block_is_of_a_language_that_is_known(page: Path) -> None:
    text = page.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(fences(text)), "a block has no end"
    assert {fence[1] for fence in fences(text)} <= _LANGUAGES


def test_what_a_page_says_of_its_output_counts() -> None:
    page = "# A page\n\n```python\nprint(1)\n```\n\nIt prints\n\n```text\n1\n```\n\n```python\nx = 2\n```\n"
    assert [(block.line, block.printed) for block in blocks(page)] == [(4, "1\n"), (14, "")]


def test_there_is_a_page_for_every_operator() -> None:
    import k2eg_rx.operators

    text = "".join(page.read_text() for page in HOW_TO)
    functions = [name for name in k2eg_rx.operators.__all__ if name[0].islower()]
    assert [name for name in functions if f"{name}(" not in text] == []


@pytest.mark.timeout(BUILD_SECONDS + 20)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees", DOCS,
         tmp_path / "html"],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    page = (tmp_path / "html" / "api" / "operators.html").read_text()
    assert 'id="k2eg_rx.operators.align"' in page
