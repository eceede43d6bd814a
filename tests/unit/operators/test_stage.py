"""What holds for every operator with timers, whatever comes when."""

from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from k2eg_rx.operators.stage import Stage, staged


class Told(abc.ObserverBase[Any]):
    """An observer that notes what it is told, also what it must not be told after the end."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def on_next(self, value: Any) -> None:
        self.said.append(value)

    def on_error(self, error: Exception) -> None:
        self.said.append(error)

    def on_completed(self) -> None:
        self.said.append("completed")


class Passing(Stage[Any, Any]):
    def take(self, item: Any) -> None:
        self.emit(item)

    def tick(self) -> None:
        self.emit("tick")


@pytest.fixture
def scheduler() -> TestScheduler:
    return TestScheduler()


@pytest.mark.parametrize("end", ["complete", "fail", "dispose"])
def test_after_its_end_it_says_and_does_nothing(end: str, scheduler: TestScheduler) -> None:
    told, done = Told(), []
    stage = Passing(told, scheduler)
    stage.hold(Disposable(lambda: done.append("left")))
    late = stage.guarded(done.append), stage.catching(done.append)  # as if they had waited for the lock meanwhile
    error = KeyError("x")
    getattr(stage, end)(*([error] if end == "fail" else []))
    said = list(told.said)
    assert said == {"complete": ["completed"], "fail": [error], "dispose": []}[end]
    for act in late:
        act("late")
    stage.tick_in(1.0)
    stage.emit("late")
    stage.complete()
    stage.fail(KeyError("late"))
    scheduler.advance_to(10)
    assert told.said == said
    assert done == ["left"]
    assert not stage.is_open


def test_a_subscriber_is_told_of_a_failure_when_all_is_left(scheduler: TestScheduler) -> None:
    order: list[str] = []

    class Noting(Told):
        def on_error(self, error: Exception) -> None:
            order.append("told")

    stage = Passing(Noting(), scheduler)
    stage.hold(Disposable(lambda: order.append("left")))
    stage.fail(KeyError("x"))
    assert order == ["left", "told"]


def test_a_later_wish_for_a_tick_takes_the_place_of_the_earlier(scheduler: TestScheduler) -> None:
    told = Told()
    stage = Passing(told, scheduler)
    stage.tick_in(1.0)
    stage.tick_in(2.0)
    scheduler.advance_to(1.5)
    assert told.said == []
    scheduler.advance_to(10)
    assert told.said == ["tick"]


def test_time_counts_from_the_subscription(scheduler: TestScheduler) -> None:
    scheduler.advance_to(5)
    stage = Passing(Told(), scheduler)
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


def test_what_raises_outside_the_source_ends_it_with_that_error(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    stage = Passing(told, TestScheduler())
    error = ArithmeticError("x")

    def raising() -> None:
        raise error

    stage.catching(raising)()
    assert told.said == [error]
    assert "its subscription ends" in caplog.text


def test_what_raises_inside_the_source_is_the_sources_to_tell(scheduler: TestScheduler) -> None:
    def raising(_: int) -> None:
        raise ArithmeticError("x")

    with pytest.raises(ArithmeticError):
        staged(rx.of(1), Passing, scheduler).subscribe(raising)
