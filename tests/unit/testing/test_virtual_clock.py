"""`VirtualClock`: order and time of actions, waiting, errors."""

from __future__ import annotations

import doctest
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import reactivex as rx
from reactivex import operators as ops

from k2eg_rx.testing import ClockStalledError, EndlessLoopError, VirtualClock
from k2eg_rx.testing import virtual_clock as clock_module
from k2eg_rx.testing.virtual_clock import VirtualExecutor


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def append_to(notes: list[str], text: str) -> Callable[..., None]:
    return lambda *_: notes.append(text)


def test_docstring_examples() -> None:
    assert doctest.testmod(clock_module).failed == 0


def test_actions_run_only_when_the_clock_runs(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule(append_to(notes, "now"))
    clock.schedule_relative(1.0, append_to(notes, "later"))
    assert notes == []
    clock.settle()
    assert notes == ["now"]
    assert clock.elapsed == 0.0


def test_actions_run_in_order_of_time_then_of_arrival(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(2.0, append_to(notes, "2"))
    clock.schedule_relative(1.0, append_to(notes, "1a"))
    clock.schedule_relative(1.0, append_to(notes, "1b"))
    clock.schedule(append_to(notes, "now"))
    clock.schedule_absolute(clock.now - timedelta(seconds=5), append_to(notes, "past"))
    clock.advance(10.0)
    assert notes == ["now", "past", "1a", "1b", "2"]
    assert clock.elapsed == 10.0


def test_an_action_runs_at_its_due_time(clock: VirtualClock) -> None:
    seen: list[float] = []
    clock.schedule_relative(1.5, lambda *_: seen.append(clock.elapsed))
    clock.schedule_relative(4.0, lambda *_: seen.append(clock.elapsed))
    clock.advance(3.0)
    assert seen == [1.5]
    assert clock.nanoseconds == VirtualClock().nanoseconds + 3_000_000_000
    assert clock.time() == clock.now.timestamp()


def test_actions_scheduled_by_actions_run_at_their_due_time(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(1.0, lambda *_: clock.schedule_relative(1.0, append_to(notes, "second")))
    clock.advance(1.9)
    assert notes == []
    clock.advance(0.1)
    assert notes == ["second"]


def test_a_cancelled_action_does_not_run_and_is_not_waited_for(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(1.0, append_to(notes, "cancelled")).dispose()
    with pytest.raises(ClockStalledError, match="nothing is scheduled"):
        clock.wait(lambda: False)
    assert notes == []
    assert clock.elapsed == 0.0


def test_an_error_is_raised_by_settle_and_later_actions_run_next_time(clock: VirtualClock) -> None:
    notes: list[str] = []

    def fail(*_: object) -> None:
        raise LookupError("a bug of the script")

    clock.schedule(fail)
    clock.schedule(append_to(notes, "next"))
    with pytest.raises(LookupError):
        clock.settle()
    assert not clock.is_running_here()
    clock.settle()
    assert notes == ["next"]


def test_wait_advances_to_the_action_that_fulfils_the_condition(clock: VirtualClock) -> None:
    notes: list[str] = []
    for seconds in (1.0, 60.0, 3000.0):
        clock.schedule_relative(seconds, append_to(notes, f"{seconds:g}"))
    clock.wait(lambda: "60" in notes)
    assert notes == ["1", "60"]
    assert clock.elapsed == 60.0


def test_wait_ends_after_max_wait(clock: VirtualClock) -> None:
    short = VirtualClock(max_wait=10.0)
    rx.interval(1.0, scheduler=short).subscribe()
    with pytest.raises(ClockStalledError, match="0:00:10"):
        short.wait(lambda: False)
    assert short.elapsed == 10.0


def test_advancing_by_negative_seconds_is_rejected(clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1.0)


def test_endless_actions_raise_endless_loop_error(clock: VirtualClock) -> None:
    def again(*_: object) -> None:
        clock.schedule(again)

    clock.schedule(again)
    with pytest.raises(EndlessLoopError, match="does a script write the PV"):
        clock.settle()


def test_steps_run_when_no_action_is_due(clock: VirtualClock) -> None:
    notes: list[str] = []
    left = [2]

    def step() -> bool:
        if not left[0]:
            return False
        left[0] -= 1
        notes.append("step")
        clock.schedule(append_to(notes, "action"))
        return True

    remove = clock.add_step(step)
    clock.settle()
    assert notes == ["step", "action", "step", "action"]
    left[0] = 1
    remove()
    remove()
    clock.settle()
    assert len(notes) == 4


def test_an_action_may_wait_for_a_later_one(clock: VirtualClock) -> None:
    notes: list[str] = []

    def outer(*_: object) -> None:
        clock.schedule_relative(5.0, append_to(notes, "inner"))
        assert clock.is_running_here()
        clock.wait(lambda: bool(notes))
        notes.append("outer")

    clock.schedule(outer)
    clock.advance(1.0)
    assert notes == ["inner", "outer"]
    assert clock.elapsed == 5.0


def test_the_executor_ignores_tasks_after_close(clock: VirtualClock) -> None:
    notes: list[str] = []
    executor = VirtualExecutor(clock)
    executor.submit(lambda: notes.append("before"))
    assert not executor.wait_for(threading.Condition(), lambda: False, 1.0)
    assert notes == ["before"]
    executor.submit(lambda: notes.append("queued"))
    executor.close(1.0)
    executor.submit(lambda: notes.append("after"))
    clock.settle()
    assert notes == ["before", "queued"]


def test_reactivex_operators_take_it_for_a_scheduler(clock: VirtualClock) -> None:
    seen: list[int] = []
    rx.interval(10.0, scheduler=clock).pipe(ops.take(3)).subscribe(seen.append)
    clock.advance(25.0)
    assert seen == [0, 1]
    clock.advance(5.0)
    assert seen == [0, 1, 2]
