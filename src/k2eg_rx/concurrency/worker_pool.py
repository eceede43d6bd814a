"""A pool of daemon threads for subscribers' code, which can run tasks inline on a submitting thread.

Thread safety: any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from k2eg_rx.concurrency.process_exit import await_at_exit
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import InlineWork

_log = get_logger(__name__)

Task = Callable[[], None]

_IDLE_SECONDS = 10.0  # an idle thread ends after this time; the next task starts another
_INLINE_SECONDS = 0.005  # of inline execution at a time: the thread has records to read
_INLINE_GAP = 0.005  # seconds between two inline executions while a flood lasts


class TaskExecutor(Protocol):
    """Runs tasks."""

    def submit(self, task: Task) -> None:
        """Queues a task. After `close` it is dropped."""
        ...

    def resubmit(self, task: Task) -> None:
        """Queues the rest of a task that has used up its turn, behind all others. After `close` it is dropped."""
        ...

    def collect_inline(self) -> InlineWork | None:
        """Collects the tasks that the calling thread submits from now on, instead of queueing them.

        Returns:
            The tasks, which the calling thread has to run; None if the executor does not support it.
        """
        ...

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until tasks have made a predicate true; returns whether they have.

        Args:
            condition: Notified when it may have become true.
            predicate: Called with the condition held.
            timeout: Seconds.
        """
        ...

    def close(self, timeout: float) -> None:
        """Runs the queued tasks, for at most `timeout` seconds. Idempotent."""
        ...


class _Current(threading.local):
    """The pool whose task the current thread runs, and the inline execution that collects its tasks."""

    pool: WorkerPool | None = None
    inline: _InlineExecution | None = None


_current = _Current()


@contextmanager
def blocking_section() -> Generator[Callable[[], bool]]:
    """Lets the pool start another thread while the calling one blocks; yields whether the pool is closed.

    A pool in which all threads wait for one of its own tasks would be deadlocked. On threads of no pool it does
    nothing.
    """
    pool = _current.pool
    if pool is None:
        yield lambda: False
        return
    pool.add_blocked(1)
    try:
        yield pool.is_closed
    finally:
        pool.add_blocked(-1)


class WorkerPool:
    """Runs tasks on at most `limit` daemon threads, not counting those that block or run tasks inline.

    All state belongs to the condition's lock.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._condition = threading.Condition()
        self._tasks: deque[Task] = deque()
        # Rests of tasks come after all others, and rather inline: in a flood the pool's threads would otherwise never
        # be done with what the poll thread has submitted, and it would never run a task inline.
        self._rests: deque[Task] = deque()
        self._inline_until = 0.0  # when no further inline execution is to be expected
        self._idle = 0
        self._blocked = 0
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, task: Task) -> None:
        """Queues a task. After `close` it is dropped."""
        self._queue(task, self._tasks)

    def resubmit(self, task: Task) -> None:
        """Queues the rest of a task, behind all others. After `close` it is dropped."""
        self._queue(task, self._rests)

    def _queue(self, task: Task, tasks: deque[Task]) -> None:
        inline = _current.inline
        with self._condition:
            if self._closed:
                return
            if inline is not None and inline.collects_for(self):
                inline.tasks.append(task)
            else:
                tasks.append(task)
                self._provide_thread()

    def collect_inline(self) -> InlineWork:
        """Collects the tasks that the calling thread submits from now on; see `TaskExecutor.collect_inline`."""
        inline = _InlineExecution(self)
        _current.inline = inline
        self._inline_until = inline.deadline + _INLINE_GAP
        return inline

    def take_inline(self, inline: _InlineExecution) -> Task | None:
        """Returns the next task of an inline execution, if there is one and time for it."""
        with self._condition:
            tasks = inline.tasks or self._rests
            if tasks and time.monotonic() < inline.deadline and not inline.ended and not self._closed:
                return tasks.popleft()
            return None

    def end_inline(self, inline: _InlineExecution) -> None:
        """Queues the remaining tasks of an inline execution for the pool's threads."""
        with self._condition:
            inline.ended = True
            while inline.tasks:
                self._tasks.append(inline.tasks.popleft())
                self._provide_thread()

    def is_closed(self) -> bool:
        """Whether the pool takes no more tasks."""
        return self._closed

    def add_blocked(self, count: int) -> None:
        """Counts threads that enter (1) or leave (-1) a `blocking_section`."""
        with self._condition:
            self._blocked += count
            if self._tasks or self._rests:
                self._provide_thread()

    def _provide_thread(self) -> None:
        """Wakes a thread for the newest task, or starts one if the limit allows it."""
        if self._idle:
            self._condition.notify()
        if self._idle < len(self._tasks) + len(self._rests) and len(self._threads) - self._blocked < self._limit:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # the existing threads get to the task later
                self._threads.discard(thread)
                _log.warning("cannot start another thread: pool=%s", self._name, exc_info=True)

    def _next(self) -> Task | None:
        with self._condition:
            self._idle += 1
            try:
                while self._condition.wait_for(lambda: self._tasks or self._rests or self._closed, _IDLE_SECONDS):
                    if not self._tasks:
                        self._leave_rests()
                    if self._tasks or self._rests:
                        return (self._tasks or self._rests).popleft()
                    if self._closed:
                        break
                self._threads.discard(threading.current_thread())
                return None
            finally:
                self._idle -= 1

    def _leave_rests(self) -> None:
        """Leaves rests of tasks to the next inline execution, while one is to be expected."""
        seconds = self._inline_until - time.monotonic()
        if seconds > 0:
            self._condition.wait_for(lambda: self._tasks or not self._rests or self._closed, seconds)

    def _run(self) -> None:
        _current.pool = self
        while (task := self._next()) is not None:
            self.run(task)

    def run(self, task: Task) -> None:
        """Runs a task on the calling thread; what it raises is logged."""
        try:
            task()
        except BaseException:  # SystemExit too: the thread has more to do
            _log.exception("task failed: pool=%s", self._name)

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until tasks have made a predicate true; see `TaskExecutor.wait_for`."""
        with condition:
            return condition.wait_for(predicate, timeout)

    def close(self, timeout: float, *, at_exit: bool = False) -> None:
        """Runs the queued tasks and ends the threads, in at most `timeout` seconds. Idempotent.

        Args:
            timeout: See above.
            at_exit: Whether the exit of the process waits for threads that need longer, since their tasks end by
                themselves.
        """
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            threads = self._threads - {threading.current_thread()}
        per_thread = timeout / max(1, len(threads))
        for thread in threads:
            thread.join(per_thread)
            if at_exit:
                await_at_exit(thread)


class _InlineExecution:
    """The tasks that a thread outside the pool runs for it; an `InlineWork`. All state belongs to the pool's lock.

    Attributes:
        tasks: The tasks to run.
        deadline: When the thread has to return, by the monotonic clock.
        ended: Whether it collects no more tasks.
        completed: How many tasks it has run.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self.tasks: deque[Task] = deque()
        self.deadline = time.monotonic() + _INLINE_SECONDS
        self.ended = False
        self.completed = 0

    def collects_for(self, pool: WorkerPool) -> bool:
        """Whether it collects that pool's tasks."""
        return pool is self._pool and not self.ended

    def run(self) -> None:
        """Runs tasks until there are none or its time is up; see `InlineWork.run`."""
        _current.pool = self._pool
        try:
            while (task := self._pool.take_inline(self)) is not None:
                self._pool.run(task)
                self.completed += 1
        finally:
            self._pool.end_inline(self)
            _current.pool = _current.inline = None

    def pass_on(self) -> None:
        """Leaves the tasks that have not begun to the pool; see `InlineWork.pass_on`."""
        self._pool.end_inline(self)
