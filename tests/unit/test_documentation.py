"""Compares the lists of the README and of the decision records with what exists."""

from __future__ import annotations

import inspect
import re
import tomllib
from enum import EnumType
from importlib import import_module
from pathlib import Path

import pytest

from k2eg_rx import Client

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DECISIONS = ROOT / "docs" / "decisions"
RECIPES = ROOT / "docs" / "recipes"
RECORDS = sorted(DECISIONS.glob("0*.md"))
SECTIONS = ["Context", "Decision", "Consequences", "How to undo"]


def rows(text: str, heading: str) -> list[str]:
    """The first cells of the first table behind a heading."""
    table = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", text[text.index(heading) :], re.MULTILINE)
    assert table is not None
    return [row.split("|")[1].strip() for row in table[1].splitlines()]


def test_the_readme_names_every_stream_of_the_client() -> None:
    there = {name for name in dir(Client) if name.endswith("_stream")}
    named = {name for row in rows(README, "Each has a stream") for name in re.findall(r"`(\w+_stream)\(", row)}
    assert named == there


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {row.strip("`") for row in rows(README, "## Extras")} == set(extras)


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "static").glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_of_the_readme_is_small_and_needs_nothing_from_elsewhere(picture: Path) -> None:
    text = picture.read_text()
    assert f"](docs/static/{picture.name})" in README, "made by docs/pictures.py, shown by nothing"
    assert len(text) < 100_000
    assert re.findall(r"""(?:href|src)=["']|url\((?!#)""", text) == []
    assert f"k2eg {picture.stem}" in re.sub(r"<[^>]*>", "", text).replace("&#160;", " ")


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "static").glob("*.png")), ids=lambda path: path.stem)
def test_a_picture_of_a_page_is_small_and_shown(picture: Path) -> None:
    assert f"](docs/static/{picture.name})" in README, "made by docs/pictures.py, shown by nothing"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 100_000


PROGRAM = re.compile(r"\[`(examples/\w+\.py)`\]\(\.\./\.\./\1\), (\d+) lines:\n\n```{literalinclude} \.\./\.\./\1\n")


@pytest.mark.parametrize("page", sorted(RECIPES.glob("*.md")), ids=lambda page: page.stem)
def test_a_recipe_shows_its_program_with_its_length(page: Path) -> None:
    text = page.read_text()
    shown = PROGRAM.findall(text)
    assert len(shown) == text.count("{literalinclude}"), "link the program, and say how many lines it has"
    for program, lines in shown:
        assert f"{program}: {lines} lines" == f"{program}: {len((ROOT / program).read_text().splitlines())} lines"


def test_the_index_of_the_recipes_names_every_example_and_recipe() -> None:
    index = (RECIPES / "index.md").read_text()
    examples = {file.name for file in (ROOT / "examples").iterdir() if file.suffix in {".py", ".ipynb"}}
    assert set(re.findall(r"`examples/([\w.]+)`", index)) == examples
    assert set(re.findall(r"\]\((?!\.\.)([\w-]+)\.md\)", index)) == {page.stem for page in RECIPES.glob("*.md")} - {
        "index"
    }


def test_the_pictures_of_the_recipes_are_small_and_have_a_text() -> None:
    pages = "".join(page.read_text() for page in RECIPES.glob("*.md"))
    pictures = list((RECIPES / "pictures").iterdir())
    assert [picture.name for picture in pictures if picture.stat().st_size > 60_000] == []
    assert {path for text, path in re.findall(r"!\[(.+)\]\((.+)\)", pages)} == {
        f"pictures/{one.name}" for one in pictures
    }


PUBLIC = ("k2eg_rx", "k2eg_rx.operators", "k2eg_rx.transport")


@pytest.mark.parametrize("package", PUBLIC)
def test_the_docstring_of_an_enum_lists_its_members(package: str) -> None:
    module = import_module(package)
    for enum in (getattr(module, name) for name in module.__all__):
        if isinstance(enum, EnumType):
            _, _, members = (inspect.getdoc(enum) or "").partition("Attributes:\n")
            assert re.findall(r"^    (\w+): ", members, re.MULTILINE) == list(enum.__members__), enum.__name__


def head_of(record: Path) -> tuple[str, ...]:
    """Returns a decision record's number, file name, title, date and status; a remark may follow date and status."""
    form = r"# (\d{4}) (.+)\n\nDate: (\d{4}-\d\d-\d\d).*\n\nStatus: (\w+).*\n\n## Context\n"
    head = re.match(form, record.read_text())
    assert head is not None, f"{record.name} must begin with number and title, Date, Status and Context"
    number, title, date, status = head.groups()
    return number, record.name, title, date, status


def test_decision_records_are_numbered_without_gaps() -> None:
    assert [record.name[:5] for record in RECORDS] == [f"{number:04}-" for number in range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_decision_record_has_the_required_sections(record: Path) -> None:
    sections = re.findall(r"^## (.*)", record.read_text(), re.MULTILINE)
    assert [section for section in sections if section in SECTIONS] == SECTIONS


def test_decision_index_lists_number_title_date_and_status_of_every_record() -> None:
    rows_of_index = re.findall(
        r"^\| \[(\d{4})\]\((.+)\) \| (.+) \| (.+) \| (.+) \|$", (DECISIONS / "index.md").read_text(), re.MULTILINE
    )
    assert rows_of_index == [head_of(record) for record in RECORDS]
