"""`retry_activation`, in virtual time."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.errors import ClientClosedError, ForkError, OperationError, OperationTimeout, TransportError
from k2eg_rx.operators import retry_activation

REFUSED = OperationError(-1, "no", "monitor", "pva://x")


class Monitor:
    """A source that fails at first and then does what the test says at each subscription."""

    def __init__(self, error: Exception = REFUSED) -> None:
        self.scheduler = TestScheduler()
        self.times: list[float] = []
        self.active = 0
        self.behaviour: Callable[[abc.ObserverBase[Any]], None] = lambda observer: observer.on_error(error)
        self.items: list[Any] = []
        self.ends: list[Any] = []

    def stream(self) -> Observable[Any]:
        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self.times.append(float(self.scheduler.clock))
            self.active += 1
            self.behaviour(observer)
            return Disposable(self.leave)

        return Observable(subscribe)

    def leave(self) -> None:
        self.active -= 1

    def subscribe(self, **arguments: Any) -> abc.DisposableBase:
        return (
            self.stream()
            .pipe(retry_activation(**{"jitter": 0.0, **arguments}))
            .subscribe(
                self.items.append,
                self.ends.append,
                lambda: self.ends.append("completed"),
                scheduler=self.scheduler,
            )
        )


def test_the_delay_grows_up_to_the_longest() -> None:
    monitor = Monitor()
    monitor.subscribe(backoff=1.0, factor=3.0, max_backoff=10.0)
    monitor.scheduler.advance_to(40)
    assert monitor.times == [0.0, 1.0, 4.0, 13.0, 23.0, 33.0]
    assert monitor.ends == []
    assert monitor.active == 0


def test_many_failures_do_not_overflow_the_delay() -> None:
    monitor = Monitor()
    monitor.subscribe(backoff=1.0, max_backoff=1.0)
    monitor.scheduler.advance_to(3000)
    assert len(monitor.times) == 3001


def test_an_update_resets_the_delay() -> None:
    monitor = Monitor()
    monitor.subscribe()
    monitor.scheduler.advance_to(2.9)
    assert monitor.times == [0.0, 1.0]

    def works_and_fails(observer: abc.ObserverBase[Any]) -> None:
        observer.on_next("update")
        observer.on_error(REFUSED)

    monitor.behaviour = works_and_fails
    monitor.scheduler.advance_to(5)
    assert monitor.times == [0.0, 1.0, 3.0, 4.0, 5.0]
    assert monitor.items == ["update"] * 3


def test_the_error_is_passed_on_after_the_last_attempt() -> None:
    monitor = Monitor()
    monitor.subscribe(attempts=2)
    monitor.scheduler.advance_to(100)
    assert monitor.times == [0.0, 1.0, 3.0]
    assert monitor.ends == [REFUSED]
    monitor = Monitor()
    monitor.subscribe(attempts=0)
    assert monitor.ends == [REFUSED]


def test_jitter_spreads_the_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    monitor = Monitor()
    monitor.subscribe(backoff=10.0, jitter=0.25)
    monitor.scheduler.advance_to(15)
    assert asked[0] == (0.75, 1.25)
    assert monitor.times == [0.0, 12.5]


@pytest.mark.parametrize("error", [REFUSED, OperationTimeout("monitor", "pva://x", 1.0), TransportError("down")])
def test_transient_errors_are_retried(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    monitor = Monitor(error)
    with caplog.at_level(logging.WARNING):
        monitor.subscribe()
    monitor.scheduler.advance_to(1)
    assert monitor.times == [0.0, 1.0]
    assert f"delay=1.0 s error={error}" in caplog.text


@pytest.mark.parametrize("error", [ValueError("x"), ClientClosedError("closed"), ForkError("fork"), KeyError("x")])
def test_other_errors_are_passed_on_at_once(error: Exception) -> None:
    monitor = Monitor(error)
    monitor.subscribe()
    monitor.scheduler.advance_to(100)
    assert monitor.ends == [error]
    assert monitor.times == [0.0]


def test_any_exception_of_the_subscriber_is_passed_on() -> None:
    # as a client does it: the exception goes to the error handler of the same subscription
    source: Subject[int] = Subject()
    ends: list[Exception] = []
    mine = OperationTimeout("get", "pva://other", 1.0)

    def raising(_: int) -> None:
        raise mine

    scheduler = TestScheduler()
    source.pipe(retry_activation()).subscribe(raising, ends.append, scheduler=scheduler)
    with pytest.raises(OperationTimeout):
        source.on_next(1)
    source.on_error(mine)
    scheduler.advance_to(100)
    assert ends == [mine]


def test_completion_is_passed_on() -> None:
    monitor = Monitor()
    monitor.behaviour = lambda observer: observer.on_completed()
    monitor.subscribe()
    assert monitor.ends == ["completed"]


def test_dispose_prevents_retries() -> None:
    monitor = Monitor()
    subscription = monitor.subscribe()
    subscription.dispose()
    monitor.scheduler.advance_to(100)
    assert monitor.times == [0.0]


def test_dispose_unsubscribes_from_the_source() -> None:
    monitor = Monitor()
    monitor.behaviour = lambda _: None
    subscription = monitor.subscribe()
    assert monitor.active == 1
    subscription.dispose()
    assert monitor.active == 0


def test_a_source_that_raises_at_a_retry_fails_the_stream() -> None:
    monitor = Monitor()
    monitor.subscribe()

    def raising(_: Any) -> None:
        raise ArithmeticError("in subscribe")

    monitor.behaviour = raising
    monitor.scheduler.advance_to(100)
    assert [str(end) for end in monitor.ends] == ["in subscribe"]


def test_an_error_without_on_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    monitor = Monitor()
    monitor.stream().pipe(retry_activation(attempts=1)).subscribe(scheduler=monitor.scheduler)
    with caplog.at_level(logging.ERROR):
        monitor.scheduler.advance_to(100)
    assert "error -1" in caplog.text


def test_each_subscription_has_its_own_state() -> None:
    monitor = Monitor()
    monitor.subscribe(attempts=1)
    monitor.subscribe(attempts=1)
    monitor.scheduler.advance_to(10)
    assert monitor.times == [0.0, 0.0, 1.0, 1.0]


def test_it_works_in_a_pipe() -> None:
    found: list[int] = []
    rx.of(1, 2).pipe(retry_activation(), ops.map(lambda x: x + 1)).subscribe(found.append)
    assert found == [2, 3]


@pytest.mark.parametrize(
    "arguments",
    [{"backoff": 0}, {"factor": 0.5}, {"max_backoff": 0}, {"jitter": -0.1}, {"jitter": 1.1}, {"attempts": -1}],
)
def test_bad_arguments_raise_at_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        retry_activation(**arguments)
