"""The threads that run subscribers' code.

In: tasks, from any thread. Out: their execution, each on one of a few daemon threads that are started when needed.
A task that has to wait for somebody else says so (`held_back`), and another thread takes its place meanwhile.

A thread that has just made tasks may offer itself for them (`WorkerPool.gather`): what they are about is in its
processor's cache then, and nobody has to be woken.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from k2eg_rx.transport import Work

_log = logging.getLogger(__name__)

Task = Callable[[], None]

_IDLE_SECONDS = 10.0  # a thread that found nothing to do for so long ends; the next task starts another


_STINT = 0.005  # seconds that a thread offers itself for; it has something else to go back to
_NEXT_STINT = 0.005  # seconds after one in which there will be another one, if a flood lasts


class TaskExecutor(Protocol):
    """What runs tasks."""

    def gather(self) -> Work | None:
        """Has the tasks that the caller's thread submits from now on left to it; None if that is not offered."""
        ...

    def submit(self, task: Task) -> None:
        """Queues a task. After `close` it is dropped."""
        ...

    def resubmit(self, task: Task) -> None:
        """Queues what is left of a task that has had its turn. After `close` it is dropped."""
        ...

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until tasks have made something true, for at most `timeout` seconds; returns whether they have.

        Args:
            condition: Notified when it may have become true.
            predicate: Asked with the condition held.
            timeout: Seconds.
        """
        ...

    def close(self, timeout: float) -> None:
        """Lets the queued tasks run, for at most `timeout` seconds. Idempotent."""
        ...


class _Here(threading.local):
    """The pool that the present thread belongs to, if any."""

    workers: WorkerPool | None = None
    stint: _Stint | None = None


_here = _Here()


@contextmanager
def held_back() -> Generator[Callable[[], bool]]:
    """Says that the calling thread waits for somebody, perhaps for long; gives what tells whether to give that up.

    Were all threads of a pool to wait for one who waits for a task of that pool, nobody would go on. So another thread
    may take the place of one that waits here. On other threads than those of a pool, nothing happens.
    """
    workers = _here.workers
    if workers is None:
        yield lambda: False
        return
    workers.lend(1)
    try:
        yield workers.is_closed
    finally:
        workers.lend(-1)


class WorkerPool:
    """Runs tasks on at most `limit` threads, not counting those that are held back or do a stint.

    All state belongs to the condition's lock. Threads are daemons, so that a handler that hangs cannot keep a script
    from ending.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._condition = threading.Condition()
        self._tasks: deque[Task] = deque()
        # What is left of tasks: after all others, and rather for a thread that offers itself: else, in a flood, workers
        # would never catch up with the thread that reads, and that one would never hand over itself.
        self._left: deque[Task] = deque()
        self._stints_until = 0.0
        self._idle = 0
        self._held = 0  # those that wait for somebody else
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, task: Task) -> None:
        """Queues a task. After `close` it is dropped."""
        self._queue(task, self._tasks)

    def resubmit(self, task: Task) -> None:
        """Queues what is left of a task, after all others. After `close` it is dropped."""
        self._queue(task, self._left)

    def _queue(self, task: Task, tasks: deque[Task]) -> None:
        stint = _here.stint
        with self._condition:
            if self._closed:
                return
            if stint is not None and stint.takes_for(self):
                stint.tasks.append(task)
            else:
                tasks.append(task)
                self._see_to_tasks()

    def gather(self) -> Work:
        """Has the tasks that the caller's thread submits from now on left to it; it has to run them."""
        stint = _Stint(self)
        _here.stint = stint
        self._stints_until = stint.end + _NEXT_STINT
        return stint

    def take(self, stint: _Stint) -> Task | None:
        """Returns the next task of a stint, if there is one and time for it."""
        with self._condition:
            tasks = stint.tasks or self._left
            if tasks and time.monotonic() < stint.end and not stint.is_over and not self._closed:
                return tasks.popleft()
            return None

    def end(self, stint: _Stint) -> None:
        """Has the rest of a stint's tasks run by the pool's own threads, and all that come."""
        with self._condition:
            stint.is_over = True
            while stint.tasks:
                self._tasks.append(stint.tasks.popleft())
                self._see_to_tasks()

    def is_closed(self) -> bool:
        """Whether it takes no more tasks, and its threads are to end."""
        return self._closed

    def lend(self, count: int) -> None:
        """Told that so many threads more, or fewer, are held back. See `held_back`."""
        with self._condition:
            self._held += count
            if self._tasks or self._left:
                self._see_to_tasks()

    def _see_to_tasks(self) -> None:
        """Wakes a thread for the newest task, or starts one if there may be more."""
        if self._idle:
            self._condition.notify()
        if self._idle < len(self._tasks) + len(self._left) and len(self._threads) - self._held < self._limit:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads now; those that there are get round to it
                self._threads.discard(thread)
                _log.warning("cannot start another thread for %s", self._name, exc_info=True)

    def _next(self) -> Task | None:
        with self._condition:
            self._idle += 1
            try:
                while self._condition.wait_for(lambda: self._tasks or self._left or self._closed, _IDLE_SECONDS):
                    if not self._tasks:
                        self._stand_back()
                    if self._tasks or self._left:
                        return (self._tasks or self._left).popleft()
                    if self._closed:
                        break
                self._threads.discard(threading.current_thread())
                return None
            finally:
                self._idle -= 1

    def _stand_back(self) -> None:
        """Lets a thread that offers itself have what is left of tasks, while there are stints."""
        stints = self._stints_until - time.monotonic()
        if stints > 0:
            self._condition.wait_for(lambda: self._tasks or not self._left or self._closed, stints)

    def _run(self) -> None:
        _here.workers = self
        while (task := self._next()) is not None:
            self.run(task)

    def run(self, task: Task) -> None:
        """Runs a task on the caller's thread."""
        try:
            task()
        except BaseException:  # SystemExit, too: the thread has more to do
            _log.exception("a task of %s failed", self._name)

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until tasks have made something true; see `TaskExecutor.wait_for`."""
        with condition:
            return condition.wait_for(predicate, timeout)

    def close(self, timeout: float) -> None:
        """Lets the queued tasks run and the threads end, for at most `timeout` seconds. Idempotent."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            threads = set(self._threads)
        threads.discard(threading.current_thread())
        per_thread = timeout / max(1, len(threads))
        for thread in threads:
            thread.join(per_thread)


class _Stint:
    """The tasks that a thread which is not of the pool does for it; a `Work`. All state belongs to the pool's lock.

    Attributes:
        tasks: What it has to do.
        end: When it has to go back to what it came from, by the monotonic clock.
        is_over: Whether it takes no more.
        done: How many tasks it has done.
    """

    def __init__(self, workers: WorkerPool) -> None:
        self._workers = workers
        self.tasks: deque[Task] = deque()
        self.end = time.monotonic() + _STINT
        self.is_over = False
        self.done = 0

    def takes_for(self, workers: WorkerPool) -> bool:
        """Whether a task of that pool is left to it."""
        return workers is self._workers and not self.is_over

    def run(self) -> None:
        """Does it; see `Work.run`."""
        _here.workers = self._workers
        try:
            while (task := self._workers.take(self)) is not None:
                self._workers.run(task)
                self.done += 1
        finally:
            self._workers.end(self)
            _here.workers = _here.stint = None

    def pass_on(self) -> None:
        """Leaves the rest to the pool; see `Work.pass_on`."""
        self._workers.end(self)
