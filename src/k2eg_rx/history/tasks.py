"""Step-wise background tasks and the threads that run them.

Thread safety: tasks may be started and stopped on any thread. Each runs on a daemon thread of its own
(``k2eg-history``), or on a scheduler in virtual time, where a step must not block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.concurrency import join
from k2eg_rx.errors import ClientClosedError, K2EGError
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)


class Wakeup:
    """Ends a task's pause between two steps early. Any thread; its state is an event."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.on_notify: Callable[[], None] = lambda: None

    @property
    def is_notified(self) -> bool:
        """Whether it was notified since the last step began."""
        return self._event.is_set()

    def notify(self) -> None:
        """Runs the next step at once."""
        self._event.set()
        self.on_notify()

    def clear(self) -> None:
        """Forgets notifications, as a step begins."""
        self._event.clear()

    def wait(self, seconds: float) -> None:
        """Returns after a notification, or after so many seconds."""
        self._event.wait(seconds)


class StepTask(Protocol):
    """A task that runs in steps, all on one thread.

    Attributes:
        wakeup: Notified when a step is due early.
        ended: Set, on any thread, to run no more steps.
    """

    wakeup: Wakeup
    ended: threading.Event

    def step(self) -> float | None:
        """Does a part of the work; returns the seconds until the next step, None at the end. May raise."""
        ...

    def fail(self, error: Exception) -> None:
        """Reports that the task failed or was cancelled. Any thread."""
        ...

    def close(self) -> None:
        """Releases resources, after the last step and on its thread."""
        ...


class TaskRunner:
    """Runs the steps of tasks. State belongs to the lock.

    Args:
        scheduler: Runs the steps in virtual time; None: threads.
    """

    def __init__(self, scheduler: abc.SchedulerBase | None = None) -> None:
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._tasks: dict[StepTask, threading.Thread | None] = {}
        self._closed = False

    @property
    def may_block(self) -> bool:
        """Whether a step may block."""
        return self._scheduler is None

    def now(self) -> datetime:
        """Returns the present time, with a time zone."""
        if self._scheduler is None:
            return datetime.now(UTC)
        now = self._scheduler.now
        return now if now.tzinfo is not None else now.replace(tzinfo=UTC)

    def clock(self) -> float:
        """Returns seconds of a clock, for differences."""
        return time.monotonic() if self._scheduler is None else self.now().timestamp()

    def start(self, task: StepTask) -> abc.DisposableBase:
        """Starts a task; disposing the result ends it, without waiting for that."""
        thread = None
        if self._scheduler is None:
            thread = threading.Thread(target=self._run, args=(task,), name="k2eg-history", daemon=True)
        with self._lock:
            closed = self._closed
            if not closed:
                self._tasks[task] = thread
        if closed:
            task.fail(ClientClosedError("the client is closed"))
        elif thread is not None:
            thread.start()
        elif self._scheduler is not None:
            self._run_on(self._scheduler, task)

        def stop() -> None:
            task.ended.set()
            task.wakeup.notify()

        return Disposable(stop)

    def _run(self, task: StepTask) -> None:
        while (pause := self._step(task)) is not None:
            if pause > 0:
                task.wakeup.wait(pause)

    def _run_on(self, scheduler: abc.SchedulerBase, task: StepTask) -> None:
        next_step = SerialDisposable()

        def step(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            pause = self._step(task)
            if pause is None:
                next_step.dispose()
            else:
                next_step.disposable = scheduler.schedule_relative(0.0 if task.wakeup.is_notified else pause, step)

        def step_soon() -> None:
            next_step.disposable = scheduler.schedule(step)

        task.wakeup.on_notify = step_soon
        step_soon()

    def _step(self, task: StepTask) -> float | None:
        """Runs a step; after the last one, closes the task."""
        pause = None
        task.wakeup.clear()
        try:
            pause = None if task.ended.is_set() else task.step()
        except K2EGError as error:
            task.fail(error)
        except Exception as error:
            _log.exception("reading history failed")
            task.fail(error)
        if pause is None:
            task.ended.set()
            task.close()
            with self._lock:
                self._tasks.pop(task, None)
        return pause

    def stop(self) -> None:
        """Fails the running tasks and ends their threads, without waiting for them. Idempotent."""
        for task, thread in self._close().items():
            if not task.ended.is_set():
                task.fail(ClientClosedError("the client was closed before the history was complete"))
            task.ended.set()
            if thread is None:
                self._step(task)  # virtual time may not go on
            task.wakeup.notify()

    def close(self, timeout: float) -> None:
        """Stops, and waits for the threads, for at most `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        self.stop()
        for thread in self._close().values():
            if thread is not None:
                join(thread, max(0.0, deadline - time.monotonic()))

    def _close(self) -> dict[StepTask, threading.Thread | None]:
        """Starts no more tasks; returns the running ones."""
        with self._lock:
            self._closed = True
            return dict(self._tasks)
