"""Virtual time: what is done, in which order, and when."""

from __future__ import annotations

import doctest
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import reactivex as rx
from reactivex import operators as ops

from k2eg_rx.testing import Stuck, Unsettled, VirtualClock
from k2eg_rx.testing import virtual_clock as clock_module
from k2eg_rx.testing.virtual_clock import VirtualExecutor


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def noting(notes: list[str], text: str) -> Callable[..., None]:
    return lambda *_: notes.append(text)


def test_the_example_in_the_docstring_holds() -> None:
    assert doctest.testmod(clock_module).failed == 0


def test_nothing_happens_by_itself(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule(noting(notes, "now"))
    clock.schedule_relative(1.0, noting(notes, "later"))
    assert notes == []
    clock.settle()
    assert notes == ["now"]
    assert clock.elapsed == 0.0


def test_what_is_due_is_done_in_the_order_of_time_and_of_arrival(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(2.0, noting(notes, "2"))
    clock.schedule_relative(1.0, noting(notes, "1a"))
    clock.schedule_relative(1.0, noting(notes, "1b"))
    clock.schedule(noting(notes, "now"))
    clock.schedule_absolute(clock.now - timedelta(seconds=5), noting(notes, "past"))
    clock.advance(10.0)
    assert notes == ["now", "past", "1a", "1b", "2"]
    assert clock.elapsed == 10.0


def test_an_action_sees_the_time_it_was_due_at(clock: VirtualClock) -> None:
    seen: list[float] = []
    clock.schedule_relative(1.5, lambda *_: seen.append(clock.elapsed))
    clock.schedule_relative(4.0, lambda *_: seen.append(clock.elapsed))
    clock.advance(3.0)
    assert seen == [1.5]
    assert clock.nanoseconds == VirtualClock().nanoseconds + 3_000_000_000
    assert clock.time() == clock.now.timestamp()


def test_what_an_action_schedules_is_done_in_its_time_too(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(1.0, lambda *_: clock.schedule_relative(1.0, noting(notes, "second")))
    clock.advance(1.9)
    assert notes == []
    clock.advance(0.1)
    assert notes == ["second"]


def test_a_cancelled_action_is_not_done_nor_waited_for(clock: VirtualClock) -> None:
    notes: list[str] = []
    clock.schedule_relative(1.0, noting(notes, "cancelled")).dispose()
    with pytest.raises(Stuck, match="nothing more is due"):
        clock.wait(lambda: False)
    assert notes == []
    assert clock.elapsed == 0.0


def test_an_action_that_raises_raises_where_it_is_driven_and_harms_no_other(clock: VirtualClock) -> None:
    notes: list[str] = []

    def fail(*_: object) -> None:
        raise LookupError("a fault of the script")

    clock.schedule(fail)
    clock.schedule(noting(notes, "next"))
    with pytest.raises(LookupError):
        clock.settle()
    assert not clock.is_driven_here()
    clock.settle()
    assert notes == ["next"]


def test_waiting_goes_from_one_due_time_to_the_next_and_no_further(clock: VirtualClock) -> None:
    notes: list[str] = []
    for seconds in (1.0, 60.0, 3000.0):
        clock.schedule_relative(seconds, noting(notes, f"{seconds:g}"))
    clock.wait(lambda: "60" in notes)
    assert notes == ["1", "60"]
    assert clock.elapsed == 60.0


def test_waiting_has_an_end(clock: VirtualClock) -> None:
    impatient = VirtualClock(patience=10.0)
    rx.interval(1.0, scheduler=impatient).subscribe()
    with pytest.raises(Stuck, match="0:00:10"):
        impatient.wait(lambda: False)
    assert impatient.elapsed == 10.0


def test_time_does_not_run_backwards(clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1.0)


def test_what_always_has_more_to_do_is_told_so(clock: VirtualClock) -> None:
    def again(*_: object) -> None:
        clock.schedule(again)

    clock.schedule(again)
    with pytest.raises(Unsettled, match="does something write the PV"):
        clock.settle()


def test_parts_take_their_steps_when_nothing_else_is_to_be_done(clock: VirtualClock) -> None:
    notes: list[str] = []
    left = [2]

    def step() -> bool:
        if not left[0]:
            return False
        left[0] -= 1
        notes.append("step")
        clock.schedule(noting(notes, "action"))
        return True

    release = clock.drive(step)
    clock.settle()
    assert notes == ["step", "action", "step", "action"]
    left[0] = 1
    release()
    release()
    clock.settle()
    assert len(notes) == 4


def test_code_that_is_run_may_wait_for_what_is_done_later(clock: VirtualClock) -> None:
    notes: list[str] = []

    def outer(*_: object) -> None:
        clock.schedule_relative(5.0, noting(notes, "inner"))
        assert clock.is_driven_here()
        clock.wait(lambda: bool(notes))
        notes.append("outer")

    clock.schedule(outer)
    clock.advance(1.0)
    assert notes == ["inner", "outer"]
    assert clock.elapsed == 5.0


def test_its_staff_runs_what_was_asked_before_it_closes_and_nothing_after(clock: VirtualClock) -> None:
    notes: list[str] = []
    staff = VirtualExecutor(clock)
    staff.submit(lambda: notes.append("before"))
    assert not staff.wait_for(threading.Condition(), lambda: False, 1.0)
    assert notes == ["before"]
    staff.submit(lambda: notes.append("queued"))
    staff.close(1.0)
    staff.submit(lambda: notes.append("after"))
    clock.settle()
    assert notes == ["before", "queued"]


def test_reactivex_operators_take_it_for_a_scheduler(clock: VirtualClock) -> None:
    seen: list[int] = []
    rx.interval(10.0, scheduler=clock).pipe(ops.take(3)).subscribe(seen.append)
    clock.advance(25.0)
    assert seen == [0, 1]
    clock.advance(5.0)
    assert seen == [0, 1, 2]
