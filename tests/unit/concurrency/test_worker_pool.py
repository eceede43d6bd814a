"""The worker pool: inline execution, and the order of tasks and rests."""

from __future__ import annotations

import threading

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.concurrency import worker_pool as module

NAME = "pool-test"
TIMEOUT = 60.0


def test_tasks_of_a_collecting_thread_run_on_it_until_they_are_passed_on():
    pool = WorkerPool(4, NAME)
    ran: list[tuple[str, str]] = []
    others = threading.Event()

    def note(name: str) -> None:
        ran.append((name, threading.current_thread().name))

    here = threading.current_thread().name
    work = pool.collect_inline()
    pool.submit(lambda: (note("one"), pool.submit(lambda: note("made by one"))))
    pool.submit(lambda: note("two"))
    assert ran == []
    work.run()
    assert ran == [("one", here), ("two", here), ("made by one", here)]
    assert work.completed == 3

    work = pool.collect_inline()
    for _ in range(2):
        pool.submit(lambda: (note("passed on"), others.set()))
    work.pass_on()
    pool.submit(lambda: note("too late"))
    work.run()
    pool.close(TIMEOUT)
    assert others.is_set()
    assert ran[3:] == [("passed on", NAME)] * 2 + [("too late", NAME)]
    assert work.completed == 0


def test_inline_execution_ends():
    """A task that submits itself again would otherwise keep the thread for ever."""
    pool = WorkerPool(1, NAME)
    went_on_elsewhere = threading.Event()

    def again() -> None:
        if threading.current_thread().name == NAME:
            went_on_elsewhere.set()
        else:
            pool.submit(again)

    work = pool.collect_inline()
    pool.submit(again)
    work.run()
    assert went_on_elsewhere.wait(TIMEOUT)
    pool.close(TIMEOUT)


def test_rests_are_left_to_the_next_inline_execution(monkeypatch):
    """So that the poll thread takes over from a pool thread that has used up its turn."""
    monkeypatch.setattr(module, "_INLINE_GAP", TIMEOUT)
    pool = WorkerPool(1, NAME)
    ran: list[str] = []
    has_run, rested = threading.Event(), threading.Event()

    def rest() -> None:
        ran.append(threading.current_thread().name)
        rested.set()

    def begin() -> None:
        pool.resubmit(rest)
        has_run.set()

    pool.collect_inline().run()  # there is a flood
    pool.submit(begin)
    assert has_run.wait(TIMEOUT)
    pool.collect_inline().run()
    assert rested.is_set()
    assert ran == [threading.current_thread().name]
    pool.close(TIMEOUT)


def test_a_rest_runs_in_the_pool_if_no_inline_execution_comes():
    pool = WorkerPool(1, NAME)
    done: list[str] = []
    ended = threading.Event()

    def rest() -> None:
        done.append(threading.current_thread().name)
        ended.set()

    pool.collect_inline().run()
    pool.submit(lambda: pool.resubmit(rest))
    assert ended.wait(TIMEOUT)
    assert done == [NAME]
    pool.close(TIMEOUT)


def test_a_rest_runs_after_the_other_tasks():
    pool = WorkerPool(1, NAME)
    order: list[str] = []
    ended = threading.Event()

    def begin() -> None:
        pool.resubmit(lambda: (order.append("rest"), ended.set()))
        pool.submit(lambda: order.append("another"))
        order.append("begin")

    pool.submit(begin)
    assert ended.wait(TIMEOUT)
    assert order == ["begin", "another", "rest"]
    pool.close(TIMEOUT)


def test_a_task_that_fails_does_not_end_inline_execution(caplog):
    pool = WorkerPool(1, NAME)
    work = pool.collect_inline()
    ran: list[int] = []
    pool.submit(lambda: 1 / 0)
    pool.submit(lambda: ran.append(1))
    work.run()
    assert ran == [1]
    assert "task failed: pool=pool-test" in caplog.text
    pool.close(TIMEOUT)
