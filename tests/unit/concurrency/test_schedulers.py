"""The choice of an operator's scheduler."""

from collections.abc import Callable
from typing import Any

import pytest
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import PRODUCTION, Runtime, scheduler_or, use_runtime

SHARED = PRODUCTION.scheduler


def test_the_scheduler_given_to_the_operator_counts_before_the_subscribers() -> None:
    given, subscribed = TestScheduler(), TestScheduler()
    assert scheduler_or(given, subscribed) is given
    assert scheduler_or(None, subscribed) is subscribed
    assert scheduler_or(None, None) is SHARED


@pytest.mark.parametrize("passed_on", [CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler])
def test_a_scheduler_that_reactivex_passes_on_by_itself_was_not_chosen(passed_on: Callable[[], Any]) -> None:
    assert scheduler_or(None, passed_on()) is SHARED
    chosen = passed_on()
    assert scheduler_or(chosen, None) is chosen


def test_the_runtimes_scheduler_comes_last() -> None:
    virtual, subscribed = TestScheduler(), TestScheduler()
    with use_runtime(Runtime(scheduler=virtual)):
        assert scheduler_or(None, None) is virtual
        assert scheduler_or(None, subscribed) is subscribed
