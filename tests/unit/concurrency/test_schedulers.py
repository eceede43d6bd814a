"""The choice of an operator's scheduler."""

from collections.abc import Callable
from typing import Any

import pytest
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import PRODUCTION, Runtime, scheduler_or, use_runtime

SHARED = PRODUCTION.scheduler


def test_the_operators_scheduler_has_precedence_over_the_subscribers() -> None:
    given, subscribed = TestScheduler(), TestScheduler()
    assert scheduler_or(given, subscribed) is given
    assert scheduler_or(None, subscribed) is subscribed
    assert scheduler_or(None, None) is SHARED


@pytest.mark.parametrize("passed_on", [CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler])
def test_default_schedulers_of_reactivex_are_ignored(passed_on: Callable[[], Any]) -> None:
    assert scheduler_or(None, passed_on()) is SHARED
    chosen = passed_on()
    assert scheduler_or(chosen, None) is chosen


def test_the_runtimes_scheduler_is_the_default() -> None:
    virtual, subscribed = TestScheduler(), TestScheduler()
    with use_runtime(Runtime(scheduler=virtual)):
        assert scheduler_or(None, None) is virtual
        assert scheduler_or(None, subscribed) is subscribed
