"""Errors of subscribers behind operators of reactivex that have timers."""

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import current_runtime
from k2eg_rx.operators import guarded, shared_scheduler
from k2eg_rx.testing import ScriptedGateway


def inner_of_groups(source: Observable[int]) -> Observable[int]:
    return source.pipe(ops.group_by(lambda _: 1), ops.flat_map(lambda group: group), ops.delay(0.1))


@pytest.mark.parametrize("timed", [ops.sample(0.5), ops.debounce(0.5), ops.delay(0.5), inner_of_groups])
def test_what_a_subscriber_raises_reaches_its_on_error_once(timed: Callable[[Any], Any]) -> None:
    clock = TestScheduler()
    source: Subject[int] = Subject()
    calls: list[int] = []
    errors: list[Exception] = []

    def fail(item: int) -> None:
        calls.append(item)
        raise KeyError(item)

    source.pipe(timed, guarded()).subscribe(fail, errors.append, scheduler=clock)
    for number in range(3):
        source.on_next(number)
        clock.advance_by(5.0)
    assert calls == [0]
    assert [repr(error) for error in errors] == ["KeyError(0)"]
    assert source.observers == []  # the source is left, so that nothing goes on behind a dead subscriber


def test_without_on_error_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = TestScheduler()

    def fail(_: int) -> None:
        raise KeyError("bug")

    rx.interval(0.1, scheduler=clock).pipe(guarded()).subscribe(fail)
    clock.advance_by(10.0)
    assert len(caplog.records) == 1
    assert "subscriber raised, its subscription ends" in caplog.text


def test_items_errors_and_completion_pass() -> None:
    items: list[int] = []
    errors: list[Exception] = []
    ends: list[bool] = []
    rx.of(1, 2).pipe(guarded()).subscribe(items.append, errors.append, lambda: ends.append(True))
    error = ValueError("no good")
    rx.throw(error).pipe(guarded()).subscribe(items.append, errors.append, lambda: ends.append(True))
    assert (items, errors, ends) == ([1, 2], [error], [True])


def test_the_shared_scheduler_is_that_of_the_runtime() -> None:
    assert shared_scheduler() is current_runtime().scheduler
    with ScriptedGateway() as gateway, gateway.client():
        assert shared_scheduler() is current_runtime().scheduler
