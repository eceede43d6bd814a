"""The client's timers, without their thread: what wakes it, and what is forgotten."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from reactivex.internal import DisposedException
from reactivex.scheduler import EventLoopScheduler

from k2eg_rx.concurrency.timers import Timers


class Wakes(threading.Condition):
    """Counts those who would be woken."""

    count = 0

    def notify(self, n: int = 1) -> None:
        self.count += n


def nothing(*_: Any) -> None: ...


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    monkeypatch.setattr(Timers, "_ensure_thread", nothing)
    timers = Timers()
    monkeypatch.setattr(timers, "_condition", Wakes())
    return timers


def wakes(timers: Timers) -> int:
    condition: Any = timers._condition
    return condition.count


def test_the_thread_is_woken_for_what_is_due_before_all_else(timers: Timers) -> None:
    timers.schedule_relative(10, nothing)
    assert wakes(timers) == 1
    timers.schedule_relative(20, nothing)
    assert wakes(timers) == 1
    timers.schedule_relative(5, nothing)
    assert wakes(timers) == 2
    timers.schedule(nothing)
    assert wakes(timers) == 3


def test_the_next_of_many_timeouts_of_one_length_wakes_nobody(timers: Timers) -> None:
    for _ in range(100):
        timers.schedule_relative(10, nothing).dispose()
    assert wakes(timers) == 1


def test_nothing_is_scheduled_after_the_end(timers: Timers) -> None:
    timers.dispose()
    with pytest.raises(DisposedException):
        timers.schedule_relative(10, nothing)


def test_a_step_of_the_systems_clock_is_not_seen(timers: Timers, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stepped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Stepped":
            return cls(2100, 1, 1, tzinfo=tz)

    before = timers.now
    monkeypatch.setattr("reactivex.internal.basic.datetime", Stepped)
    monkeypatch.setattr("k2eg_rx.concurrency.timers.datetime", Stepped)
    assert EventLoopScheduler().now.year == 2100  # the way in which reactivex would see it
    assert timedelta() <= timers.now - before < timedelta(days=1)
