"""Properties of all operators with timers."""

from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from k2eg_rx.operators.stage import Stage, staged


class Calls(abc.ObserverBase[Any]):
    """An observer that keeps all calls, also those after the end."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def on_next(self, value: Any) -> None:
        self.made.append(value)

    def on_error(self, error: Exception) -> None:
        self.made.append(error)

    def on_completed(self) -> None:
        self.made.append("completed")


class Passing(Stage[Any, Any]):
    def take(self, item: Any) -> None:
        self.emit(item)

    def tick(self) -> None:
        self.emit("tick")


@pytest.fixture
def scheduler() -> TestScheduler:
    return TestScheduler()


@pytest.mark.parametrize("end", ["complete", "fail", "dispose"])
def test_nothing_happens_after_the_end(end: str, scheduler: TestScheduler) -> None:
    calls, done = Calls(), []
    stage = Passing(calls, scheduler)
    stage.hold(Disposable(lambda: done.append("left")))
    late = stage.guarded(done.append), stage.catching(done.append)  # as if they had waited for the lock meanwhile
    error = KeyError("x")
    getattr(stage, end)(*([error] if end == "fail" else []))
    made = list(calls.made)
    assert made == {"complete": ["completed"], "fail": [error], "dispose": []}[end]
    for act in late:
        act("late")
    stage.tick_in(1.0)
    stage.emit("late")
    stage.complete()
    stage.fail(KeyError("late"))
    scheduler.advance_to(10)
    assert calls.made == made
    assert done == ["left"]
    assert not stage.is_open


def test_subscriptions_are_disposed_before_on_error(scheduler: TestScheduler) -> None:
    order: list[str] = []

    class Noting(Calls):
        def on_error(self, error: Exception) -> None:
            order.append("on_error")

    stage = Passing(Noting(), scheduler)
    stage.hold(Disposable(lambda: order.append("left")))
    stage.fail(KeyError("x"))
    assert order == ["left", "on_error"]


def test_a_later_tick_in_replaces_an_earlier_one(scheduler: TestScheduler) -> None:
    calls = Calls()
    stage = Passing(calls, scheduler)
    stage.tick_in(1.0)
    stage.tick_in(2.0)
    scheduler.advance_to(1.5)
    assert calls.made == []
    scheduler.advance_to(10)
    assert calls.made == ["tick"]


def test_time_starts_at_the_subscription(scheduler: TestScheduler) -> None:
    scheduler.advance_to(5)
    stage = Passing(Calls(), scheduler)
    scheduler.advance_to(7.5)
    assert stage.now() == 2.5


def test_the_source_gets_the_subscribers_scheduler_and_not_the_operators(scheduler: TestScheduler) -> None:
    seen: list[abc.SchedulerBase | None] = []

    def subscribe(observer: abc.ObserverBase[int], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        seen.append(given)
        return Disposable()

    source: Observable[int] = Observable(subscribe)
    subscribers = TestScheduler()
    staged(source, Passing, scheduler).subscribe(scheduler=subscribers)
    staged(source, Passing, scheduler).subscribe()
    assert seen == [subscribers, None]


def test_an_exception_outside_the_source_fails_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    stage = Passing(calls, TestScheduler())
    error = ArithmeticError("x")

    def raising() -> None:
        raise error

    stage.catching(raising)()
    assert calls.made == [error]
    assert "its subscription ends" in caplog.text


def test_an_exception_inside_the_source_reaches_the_source(scheduler: TestScheduler) -> None:
    def raising(_: int) -> None:
        raise ArithmeticError("x")

    with pytest.raises(ArithmeticError):
        staged(rx.of(1), Passing, scheduler).subscribe(raising)
