"""Series: values that hold, gaps, connections, bounds."""

from __future__ import annotations

import math

import pytest

from k2eg.cli.charts.series import Curve, Series, SeriesBook
from k2eg_rx import ConnectionEvent, PVState, PVUpdate, Severity
from k2eg_rx.testing import update

SECOND = 1_000_000_000


def value(number: object, at: float, **fields: object) -> PVUpdate:
    return update("my:x", number, timestamp=int(at * SECOND), **fields)  # type: ignore[arg-type]


def series(*values: tuple[float, float], capacity: int = 1000) -> Series:
    made = Series(capacity)
    for at, number in values:
        made.add(value(number, at))
    return made


def connection(state: PVState, at: float) -> ConnectionEvent:
    return ConnectionEvent("my:x", "pva://my:x", state, int(at * SECOND))


def extents(made: Series, stop: int, *, gap: float | None = None, until: float = 1e9) -> list[object]:
    edges = [second * SECOND for second in range(stop + 1)]
    return list(made.extents(edges, int(until * SECOND), None if gap is None else int(gap * SECOND)))


def test_a_value_holds_until_the_next_one() -> None:
    made = series((1.5, 3.0), (3.5, 7.0))
    assert extents(made, 5) == [None, (3.0, 3.0), (3.0, 3.0), (3.0, 7.0), (7.0, 7.0)]


def test_the_last_value_holds_until_now() -> None:
    assert extents(series((0.5, 3.0)), 4, until=1.5) == [(3.0, 3.0), (3.0, 3.0), None, None]


def test_silence_is_a_gap() -> None:
    assert extents(series((0.5, 3.0), (3.5, 7.0)), 5, gap=2.0, until=10.0) == [(3.0, 3.0), None, None, (7.0, 7.0), None]


def test_the_usual_interval_tells_what_is_silence() -> None:
    assert series(*((float(at), 1.0) for at in range(10))).usual_gap() is None
    assert series(*((float(at), 1.0) for at in range(11)), (500.0, 1.0)).usual_gap() == 10 * SECOND


def test_a_lost_connection_is_a_gap_up_to_the_connection() -> None:
    made = series((0.5, 3.0))
    made.connection(connection(PVState.DISCONNECTED, 1.5))
    assert made.is_lost
    assert extents(made, 4) == [(3.0, 3.0), (3.0, 3.0), None, None]
    made.connection(connection(PVState.CONNECTED, 3.5))
    made.add(value(3.0, 0.5))  # the PV has not changed meanwhile
    assert extents(made, 5) == [(3.0, 3.0), (3.0, 3.0), None, (3.0, 3.0), (3.0, 3.0)]
    assert not made.is_lost


def test_values_without_meaning_are_gaps() -> None:
    made = series((0.5, 3.0))
    made.add(value(4.0, 1.0, severity=Severity.INVALID))
    made.add(value(math.nan, 3.0))
    made.add(value(5.0, 4.0))
    assert extents(made, 5) == [(3.0, 3.0), (3.0, 3.0), None, None, (5.0, 5.0)]
    assert made.at(int(2.5 * SECOND)) is None
    assert made.at(int(4.5 * SECOND)) == (5.0, Severity.NO_ALARM)


def test_text_has_no_curve() -> None:
    made = Series()
    made.add(value("hello", 0.5))
    assert extents(made, 1) == [None]
    assert made.newest is not None


def test_late_values_take_their_place() -> None:
    made = series((2.5, 7.0), (0.5, 3.0))
    assert extents(made, 3) == [(3.0, 3.0), (3.0, 3.0), (3.0, 7.0)]
    assert made.newest is not None
    assert made.newest.value == 7.0


def test_the_oldest_values_make_room() -> None:
    made = series(*((float(at), float(at)) for at in range(25)), capacity=10)
    assert len(made) <= 10
    assert made.at(24 * SECOND) == (24.0, Severity.NO_ALARM)
    assert made.at(3 * SECOND) is None


def test_a_time_beyond_what_is_counted_does_no_harm() -> None:
    made = series((0.5, 3.0))
    made.add(update("my:x", 4.0, timestamp=2**63 + 5 * SECOND))
    assert len(made) == 2


def test_a_book_sorts_items_by_pv() -> None:
    book = SeriesBook([Curve("pva://my:x", "my:x"), Curve("pva://my:y", "my:y")])
    book.take(update("my:y", 1.0, timestamp=SECOND))
    book.take(ConnectionEvent("my:x", "pva://my:x", PVState.NEVER_CONNECTED, SECOND))
    assert [len(one) for one in book.series] == [0, 1]
    assert [one.is_lost for one in book.series] == [True, False]


@pytest.mark.parametrize(("gap", "expected"), [(None, 10 * SECOND), (2.5, int(2.5 * SECOND))])
def test_a_gap_is_as_given_or_as_usual(gap: float | None, expected: int) -> None:
    made = series(*((float(at), 1.0) for at in range(11)))
    assert SeriesBook([], gap).gap_of(made) == expected
