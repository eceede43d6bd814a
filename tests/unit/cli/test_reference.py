"""The committed manual and reference page are those of the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2eg.cli.command_table import COMMANDS
from k2eg.cli.reference import MANUAL, PAGE, manual_page, reference_page

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("path", "text"), [(MANUAL, manual_page()), (PAGE, reference_page())], ids=["man", "page"])
def test_the_committed_page_is_current(path: Path, text: str) -> None:
    assert (ROOT / path).read_text() == text, "run: python -m k2eg.cli.reference"


def test_every_command_is_documented_with_its_own_options() -> None:
    page = reference_page()
    assert [name for name in COMMANDS if f"## `k2eg {name}`\n" not in page] == []
    assert page.count("| `-e, --environment ENV` |") == 1
    assert "## `k2eg env new`" in page


def test_the_manual_page_has_no_line_that_troff_takes_for_a_request() -> None:
    requests = {line.split()[0] for line in manual_page().splitlines() if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".TP", ".B", ".I", ".nf", ".fi"}
