"""Values of histories at regular times."""

from __future__ import annotations

from collections.abc import Iterable

from k2eg.cli.printing.history_grid import HistoryGrid
from k2eg_rx import PVUpdate
from k2eg_rx.testing import START, update

SECOND = 1_000_000_000  # START is a multiple of ten of them


def at(seconds: float, name: str, value: float) -> PVUpdate:
    return update(name, value, timestamp=START + round(seconds * SECOND))


def rows(updates: Iterable[PVUpdate], every: float = 10.0, stop: float = 40.0) -> list[tuple[float, object, object]]:
    grid = HistoryGrid(["a", "b"], START, every)
    found = [row for item in updates for row in grid.add(item, item.timestamp or 0)]
    found += grid.end(START + round(stop * SECOND))
    return [((time - START) / SECOND, value(values["a"]), value(values["b"])) for time, values in found]


def value(data: PVUpdate | None) -> object:
    return None if data is None else data.value


def test_each_row_has_the_newest_value_up_to_its_time() -> None:
    found = rows([at(1, "a", 1.0), at(10, "b", 5.0), at(10.1, "a", 2.0), at(29, "b", 6.0)])
    assert found == [(10.0, 1.0, 5.0), (20.0, 2.0, 5.0), (30.0, 2.0, 6.0)]


def test_rows_begin_with_the_first_value() -> None:
    assert rows([at(25, "a", 1.0)]) == [(30.0, 1.0, None)]
    assert rows([at(0, "a", 1.0)], stop=1.0) == [(0.0, 1.0, None)]


def test_without_updates_there_are_no_rows() -> None:
    assert rows([], every=0.000001) == []


def test_rows_are_at_multiples_of_the_period() -> None:
    grid = HistoryGrid(["a"], START + 1, 60.0)
    assert not list(grid.add(at(5, "a", 1.0), START + 5 * SECOND))
    assert [time for time, _ in grid.end(START + 61 * SECOND)] == [START + 60 * SECOND]
