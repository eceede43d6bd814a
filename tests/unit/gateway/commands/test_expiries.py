"""Expiries: what is due, at the cost of what is due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.gateway.commands.expiries import Expiries

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_items_are_due_from_their_time_on_until_they_are_discarded() -> None:
    expiries = Expiries[str](0.25)
    for name, seconds in (("late", 9.0), ("a", 1.1), ("b", 1.2), ("never", None)):
        expiries.set(name, None if seconds is None else at(seconds))
    assert [expiries.due(at(seconds), 10) for seconds in (1.0, 1.15, 1.2)] == [[], ["a"], ["a", "b"]]
    assert expiries.due(at(2.0), 1) == ["a"]
    expiries.discard("a")
    expiries.discard("a")
    expiries.set("b", at(5.0))
    assert expiries.due(at(2.0), 10) == []
    expiries.set("b", None)
    assert (expiries.due(at(100.0), 10), len(expiries)) == (["late"], 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.floats(0, 3))), st.floats(0, 3))
def test_they_are_as_a_look_at_all_would_find_them(settings: list[tuple[int, float | None]], now: float) -> None:
    expiries, times = Expiries[int](0.25), dict[int, float | None]()
    for item, seconds in settings:
        expiries.set(item, None if seconds is None else at(seconds))
        times[item] = seconds
    due = {item for item, seconds in times.items() if seconds is not None and at(seconds) <= at(now)}
    assert set(expiries.due(at(now), 100)) == due
    for item in times:
        expiries.discard(item)
    assert (len(expiries), expiries._buckets) == (0, {})


@pytest.mark.parametrize("waiting", [10, 10_000])
def test_a_look_costs_what_is_due(waiting: int) -> None:
    looked: list[datetime] = []

    class Instant(datetime):
        def __le__(self, other: datetime, /) -> bool:
            looked.append(other)
            return super().__le__(other)

    expiries = Expiries[int](0.25)
    for item in range(waiting):
        expiries.set(item, Instant.fromtimestamp(START.timestamp() + 5 + item / waiting, UTC))
    expiries.set(-1, Instant.fromtimestamp(START.timestamp() + 1, UTC))
    assert expiries.due(at(2.0), 100) == [-1]
    assert len(looked) == 1
