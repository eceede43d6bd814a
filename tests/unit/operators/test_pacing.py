"""`conflate`, `sample_latest` and `rate_limit`, in virtual time."""

import logging
from typing import Any

import pytest
from reactivex import Observable
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

from k2eg_rx.operators import conflate, rate_limit, sample_latest
from k2eg_rx.testing import update

on_next, on_completed, on_error = ReactiveTest.on_next, ReactiveTest.on_completed, ReactiveTest.on_error


@pytest.fixture
def scheduler() -> TestScheduler:
    return TestScheduler()


def seen(scheduler: TestScheduler, stream: Observable[Any]) -> list[tuple[float, str]]:
    """Returns emissions from 200 on with their times: values, 'end', or the error's text."""
    messages: list[Any] = scheduler.start(lambda: stream).messages
    return [(float(message.time), shown(message.value)) for message in messages]


def shown(notification: Any) -> str:
    if notification.kind == "N":
        item = notification.value
        return f"{item.name}{item.value}" if hasattr(item, "name") else str(item)
    return "end" if notification.kind == "C" else str(notification.exception)


def numbers(scheduler: TestScheduler, *times: int, end: int = 0, error: int = 0) -> Observable[int]:
    messages: list[Any] = [on_next(time, number) for number, time in enumerate(times)]
    messages += [on_completed(end)] if end else []
    messages += [on_error(error, Exception("failed"))] if error else []
    return scheduler.create_hot_observable(*messages)


def test_conflate_emits_at_once_and_then_the_newest_each_period(scheduler: TestScheduler) -> None:
    source = numbers(scheduler, 210, 211, 215, 221, 222, 300)
    assert seen(scheduler, source.pipe(conflate(0.1))) == [(210, "0"), (220, "2"), (230, "4"), (300, "5")]


def test_conflate_limits_each_pv(scheduler: TestScheduler) -> None:
    times_and_updates = [(210, "a", 1), (211, "a", 2), (212, "b", 1), (213, "a", 3), (225, "c", 1), (225, "b", 2)]
    source = scheduler.create_hot_observable(*[on_next(time, update(pv, x)) for time, pv, x in times_and_updates])
    found = seen(scheduler, source.pipe(conflate(0.1)))
    assert found == [(210, "a1"), (220, "a3"), (220, "b1"), (230, "c1"), (230, "b2")]


def test_sample_latest_limits_the_stream(scheduler: TestScheduler) -> None:
    times_and_updates = [(210, "a", 1), (211, "a", 2), (212, "b", 1), (260, "c", 1)]
    source = scheduler.create_hot_observable(*[on_next(time, update(pv, x)) for time, pv, x in times_and_updates])
    assert seen(scheduler, source.pipe(sample_latest(0.1))) == [(210, "a1"), (220, "b1"), (260, "c1")]


def test_rate_limit_delays_and_drops_nothing(scheduler: TestScheduler) -> None:
    source = numbers(scheduler, 210, 211, 212, 300)
    assert seen(scheduler, source.pipe(rate_limit(0.1))) == [(210, "0"), (220, "1"), (230, "2"), (300, "3")]


@pytest.mark.parametrize("operator", [conflate(0.1), sample_latest(0.1)])
def test_waiting_items_are_emitted_before_completion_and_error(operator: Any) -> None:
    scheduler = TestScheduler()
    assert seen(scheduler, numbers(scheduler, 210, 211, 212, end=213).pipe(operator)) == [
        (210, "0"),
        (213, "2"),
        (213, "end"),
    ]
    scheduler = TestScheduler()
    assert seen(scheduler, numbers(scheduler, 210, 211, error=213).pipe(operator)) == [
        (210, "0"),
        (213, "1"),
        (213, "failed"),
    ]


def test_rate_limit_ends_after_its_queue(scheduler: TestScheduler) -> None:
    ended = numbers(scheduler, 210, 211, end=212).pipe(rate_limit(0.1))
    assert seen(scheduler, ended) == [(210, "0"), (220, "1"), (220, "end")]
    scheduler = TestScheduler()
    failed = numbers(scheduler, 210, 211, error=212).pipe(rate_limit(0.1))
    assert seen(scheduler, failed) == [(210, "0"), (220, "1"), (220, "failed")]
    scheduler = TestScheduler()
    assert seen(scheduler, numbers(scheduler, 210, end=215).pipe(rate_limit(0.1))) == [(210, "0"), (215, "end")]


def test_a_full_rate_limit_queue_drops_the_oldest_and_logs_it(
    scheduler: TestScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    source = numbers(scheduler, 210, 211, 212, 213, 214, end=215)
    with caplog.at_level(logging.WARNING):
        found = seen(scheduler, source.pipe(rate_limit(0.1, capacity=2)))
    assert found == [(210, "0"), (220, "3"), (230, "4"), (230, "end")]
    assert [record.getMessage() for record in caplog.records] == [
        "rate_limit queue full, dropping the oldest items: capacity=2",
        "rate_limit ends: dropped=2",
    ]


@pytest.mark.parametrize("operator", [conflate(0.1), sample_latest(0.1), rate_limit(0.1)])
def test_dispose_stops_items_and_timers(operator: Any) -> None:
    scheduler = TestScheduler()
    source: Subject[int] = Subject()
    items: list[int] = []
    subscription = source.pipe(operator).subscribe(items.append, scheduler=scheduler)
    source.on_next(1)
    source.on_next(2)
    invoked: list[Any] = []
    scheduler.invoke_action = invoked.append  # type: ignore[method-assign,assignment]
    subscription.dispose()
    scheduler.advance_to(100)
    assert items == [1]
    assert invoked == []
    assert not source.observers


@pytest.mark.parametrize("operator", [conflate(0.1), sample_latest(0.1), rate_limit(0.1)])
def test_no_timer_runs_without_items(operator: Any) -> None:
    scheduler = TestScheduler()
    source: Subject[int] = Subject()
    source.pipe(operator).subscribe(lambda _: None, scheduler=scheduler)
    source.on_next(1)
    scheduler.start()
    assert scheduler.clock <= 1000  # one period without items, then no timer


@pytest.mark.parametrize("operator", [conflate(0.1), sample_latest(0.1), rate_limit(0.1)])
def test_an_exception_of_a_subscriber_in_a_tick_fails_the_stream(operator: Any) -> None:
    scheduler = TestScheduler()
    source: Subject[int] = Subject()
    items: list[int] = []
    errors: list[Exception] = []

    def take(item: int) -> None:
        items.append(item)
        if item == 2:
            raise ArithmeticError("in the handler")

    source.pipe(operator).subscribe(take, errors.append, scheduler=scheduler)
    source.on_next(1)
    source.on_next(2)
    scheduler.advance_to(10)
    source.on_next(3)
    scheduler.advance_to(100)
    assert items == [1, 2]
    assert [str(error) for error in errors] == ["in the handler"]
    assert not source.observers


@pytest.mark.parametrize("operator", [conflate(0.1), sample_latest(0.1), rate_limit(0.1)])
def test_an_exception_in_a_tick_without_on_error_is_logged(operator: Any, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = TestScheduler()
    source: Subject[int] = Subject()

    def take(item: int) -> None:
        if item == 2:
            raise ArithmeticError("in the handler")

    source.pipe(operator).subscribe(take, scheduler=scheduler)
    source.on_next(1)
    source.on_next(2)
    with caplog.at_level(logging.ERROR):
        scheduler.advance_to(10)
    assert "in the handler" in caplog.text
    assert not source.observers


def test_a_subscriber_may_feed_the_source(scheduler: TestScheduler) -> None:
    source: Subject[int] = Subject()
    items: list[int] = []

    def take(item: int) -> None:
        items.append(item)
        if item < 3:
            source.on_next(item + 1)

    source.pipe(sample_latest(0.1)).subscribe(take, scheduler=scheduler)
    source.on_next(1)
    scheduler.advance_to(100)
    assert items == [1, 2, 3]


def test_the_operators_scheduler_overrides_the_subscribers(scheduler: TestScheduler) -> None:
    source: Subject[int] = Subject()
    items: list[int] = []
    source.pipe(sample_latest(0.1, scheduler=scheduler)).subscribe(items.append, scheduler=TestScheduler())
    source.on_next(1)
    source.on_next(2)
    scheduler.advance_to(10)
    assert items == [1, 2]


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("operator", [conflate, sample_latest, rate_limit])
def test_invalid_rates_raise_at_the_call(operator: Any, number: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        operator(number)


def test_a_capacity_below_one_raises_at_the_call() -> None:
    with pytest.raises(ValueError, match="capacity"):
        rate_limit(1, capacity=0)
