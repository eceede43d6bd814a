"""The tables of docs/compatibility.md: which operations each client can do with each gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from clients import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
OWN_CLIENT = "this client"
# By the page's headings.
OWN, DEPLOYED, NUMBERING = GATEWAYS = (
    "With the gateway of this project",
    "With the deployed gateway",
    "With a gateway that numbers messages",
)
YES, NO = "yes", "no"

Outcomes = Mapping[tuple[str, str], Mapping[str, Outcome]]  # by gateway and client, then by operation


def expected() -> dict[tuple[str, str, str], bool]:
    """Returns the cells of the page: whether, with a gateway, a client can do an operation."""
    cells: dict[tuple[str, str, str], bool] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        gateway, *lines = section.splitlines()
        clients, _, *rows = [_cells(line) for line in lines if line.startswith("|")]
        for operation, *found in rows:
            for client, cell in zip(clients[1:], found, strict=True):
                assert cell.split(" ")[0] in (YES, NO), cell
                cells[gateway, client, operation] = cell == YES
    return cells


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def lines(found: Outcomes) -> Iterator[str]:
    """Yields the lines of the tables as they were found."""
    for gateway in GATEWAYS:
        clients = [client for known, client in found if known == gateway]
        yield f"{gateway}:"
        yield "| operation | " + " | ".join(clients) + " |"
        yield "|---" * (1 + len(clients)) + "|"
        for operation in found[gateway, clients[0]]:
            cells = [YES if found[gateway, client][operation].passed else NO for client in clients]
            yield f"| {operation} | " + " | ".join(cells) + " |"
