"""What README and architecture list is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from k2eg_rx import Client

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows(text: str, heading: str) -> list[str]:
    """The first cells of the first table behind a heading."""
    table = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", text[text.index(heading) :], re.MULTILINE)
    assert table is not None
    return [row.split("|")[1].strip() for row in table[1].splitlines()]


def test_the_readme_names_every_stream_of_the_client() -> None:
    there = {name for name in dir(Client) if name.endswith("_stream")}
    named = {name for row in rows(README, "## Streams") for name in re.findall(r"`(\w+_stream)\(", row)}
    assert named == there


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {row.strip("`") for row in rows(README, "## Extras")} == set(extras)


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
