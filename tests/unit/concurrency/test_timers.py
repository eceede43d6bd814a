"""The timer scheduler: wake-ups of its thread, cancellation and the order of actions."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.disposable import Disposable

from k2eg_rx.concurrency import SchedulerClosedError, TimerScheduler

TIMEOUT = 60.0
NAME = "timers-under-test"


class CountingCondition(threading.Condition):
    """Counts notifications."""

    count = 0

    def notify(self, n: int = 1) -> None:
        self.count += n


def nothing(*_: Any) -> None: ...


@pytest.fixture
def timers() -> Iterator[TimerScheduler]:
    timers = TimerScheduler(NAME)
    yield timers
    timers.drain()


class TestWithoutThread:
    @pytest.fixture
    def timers(self, monkeypatch: pytest.MonkeyPatch) -> TimerScheduler:
        monkeypatch.setattr(TimerScheduler, "_start_thread", nothing)
        timers = TimerScheduler()
        monkeypatch.setattr(timers, "_condition", CountingCondition())
        return timers

    def wakes(self, timers: TimerScheduler) -> int:
        condition: Any = timers._condition
        return condition.count

    def test_the_thread_is_woken_for_an_earlier_due_time(self, timers: TimerScheduler) -> None:
        timers.schedule_relative(10, nothing)
        assert self.wakes(timers) == 1
        timers.schedule_relative(20, nothing)
        assert self.wakes(timers) == 1
        timers.schedule_relative(5, nothing)
        assert self.wakes(timers) == 2
        timers.schedule(nothing)
        assert self.wakes(timers) == 3

    def test_repeated_timeouts_of_equal_length_do_not_wake_the_thread(self, timers: TimerScheduler) -> None:
        for _ in range(100):
            timers.schedule_relative(10, nothing).dispose()
        assert self.wakes(timers) == 1

    def test_a_closed_scheduler_accepts_no_actions(self, timers: TimerScheduler) -> None:
        timers.dispose()
        with pytest.raises(SchedulerClosedError):
            timers.schedule_relative(10, nothing)
        timers.call_soon(nothing).dispose()
        timers.call_later(10, nothing).dispose()

    def test_a_step_of_the_system_clock_does_not_affect_now(
        self, timers: TimerScheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Stepped(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Stepped":
                return cls(2100, 1, 1, tzinfo=tz)

        before = timers.now
        monkeypatch.setattr("k2eg_rx.concurrency.timers.datetime", Stepped)
        assert TimerScheduler().now.year == 2100  # a new scheduler starts at the system time
        assert timedelta() <= timers.now - before < timedelta(days=1)

    def test_a_cancelled_action_is_released(self, timers: TimerScheduler) -> None:
        class Reply:
            pass

        reply = Reply()
        released = weakref.ref(reply)
        timer = timers.call_later(3600.0, lambda reply=reply: reply)
        del reply
        gc.collect()
        assert released() is not None
        timer.dispose()
        gc.collect()
        assert released() is None


def test_actions_run_in_order_of_time_on_the_schedulers_thread(timers: TimerScheduler) -> None:
    called: SimpleQueue[str] = SimpleQueue()
    # gaps that are longer than what a busy machine takes between two of these lines
    timers.call_later(1.0, lambda: called.put("last"))
    timers.call_later(0.5, lambda: called.put("second"))
    timers.call_soon(lambda: called.put(threading.current_thread().name))
    assert [called.get(timeout=TIMEOUT) for _ in range(3)] == [NAME, "second", "last"]


def test_actions_of_equal_time_run_in_order_of_scheduling(timers: TimerScheduler) -> None:
    called: SimpleQueue[int] = SimpleQueue()
    proceed = threading.Event()
    timers.call_soon(lambda: proceed.wait(TIMEOUT))
    for number in range(50):
        timers.call_soon(lambda number=number: called.put(number))
    proceed.set()
    assert [called.get(timeout=TIMEOUT) for _ in range(50)] == list(range(50))


def test_a_cancelled_action_does_not_run(timers: TimerScheduler) -> None:
    called: SimpleQueue[str] = SimpleQueue()
    proceed = threading.Event()
    timers.call_soon(lambda: proceed.wait(TIMEOUT))
    cancelled = timers.call_later(0.0, lambda: called.put("cancelled"))
    timers.call_later(0.0, lambda: called.put("other"))
    cancelled.dispose()
    cancelled.dispose()
    proceed.set()
    assert called.get(timeout=TIMEOUT) == "other"
    assert called.empty()


def test_cancelled_actions_do_not_accumulate(timers: TimerScheduler) -> None:
    for _ in range(5000):
        timers.call_later(3600.0, nothing).dispose()
    assert len(timers._heap) < 2000


def test_an_action_that_raises_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[int] = []
    timers = TimerScheduler(NAME, lambda: errors.append(1))
    called = threading.Event()

    def fail(kind: type[BaseException]) -> Callable[[], None]:
        def failing() -> None:
            raise kind("the action failed")

        return failing

    timers.call_soon(fail(RuntimeError))
    timers.call_soon(fail(SystemExit))
    timers.call_soon(called.set)
    assert called.wait(TIMEOUT)
    assert f"scheduled action failed: thread={NAME}" in caplog.text
    assert errors == [1, 1]
    timers.close(TIMEOUT)


@pytest.mark.parametrize("disposed_by_the_action", [True, False])
def test_disposing_a_timer_disposes_what_its_action_returned(
    timers: TimerScheduler, disposed_by_the_action: bool
) -> None:
    ran, disposed = threading.Event(), threading.Event()
    held = threading.Event()

    def action(*_: Any) -> Disposable:
        if disposed_by_the_action:
            assert held.wait(TIMEOUT)
            timer.dispose()
        ran.set()
        return Disposable(disposed.set)

    timer = timers.schedule(action)
    held.set()
    assert ran.wait(TIMEOUT)
    timers.drain()
    if not disposed_by_the_action:
        assert not disposed.is_set()
        timer.dispose()
    assert disposed.wait(TIMEOUT)


def test_it_runs_periodic_actions_of_reactivex(timers: TimerScheduler) -> None:
    counts: SimpleQueue[int] = SimpleQueue()
    done = threading.Event()
    rx.interval(0.001, scheduler=timers).pipe(ops.take(3)).subscribe(counts.put, on_completed=done.set)
    assert done.wait(TIMEOUT)
    assert [counts.get_nowait() for _ in range(3)] == [0, 1, 2]


def test_drain_runs_due_actions_and_drops_the_others() -> None:
    timers = TimerScheduler(NAME)
    called: list[str] = []
    timers.call_later(3600.0, lambda: called.append("late"))
    timers.call_soon(lambda: called.append("due"))
    timers.drain()
    timers.drain()
    timers.call_soon(lambda: called.append("closed"))
    assert called == ["due"]
    assert not any(thread.name == NAME for thread in threading.enumerate())


def test_an_action_may_drain_its_scheduler() -> None:
    timers = TimerScheduler(NAME)
    scheduled, closed = threading.Event(), threading.Event()
    timers.call_soon(lambda: scheduled.wait(TIMEOUT))
    timers.call_soon(timers.drain)
    timers.call_soon(closed.set)
    scheduled.set()
    assert closed.wait(TIMEOUT)
    timers.drain()


def test_close_drops_all_actions(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[int] = []
    timers = TimerScheduler(NAME, lambda: errors.append(1))
    running, closed = threading.Event(), threading.Event()
    called: list[str] = []

    def schedule_too_late() -> None:
        running.set()
        assert closed.wait(TIMEOUT)
        timers.schedule(nothing)

    timers.call_soon(schedule_too_late)
    timers.call_soon(lambda: called.append("due"))
    assert running.wait(TIMEOUT)
    timers.close(0.0)
    closed.set()
    timers.close(TIMEOUT)
    assert (called, errors, caplog.text) == ([], [], "")


def test_a_scheduler_that_was_never_used_has_no_thread() -> None:
    timers = TimerScheduler(NAME)
    timers.drain()
    timers.close(0.0)
    assert not any(thread.name == NAME for thread in threading.enumerate())
