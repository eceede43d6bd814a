"""Items emitted at the pace of their event times, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from reactivex import Observer
from reactivex.scheduler import HistoricalScheduler
from reactivex.testing import ReactiveTest, TestScheduler

from k2eg_rx.history.pacing import _Play, play  # pyright: ignore[reportPrivateUsage]

SECOND = 1_000_000_000

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed


def seconds(item: int) -> int:
    return item * SECOND


class Source:
    """An iterator that counts the items taken from it and the calls of `close`."""

    def __init__(self, *items: int, error: Exception | None = None) -> None:
        self._remaining = list(items)
        self.taken = 0
        self.closed = 0
        self._error = error

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        assert not self.closed
        if not self._remaining:
            raise self._error or StopIteration
        self.taken += 1
        return self._remaining.pop(0)

    def close(self) -> None:
        self.closed += 1


def emissions(source, speed, *, timestamp=seconds, disposed=1000.0) -> list[tuple[float, Any]]:
    scheduler = TestScheduler()
    result = scheduler.start(lambda: play(source, timestamp, speed, scheduler), disposed=disposed)
    return [(message.time, message.value) for message in result.messages]


def test_a_speed_of_one_keeps_the_original_intervals():
    messages = emissions([100, 101, 105], 1)
    assert messages == [
        (200.0, on_next(0, 100).value),
        (201.0, on_next(0, 101).value),
        (205.0, on_next(0, 105).value),
        (205.0, on_completed(0).value),
    ]


def test_a_speed_of_60_plays_an_hour_in_a_minute():
    assert [time for time, _ in emissions([0, 1800, 3600], 60)] == [200.0, 230.0, 260.0, 260.0]


def test_a_speed_below_one_stretches_the_intervals():
    assert [time for time, _ in emissions([0, 1, 2], 0.5)] == [200.0, 202.0, 204.0, 204.0]


def test_without_a_speed_all_items_are_emitted_at_once():
    assert [time for time, _ in emissions([0, 3600, 7200], None)] == [200.0] * 4


def test_an_item_without_a_time_is_emitted_at_once_and_starts_no_interval():
    times = {0: None, 1: 50 * SECOND, 2: None, 3: 52 * SECOND}
    assert [time for time, _ in emissions([0, 1, 2, 3], 1, timestamp=times.get)] == [200.0, 200.0, 200.0, 202.0, 202.0]


def test_an_item_older_than_its_predecessor_is_emitted_at_once():
    assert [time for time, _ in emissions([10, 20, 15, 21], 1)] == [200.0, 210.0, 210.0, 211.0, 211.0]


def test_nanoseconds_are_not_lost_with_large_timestamps():
    third = SECOND // 3
    messages = emissions([0, 1, 2, 3], 1, timestamp=lambda item: 1_700_000_000 * SECOND + item * third)
    assert [time for time, _ in messages] == pytest.approx([200, 200 + 1 / 3, 200 + 2 / 3, 201, 201], abs=1e-5)


def test_only_the_next_item_is_taken_in_advance():
    source = Source(0, 10, 20, 30)
    scheduler = TestScheduler()
    taken: list[tuple[float, int]] = []
    for time in (205.0, 215.0, 225.0):
        scheduler.schedule_absolute(time, lambda *_: taken.append((scheduler.clock, source.taken)))
    scheduler.start(lambda: play(source, seconds, 1, scheduler))
    assert [count for _, count in taken] == [2, 3, 4]
    assert source.closed == 1


def test_unsubscribing_closes_the_iterable_while_an_item_is_pending():
    source = Source(0, 10, 20)
    assert [time for time, _ in emissions(source, 1, disposed=215.0)] == [200.0, 210.0]
    assert (source.taken, source.closed) == (3, 1)


def test_a_generator_is_closed_when_its_subscriber_unsubscribes():
    closed: list[int] = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(1)

    scheduler = TestScheduler()
    got: list[int] = []

    def take(item: int) -> None:
        got.append(item)
        if item == 2:
            subscription.dispose()

    subscription = play(items(), seconds, 1, scheduler).subscribe(take, scheduler=scheduler)
    scheduler.start()
    assert (got, closed) == ([0, 1, 2], [1])


def test_an_iterable_is_not_closed_while_an_item_is_taken_from_it():
    closed_during_next: list[int] = []

    class UnsubscribingSource(Source):
        def __next__(self) -> int:
            item = super().__next__()
            if item == 2:
                subscription.dispose()
                closed_during_next.append(self.closed)
            return item

    source = UnsubscribingSource(0, 1, 2, 3)
    scheduler = TestScheduler()
    got: list[int] = []
    subscription = play(source, seconds, None, scheduler).subscribe(got.append)
    scheduler.start()
    assert (closed_during_next, source.closed, got) == ([0], 1, [0, 1])


def test_an_exception_of_the_iterable_fails_the_stream():
    source = Source(0, 1, error=OSError("disk"))
    messages = emissions(source, 1)
    assert [time for time, _ in messages] == [200.0, 201.0, 201.0]
    assert messages[-1][1].kind == "E"
    assert isinstance(messages[-1][1].exception, OSError)
    assert source.closed == 1


def test_an_exception_of_iter_fails_the_stream():
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("no file")

    (message,) = emissions(Broken(), 1)
    assert isinstance(message[1].exception, OSError)


def test_an_exception_of_the_timestamp_function_fails_the_stream():
    messages = emissions([1], 1, timestamp=lambda item: {}[item])
    assert isinstance(messages[-1][1].exception, KeyError)


def test_an_exception_of_the_subscriber_closes_the_iterable():
    source = Source(0, 1, 2)
    scheduler = TestScheduler()

    def fail(item: int) -> None:
        raise RuntimeError(item)

    play(source, seconds, 1, scheduler).subscribe(fail)
    with pytest.raises(RuntimeError):
        scheduler.start()
    assert (source.taken, source.closed) == (1, 1)


def test_each_subscription_plays_from_the_start():
    stream = play([1, 2], seconds, None, scheduler := TestScheduler())
    got: list[int] = []
    stream.subscribe(got.append)
    stream.subscribe(got.append)
    scheduler.start()
    assert got == [1, 2, 1, 2]


def test_the_scheduler_given_to_subscribe_is_used():
    scheduler = TestScheduler()
    got: list[int] = []
    play([1, 2], seconds, None).subscribe(got.append, scheduler=scheduler)
    assert got == []
    scheduler.start()
    assert got == [1, 2]


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), True, "fast"])
def test_an_invalid_speed_is_rejected(speed):
    with pytest.raises(ValueError, match="speed"):
        play([], seconds, speed)


def test_an_item_centuries_later_is_awaited_in_bounded_steps():
    century = 100 * 366 * 86400
    times = [time for time, _ in emissions([0, 5 * century], 1, disposed=10.0**11)]
    assert times == [200.0, 200.0 + 5 * century, 200.0 + 5 * century]


def test_an_item_beyond_the_calendar_of_the_clock_is_never_due():
    clock = HistoricalScheduler(datetime(9999, 12, 30))
    items: list[int] = []
    errors: list[Exception] = []
    play([0, 10**400], seconds, 1.0, clock).subscribe(items.append, errors.append)
    clock.start()
    assert (items, errors) == ([0], [])


def test_an_item_centuries_later_is_awaited_on_a_thread():
    waits = []
    played = _Play([0, 10**13], seconds, 1.0, Observer())
    for now in (0.0, 0.0, 1e13):
        waits.append(played.advance(lambda now=now: now))
    assert waits == [1e6, 1e6, None]
