"""The documentation, run as written: every Python block of a page, with what it prints; and the site, without warnings.

The blocks of a page are one program. A block that prints is followed by one marked ``text`` with what it prints, in
which ``...`` stands for anything; one marked ``text like`` has other numbers each time. A block that begins with
``# NAME.py`` is that file, beside the others of its page; if its name begins with ``test_``, pytest runs it. What is
not to be run is marked as something else (``console``, ``ini``).
"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from k2eg_rx import Client, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial.md"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
PARTS = ("operators", "aio", "frames", "recording", "testing", "gateway")
DOCUMENTED = ("k2eg_rx", *(f"k2eg_rx.{part}" for part in PARTS))
BUILD_SECONDS = 240  # on a machine that does much else; alone it takes a twentieth of it
ENDS_WITHIN = 50.0  # seconds, on a busy machine

_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python", "text", "console", "ini", "{toctree}"}
_FILE = re.compile(r"\s*# (\w+\.py)\n")
_NUMBER = re.compile(r"-?\b\d+(\.\d+)?(e[+-]\d+)?")


@dataclass(frozen=True)
class Block:
    """A Python block of a page.

    Attributes:
        code: The code, with as many empty lines before it as the page has, so that tracebacks tell its lines.
        line: The line on which it begins.
        file: The file that it is, or None if it is a part of the page's program.
        printed: What the page says that it prints.
        like: Whether the numbers are others each time.
    """

    code: str
    line: int
    file: str | None
    printed: str
    like: bool = False

    def prints(self, text: str) -> bool:
        """Whether it is right to print this."""
        wanted = self.printed
        if self.like:
            wanted, text = _NUMBER.sub("N", wanted), _NUMBER.sub("N", text)
        return doctest.OutputChecker().check_output(wanted, text, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


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
            line = page.count("\n", 0, fence.start(3))
            output = after if after is not None and after[1] == "text" else None
            file = _FILE.match(fence[3])
            made.append(
                Block(
                    "\n" * line + fence[3],
                    line + 1,
                    file and file[1],
                    output[3] if output else "",
                    bool(output and "like" in output[2]),
                )
            )
    return made


def run_tests(file: Path) -> None:
    """Runs a file of tests as users do."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", file.name]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=ENDS_WITHIN, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a page, block by block, and compares what they print with what the page says."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        if block.file is None:
            exec(compile(block.code, page, "exec"), namespace)
        else:
            (folder / block.file).write_text(block.code)
            if block.file.startswith("test_"):
                run_tests(folder / block.file)
        printed = capsys.readouterr().out
        assert block.prints(printed), (
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
@pytest.mark.timeout(360)  # a dozen seconds of waiting for the IOC, and two runs of pytest
def test_the_tutorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(TUTORIAL, tmp_path, capsys)


@pytest.mark.usefixtures("demo")
def test_stream_processing_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    *others, block = blocks(README.read_text())
    assert len(others) == 2, "test_examples.py runs two blocks, as they want somebody to press Enter"
    exec(compile(block.code, README, "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"the last of 100 instants in the recording\ndemo:sine100: mean -?\d+\.\d+ mV at \d+", printed)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_how_to(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(page, tmp_path, capsys)


@pytest.mark.parametrize("page", [TUTORIAL, *HOW_TO], ids=lambda page: page.stem)
def test_every_block_is_of_a_language_that_is_known(page: Path) -> None:
    text = page.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(fences(text)), "a block has no end"
    assert {fence[1] for fence in fences(text)} <= _LANGUAGES


def test_what_a_page_says_of_its_output_counts() -> None:
    page = "# A page\n\n```python\nprint(1)\n```\n\nIt prints\n\n```text\n1\n```\n\n```python\n# a.py\nx = 2\n```\n"
    assert [(block.line, block.file, block.printed) for block in blocks(page)] == [(4, None, "1\n"), (14, "a.py", "")]


def test_there_is_a_page_for_every_operator() -> None:
    text = "".join(page.read_text() for page in HOW_TO)
    functions = [name for name in import_module("k2eg_rx.operators").__all__ if name[0].islower()]
    assert [name for name in functions if f"{name}(" not in text] == []


@pytest.mark.timeout(BUILD_SECONDS + 20)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees", DOCS,
         tmp_path / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    pages = "".join(page.read_text() for page in (tmp_path / "html" / "api").glob("*.html"))
    names = [f"{package}.{name}" for package in DOCUMENTED for name in import_module(package).__all__]
    assert [name for name in names if f'id="{name}"' not in pages] == []
