"""Tables of the newest items: what they keep, and how much."""

from __future__ import annotations

import re

from k2eg_rx import ConnectionEvent, PVState, Snapshot
from k2eg_rx.notebook.newest_rows import MOST_ROWS, NewestRows
from k2eg_rx.operators import Aligned
from k2eg_rx.protocol import Samples
from k2eg_rx.testing import update


def rows(table: NewestRows) -> list[list[str]]:
    """Returns the texts of each row."""
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table.html())][1:]


def test_each_pv_has_a_row_with_its_newest_value_and_a_count() -> None:
    table = NewestRows()
    for value in range(3):
        table.add(update("a", value))
    table.add(update("b", 1.5, units="mm"))
    assert [(row[0], row[1], row[4]) for row in rows(table)] == [("a", "2", "3"), ("b", "1.5 mm", "1")]


def test_instants_and_snapshots_have_a_row_for_each_pv() -> None:
    table = NewestRows()
    table.add(Aligned(0, None, {"a": update("a", 1), "b": update("b", 2)}))
    table.add(Snapshot("s", {"b": Samples([{"value": 3}]), "c": Samples()}))
    assert [(row[0], row[1]) for row in rows(table)] == [("a", "1"), ("b", "3")]


def test_other_items_are_shown_by_their_repr() -> None:
    table = NewestRows()
    table.add(1.5)
    table.add("<b>")
    assert [row[:2] for row in rows(table)] == [["float", "1.5"], ["str", "&#x27;&lt;b&gt;&#x27;"]]


def test_a_lost_connection_stands_in_place_of_the_severity() -> None:
    table = NewestRows()
    table.add(update("a", 1))
    for name in ("a", "never"):
        table.add(ConnectionEvent(name, f"pva://{name}", PVState.DISCONNECTED, 0, reason="<gone>"))
    assert [row[:3] for row in rows(table)] == [
        ["a", "1", "disconnected &lt;gone&gt;"],
        ["never", "", "disconnected &lt;gone&gt;"],
    ]
    table.add(ConnectionEvent("a", "pva://a", PVState.CONNECTED, 0))
    assert rows(table)[0][2] == "NO_ALARM"


def test_memory_is_bounded_in_pvs() -> None:
    table = NewestRows()
    for number in range(10 * MOST_ROWS):
        table.add(update(f"pv{number}", number))
        table.add(ConnectionEvent(f"lost{number}", f"pva://lost{number}", PVState.DISCONNECTED, 0))
    assert len(table._rows) == MOST_ROWS  # pyright: ignore[reportPrivateUsage]
    assert len(table._lost) <= MOST_ROWS  # pyright: ignore[reportPrivateUsage]
    assert len(rows(table)) == MOST_ROWS + 1
