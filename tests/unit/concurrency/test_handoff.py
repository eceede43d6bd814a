"""Hand-off of a loop between threads while inline work is fast, slow or stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from k2eg_rx.concurrency import Handoff
from k2eg_rx.concurrency import handoff as module
from k2eg_rx.transport import InlineWork

NAME = "handoff-test"
TIMEOUT = 60.0


class Loop:
    """A loop that runs one `InlineWork` per turn and records the thread of each turn."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.queued: list[InlineWork] = []
        self.turns: list[threading.Thread] = []
        self.closing = False
        self.handoff = Handoff(NAME, self._run)

    def _run(self) -> None:
        while self.handoff.has_turn():
            with self.condition:
                self.condition.wait_for(lambda: self.queued or self.closing)
                if self.closing:
                    return
                work = self.queued.pop(0)
            self.handoff.run_inline(work)
            with self.condition:
                self.turns.append(threading.current_thread())
                self.condition.notify_all()

    def submit(self, *works: InlineWork) -> None:
        with self.condition:
            self.queued.extend(works)
            self.condition.notify_all()

    def wait(self, turns: int) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: len(self.turns) >= turns, TIMEOUT)

    def close(self) -> None:
        with self.condition:
            self.closing = True
            self.condition.notify_all()
        self.handoff.join(TIMEOUT)


class Job:
    """`InlineWork` of several steps."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.completed = 0
        self.passed_on = threading.Event()

    def run(self) -> None:
        while self.steps and not self.passed_on.is_set():
            self.steps[0]()
            self.completed += 1
            self.steps.pop(0)

    def pass_on(self) -> None:
        self.passed_on.set()


@contextmanager
def no_additional_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name == NAME:  # one that has lost its turn ends after its work
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def loop() -> Iterator[Loop]:
    with no_additional_threads():
        loop = Loop()
        loop.handoff.start()
        yield loop
        loop.close()


def test_fast_work_keeps_the_thread(loop):
    loop.submit(*(Job(lambda: None) for _ in range(1000)))
    loop.wait(1000)
    assert len(set(loop.turns)) == 1


def test_another_thread_takes_over_from_slow_work(loop):
    release = threading.Event()
    stuck = Job(lambda: release.wait(TIMEOUT), lambda: pytest.fail("ran after it was passed on"))
    loop.submit(Job(), stuck, Job(), Job())
    loop.wait(3)
    first, second, third = loop.turns
    assert first is not second
    assert second is third
    assert stuck.passed_on.is_set()
    assert not loop.handoff.may_run_inline()
    release.set()
    loop.wait(4)
    assert loop.turns[3] is first  # finishes its work, then ends
    first.join(TIMEOUT)
    assert not first.is_alive()
    loop.submit(Job())
    loop.wait(5)
    assert loop.turns[4] is second


def test_each_stuck_thread_is_replaced(loop):
    release = threading.Event()
    loop.submit(*(Job(lambda: release.wait(TIMEOUT)) for _ in range(3)), Job())
    loop.wait(1)
    assert len([thread for thread in threading.enumerate() if thread.name == NAME]) >= 4
    release.set()
    loop.wait(4)
    assert len(set(loop.turns)) == 4


def test_long_work_of_short_tasks_keeps_the_thread(loop, monkeypatch):
    """Progress since the last check counts, not the total duration, which grows with the number of subscribers."""
    checks = threading.Semaphore(0)
    stepped = threading.Semaphore(0)
    steps = 50
    ended, wait = loop.handoff._ended, loop.handoff._ended.wait

    def step_between_checks(timeout: float) -> bool:
        if job.steps:
            checks.release()
            stepped.acquire(timeout=TIMEOUT)
        return wait(timeout)

    def step() -> None:
        checks.acquire(timeout=TIMEOUT)
        stepped.release()

    job = Job(*[step] * steps)
    monkeypatch.setattr(ended, "wait", step_between_checks)
    loop.submit(job, Job())
    loop.wait(2)
    monkeypatch.undo()
    assert not job.passed_on.is_set()
    assert len(set(loop.turns)) == 1


def test_an_idle_watcher_ends_and_another_starts_when_needed(loop, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_IDLE_CHECKS", 1)
    loop.submit(Job())
    loop.wait(1)
    watcher = loop.handoff._watcher
    if watcher is not None:
        watcher.join(TIMEOUT)
    assert loop.handoff._watcher is None
    release = threading.Event()
    loop.submit(Job(lambda: release.wait(TIMEOUT)), Job())
    loop.wait(2)
    assert loop.turns[0] is not loop.turns[1]
    release.set()


def test_work_that_joins_the_loop_waits_for_the_thread_that_took_over(loop):
    joined = threading.Event()

    def close() -> None:
        loop.close()
        joined.set()

    loop.submit(Job(close))
    assert joined.wait(TIMEOUT)


def test_a_loop_may_join_itself():
    with no_additional_threads():
        handoff = Handoff(NAME, lambda: handoff.join(TIMEOUT))  # does not wait for its own thread
        handoff.start()
        handoff.join(TIMEOUT)
