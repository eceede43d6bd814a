"""Who reads while a subscriber is called on the thread that has read: that thread, or the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from k2eg_rx.concurrency import worker_pool as workers_module
from k2eg_rx.concurrency.worker_pool import WorkerPool
from k2eg_rx.kafka.consumer import handoff as relay
from k2eg_rx.kafka.consumer.handoff import Handoff
from k2eg_rx.transport.interfaces import Work

PATIENCE = 60.0


class Loop:
    """Does the work it is given, one piece a turn, and takes down who was at it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.works: list[Work] = []
        self.turns: list[threading.Thread] = []
        self.closing = False
        self.relay = Handoff("relay-test", self._run)

    def _run(self) -> None:
        while self.relay.has_turn():
            with self.changed:
                self.changed.wait_for(lambda: self.works or self.closing)
                if self.closing:
                    return
                work = self.works.pop(0)
            self.relay.leave_for(work)
            with self.changed:
                self.turns.append(threading.current_thread())
                self.changed.notify_all()

    def give(self, *works: Work) -> None:
        with self.changed:
            self.works.extend(works)
            self.changed.notify_all()

    def wait(self, turns: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.turns) >= turns, PATIENCE)

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.relay.join(PATIENCE)


class Job:
    """Work of some steps."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.done = 0
        self.passed_on = threading.Event()

    def run(self) -> None:
        while self.steps and not self.passed_on.is_set():
            self.steps[0]()
            self.done += 1
            self.steps.pop(0)

    def pass_on(self) -> None:
        self.passed_on.set()


@contextmanager
def _no_more_threads_than_before() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {thread for thread in threading.enumerate() if thread.name == "relay-test"} <= before


@pytest.fixture
def loop() -> Iterator[Loop]:
    with _no_more_threads_than_before():
        loop = Loop()
        loop.relay.start()
        yield loop
        loop.close()


def test_quick_work_leaves_the_turn_where_it_is(loop):
    loop.give(*(Job(lambda: None) for _ in range(1000)))
    loop.wait(1000)
    assert len(set(loop.turns)) == 1


def test_while_work_takes_long_another_thread_goes_on(loop):
    release = threading.Event()
    stuck = Job(lambda: release.wait(PATIENCE), lambda: pytest.fail("this was passed on"))
    loop.give(Job(), stuck, Job(), Job())
    loop.wait(3)
    first, second, third = loop.turns
    assert first is not second
    assert second is third
    assert stuck.passed_on.is_set()
    assert not loop.relay.may_leave()
    release.set()
    loop.wait(4)
    assert loop.turns[3] is first  # what it was in the middle of; then it ends
    first.join(PATIENCE)
    assert not first.is_alive()
    loop.give(Job())
    loop.wait(5)
    assert loop.turns[4] is second


def test_one_stuck_after_the_other(loop):
    release = threading.Event()
    loop.give(*(Job(lambda: release.wait(PATIENCE)) for _ in range(3)), Job())
    loop.wait(1)
    assert len([thread for thread in threading.enumerate() if thread.name == "relay-test"]) >= 4
    release.set()
    loop.wait(4)
    assert len(set(loop.turns)) == 4


def test_work_that_moves_on_keeps_its_thread(loop, monkeypatch):
    """However long it takes together: it may be many subscribers."""
    looks = threading.Semaphore(0)
    stepped = threading.Semaphore(0)
    steps = 50
    over, look = loop.relay._over, loop.relay._over.wait

    def step_between_looks(timeout: float) -> bool:
        if job.steps:
            looks.release()
            stepped.acquire(timeout=PATIENCE)
        return look(timeout)

    def step() -> None:
        looks.acquire(timeout=PATIENCE)
        stepped.release()

    job = Job(*[step] * steps)
    monkeypatch.setattr(over, "wait", step_between_looks)
    loop.give(job, Job())
    loop.wait(2)
    monkeypatch.undo()
    assert not job.passed_on.is_set()
    assert len(set(loop.turns)) == 1


def test_who_has_nothing_to_look_at_ends_and_is_there_again_when_needed(loop, monkeypatch):
    monkeypatch.setattr(relay, "_IDLE", 0.01)
    monkeypatch.setattr(relay, "_LOOKS", 1)
    loop.give(Job())
    loop.wait(1)
    watcher = loop.relay._watcher
    if watcher is not None:
        watcher.join(PATIENCE)
    assert loop.relay._watcher is None
    release = threading.Event()
    loop.give(Job(lambda: release.wait(PATIENCE)), Job())
    loop.wait(2)
    assert loop.turns[0] is not loop.turns[1]
    release.set()


def test_who_ends_it_from_within_work_waits_for_who_has_taken_over(loop):
    joined = threading.Event()

    def close() -> None:
        loop.close()
        joined.set()

    loop.give(Job(close))
    assert joined.wait(PATIENCE)


def test_a_loop_that_ends_without_having_left_is_over():
    with _no_more_threads_than_before():
        short = Handoff("relay-test", lambda: short.join(PATIENCE))  # nobody waits for itself
        short.start()
        short.join(PATIENCE)


def test_what_a_thread_submits_is_left_to_it_until_it_is_passed_on():
    workers = WorkerPool(4, "stint-test")
    ran: list[tuple[str, str]] = []
    others = threading.Event()

    def note(name: str) -> None:
        ran.append((name, threading.current_thread().name))

    here = threading.current_thread().name
    work = workers.gather()
    workers.submit(lambda: (note("one"), workers.submit(lambda: note("made by one"))))
    workers.submit(lambda: note("two"))
    assert ran == []
    work.run()
    assert ran == [("one", here), ("two", here), ("made by one", here)]
    assert work.done == 3

    work = workers.gather()
    for _ in range(2):
        workers.submit(lambda: (note("passed on"), others.set()))
    work.pass_on()
    workers.submit(lambda: note("too late"))
    work.run()
    workers.close(PATIENCE)
    assert others.is_set()
    assert ran[3:] == [("passed on", "stint-test")] * 2 + [("too late", "stint-test")]
    assert work.done == 0


def test_a_stint_has_an_end():
    """The thread has other things to do; a task that makes itself anew would keep it for ever."""
    workers = WorkerPool(1, "stint-test")
    went_on_elsewhere = threading.Event()

    def again() -> None:
        if threading.current_thread().name == "stint-test":
            went_on_elsewhere.set()
        else:
            workers.submit(again)

    work = workers.gather()
    workers.submit(again)
    work.run()
    assert went_on_elsewhere.wait(PATIENCE)
    workers.close(PATIENCE)


def test_what_is_left_of_a_task_is_rather_for_a_stint_than_for_a_worker(monkeypatch):
    """So a thread that reads comes to hand over itself, once a worker that did so has had its turn."""
    monkeypatch.setattr(workers_module, "_NEXT_STINT", PATIENCE)
    workers = WorkerPool(1, "stint-test")
    ran: list[str] = []
    has_run, rested = threading.Event(), threading.Event()

    def rest() -> None:
        ran.append(threading.current_thread().name)
        rested.set()

    def begin() -> None:
        workers.resubmit(rest)
        has_run.set()

    workers.gather().run()  # there is a flood
    workers.submit(begin)
    assert has_run.wait(PATIENCE)
    workers.gather().run()
    assert rested.is_set()
    assert ran == [threading.current_thread().name]
    workers.close(PATIENCE)


def test_what_is_left_of_a_task_is_for_a_worker_if_no_stint_comes():
    workers = WorkerPool(1, "stint-test")
    done: list[str] = []
    ended = threading.Event()

    def rest() -> None:
        done.append(threading.current_thread().name)
        ended.set()

    workers.gather().run()
    workers.submit(lambda: workers.resubmit(rest))
    assert ended.wait(PATIENCE)
    assert done == ["stint-test"]
    workers.close(PATIENCE)


def test_what_is_left_of_a_task_comes_after_the_others():
    workers = WorkerPool(1, "stint-test")
    order: list[str] = []
    ended = threading.Event()

    def begin() -> None:
        workers.resubmit(lambda: (order.append("rest"), ended.set()))
        workers.submit(lambda: order.append("another"))
        order.append("begin")

    workers.submit(begin)
    assert ended.wait(PATIENCE)
    assert order == ["begin", "another", "rest"]
    workers.close(PATIENCE)


def test_a_task_that_fails_does_not_end_a_stint(caplog):
    workers = WorkerPool(1, "stint-test")
    work = workers.gather()
    ran: list[int] = []
    workers.submit(lambda: 1 / 0)
    workers.submit(lambda: ran.append(1))
    work.run()
    assert ran == [1]
    assert "a task of stint-test failed" in caplog.text
    workers.close(PATIENCE)
