"""The operators' scheduler, with timers in virtual time and a pool that the test runs."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import timers as timers_module
from k2eg_rx.concurrency.shared_scheduler import SHARED, SharedScheduler


class Pool:
    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []
        self.exhausted = False

    def submit(self, task: Callable[[], None]) -> None:
        if self.exhausted:
            raise RuntimeError("can't start new thread")
        self.tasks.append(task)

    def run(self) -> None:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task()


@pytest.fixture
def timers() -> TestScheduler:
    return TestScheduler()


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def scheduler(timers: TestScheduler, pool: Pool) -> SharedScheduler:
    return SharedScheduler(timers, pool.submit)


def test_due_actions_run_on_the_pool_not_on_the_timer_thread(
    scheduler: SharedScheduler, timers: TestScheduler, pool: Pool
) -> None:
    done: list[Any] = []
    scheduler.schedule_relative(2.0, lambda given, state: done.append((given, state)), "state")
    timers.advance_to(1.9)
    assert pool.tasks == []
    timers.advance_to(2.0)
    assert done == []
    pool.run()
    assert done == [(scheduler, "state")]


def test_absolute_times_refer_to_the_schedulers_clock(
    scheduler: SharedScheduler, timers: TestScheduler, pool: Pool
) -> None:
    timers.advance_to(5.0)
    scheduler.schedule_absolute(scheduler.now + timedelta(seconds=1), lambda *_: None)
    timers.advance_to(5.9)
    assert pool.tasks == []
    timers.advance_to(6.0)
    assert len(pool.tasks) == 1


def test_a_cancelled_action_does_not_run_even_if_it_is_already_due(
    scheduler: SharedScheduler, timers: TestScheduler, pool: Pool
) -> None:
    done: list[str] = []
    early = scheduler.schedule_relative(1.0, lambda *_: done.append("early"))
    late = scheduler.schedule_relative(1.0, lambda *_: done.append("late"))
    at_once = scheduler.schedule(lambda *_: done.append("at once"))
    early.dispose()
    timers.advance_to(2.0)
    assert len(pool.tasks) == 2
    late.dispose()
    at_once.dispose()
    pool.run()
    assert done == []


def test_an_exhausted_pool_does_not_stop_the_timers(
    scheduler: SharedScheduler, timers: TestScheduler, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.schedule_relative(1.0, lambda *_: None)
    pool.exhausted = True
    with caplog.at_level(logging.ERROR):
        timers.advance_to(1.0)
    assert "timed action dropped" in caplog.text


def test_the_shared_scheduler_is_steady_when_the_system_clock_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    before, passed = SHARED.now, time.monotonic()
    assert abs(before - datetime.now(UTC)) < timedelta(days=1)  # the time of day, but for clock corrections since then
    monkeypatch.setattr(timers_module, "time", SimpleNamespace(monotonic=lambda: passed + 3600.0))
    assert timedelta(seconds=3599) < SHARED.now - before < timedelta(seconds=3601)
