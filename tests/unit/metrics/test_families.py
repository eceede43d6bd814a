"""The page of all metrics shows what the code has, name by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from k2eg_rx.gateway.figures import GATEWAY_FAMILIES
from k2eg_rx.gateway.supervisor import SUPERVISOR_FAMILIES
from k2eg_rx.metrics.clients import CLIENT_FAMILIES
from k2eg_rx.metrics.families import Family

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def row(family: Family, *, columns: int) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    cells = (f"`{family.name}`", family.kind, labels, family.meaning, family.deployed)[:columns]
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def told(heading: str) -> list[str]:
    """Returns the rows of the table below a heading."""
    part = PAGE[PAGE.index(heading) :]
    table = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", part, re.MULTILINE)
    assert table is not None
    return table[1].splitlines()


OWN = [family for family in GATEWAY_FAMILIES if family.deployed != "the same"]
DEPLOYED = [family for family in GATEWAY_FAMILIES if family.deployed == "the same"]


@pytest.mark.parametrize(
    ("heading", "families", "columns"),
    [
        ("## Metrics of a gateway", list(SUPERVISOR_FAMILIES), 4),
        ("### Of one process", OWN, 5),
        ("## Names of the deployed gateway", DEPLOYED, 4),
        ("## Metrics of a client", list(CLIENT_FAMILIES), 4),
    ],
)
def test_the_page_shows_every_metric(heading: str, families: list[Family], columns: int) -> None:
    assert told(heading) == [row(family, columns=columns) for family in families]


def test_names_are_unique_and_labels_are_few() -> None:
    families = [*SUPERVISOR_FAMILIES, *GATEWAY_FAMILIES, *CLIENT_FAMILIES]
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    assert {label for family in families for label in family.labels} == {
        *("command", "result", "protocol", "kind", "reason", "queue", "state", "version", "option", "stage"),
        *("op", "evt_type", "type", "client"),
    }
    assert all(family.name.endswith("_total") for family in families if family.kind == "counter")
