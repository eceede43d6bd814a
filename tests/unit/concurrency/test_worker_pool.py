"""The worker pool: inline execution, and the order of submitted and resubmitted tasks."""

from __future__ import annotations

import threading

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.concurrency import worker_pool as module

NAME = "pool-test"
TIMEOUT = 60.0


def all_of(*_results: object) -> None:
    """Makes one task of several expressions."""


def test_collected_tasks_run_inline_until_they_are_passed_on(monkeypatch):
    monkeypatch.setattr(module, "_INLINE_SECONDS", TIMEOUT)
    pool = WorkerPool(4, NAME)
    ran: list[tuple[str, str]] = []
    passed_on = threading.Event()

    def record(name: str) -> None:
        ran.append((name, threading.current_thread().name))

    here = threading.current_thread().name
    work = pool.collect_inline()
    pool.submit(lambda: all_of(record("one"), pool.submit(lambda: record("submitted by one"))))
    pool.submit(lambda: record("two"))
    assert ran == []
    work.run()
    assert ran == [("one", here), ("two", here), ("submitted by one", here)]
    assert work.completed == 3

    work = pool.collect_inline()
    for _ in range(2):
        pool.submit(lambda: all_of(record("passed on"), passed_on.set()))
    work.pass_on()
    pool.submit(lambda: record("too late"))
    work.run()
    pool.close(TIMEOUT)
    assert passed_on.is_set()
    assert ran[3:] == [("passed on", NAME)] * 2 + [("too late", NAME)]
    assert work.completed == 0


def test_inline_execution_is_bounded():
    """A task that submits itself again would otherwise occupy the thread forever."""
    pool = WorkerPool(1, NAME)
    ran_in_pool = threading.Event()

    def submit_again() -> None:
        if threading.current_thread().name == NAME:
            ran_in_pool.set()
        else:
            pool.submit(submit_again)

    work = pool.collect_inline()
    pool.submit(submit_again)
    work.run()
    assert ran_in_pool.wait(TIMEOUT)
    pool.close(TIMEOUT)


def test_resubmitted_tasks_run_in_the_next_inline_execution(monkeypatch):
    """The poll thread takes over from a pool thread that used up its time slice."""
    monkeypatch.setattr(module, "_INLINE_SECONDS", TIMEOUT)
    monkeypatch.setattr(module, "_INLINE_GAP", TIMEOUT)
    pool = WorkerPool(1, NAME)
    ran: list[str] = []
    started, rest_ran = threading.Event(), threading.Event()

    def rest() -> None:
        ran.append(threading.current_thread().name)
        rest_ran.set()

    def begin() -> None:
        pool.resubmit(rest)
        started.set()

    pool.collect_inline().run()  # inline executions are frequent
    pool.submit(begin)
    assert started.wait(TIMEOUT)
    pool.collect_inline().run()
    assert rest_ran.is_set()
    assert ran == [threading.current_thread().name]
    pool.close(TIMEOUT)


def test_resubmitted_tasks_run_in_the_pool_without_a_next_inline_execution():
    pool = WorkerPool(1, NAME)
    ran: list[str] = []
    ended = threading.Event()

    def rest() -> None:
        ran.append(threading.current_thread().name)
        ended.set()

    pool.collect_inline().run()
    pool.submit(lambda: pool.resubmit(rest))
    assert ended.wait(TIMEOUT)
    assert ran == [NAME]
    pool.close(TIMEOUT)


def test_resubmitted_tasks_run_after_other_tasks():
    pool = WorkerPool(1, NAME)
    order: list[str] = []
    ended = threading.Event()

    def begin() -> None:
        pool.resubmit(lambda: all_of(order.append("rest"), ended.set()))
        pool.submit(lambda: order.append("another"))
        order.append("begin")

    pool.submit(begin)
    assert ended.wait(TIMEOUT)
    assert order == ["begin", "another", "rest"]
    pool.close(TIMEOUT)


def test_a_task_that_fails_does_not_end_inline_execution(caplog, monkeypatch):
    monkeypatch.setattr(module, "_INLINE_SECONDS", TIMEOUT)
    pool = WorkerPool(1, NAME)
    work = pool.collect_inline()
    ran: list[int] = []
    pool.submit(lambda: all_of(1 / 0))
    pool.submit(lambda: ran.append(1))
    work.run()
    assert ran == [1]
    assert "task failed: pool=pool-test" in caplog.text
    pool.close(TIMEOUT)
