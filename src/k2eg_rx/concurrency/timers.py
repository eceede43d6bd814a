"""A scheduler that runs timed actions on one thread, by the monotonic clock.

Thread safety: all methods may be called on any thread; actions run on the scheduler's own.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_State = TypeVar("_State")

_MAX_CANCELLED = 1000  # most timeouts are cancelled by a reply; at some 100 bytes each, the heap wastes 0.1 MB


def elapsed() -> float:
    """Returns seconds of a clock that also runs while the computer is suspended, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class SchedulerClosedError(RuntimeError):
    """An action was scheduled on a scheduler that is closed."""


class _Timer(abc.DisposableBase):
    """A scheduled action; disposing it cancels the action. Its attributes belong to the scheduler's lock.

    Attributes:
        action: The action; None once it is taken or cancelled, so that its closure is released.
        state: The action's argument.
        result: What the action returned, which is disposed with the timer.
        is_disposed: Whether it was cancelled.
    """

    __slots__ = ("_scheduler", "action", "is_disposed", "result", "state")

    def __init__(self, scheduler: TimerScheduler, action: abc.ScheduledAction[Any], state: Any) -> None:
        self._scheduler = scheduler
        self.action: abc.ScheduledAction[Any] | None = action
        self.state = state
        self.result: abc.DisposableBase | None = None
        self.is_disposed = False

    def dispose(self) -> None:
        """Cancels the action. Idempotent."""
        self._scheduler.cancel(self)


class TimerScheduler(PeriodicScheduler, abc.DisposableBase):
    """A reactivex scheduler with a heap of timers and one daemon thread, which starts with the first action.

    Its time starts as the system's and follows the monotonic clock, so a step of the system's clock neither delays nor
    hastens an action. Actions run in the order of their time, those of the same time in the order of scheduling. An
    action that raises is logged. The thread sleeps until the first action is due; a later one does not wake it, and a
    cancelled one is released at once.

    All state belongs to the condition's lock.

    Args:
        name: The thread's name.
        on_error: Called on the thread after an action has raised.
    """

    def __init__(self, name: str = "k2eg-timers", on_error: Callable[[], None] | None = None) -> None:
        self._name = name
        self._on_error = on_error
        self._epoch = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, _Timer]] = []  # by the monotonic clock
        self._sequence = itertools.count()
        self._cancelled = 0  # timers in the heap that were cancelled
        self._thread: threading.Thread | None = None
        self._draining = False
        self._closed = False

    @property
    def now(self) -> datetime:
        """The scheduler's time, UTC."""
        return self._epoch + timedelta(seconds=time.monotonic())

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs an action as soon as possible.

        Returns:
            Cancels the action when it is disposed; so for the other methods.

        Raises:
            SchedulerClosedError: The scheduler is closed; so for the other methods.
        """
        return self._add(0.0, action, state)  # the past: it is due at once

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action after a delay, in seconds or as a timedelta."""
        return self._add(time.monotonic() + self.to_seconds(duetime), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action at a time of the scheduler's `now`, in Unix seconds or as a datetime with a time zone."""
        return self._add((self.to_datetime(duetime) - self._epoch).total_seconds(), action, state)

    def _add(self, due: float, action: typing.ScheduledAction[Any], state: Any) -> abc.DisposableBase:
        timer = _Timer(self, action, state)
        with self._condition:
            if self._closed:
                raise SchedulerClosedError(f"cannot schedule an action: the scheduler {self._name} is closed")
            if self._thread is None:
                self._start_thread()
            heapq.heappush(self._heap, (max(due, time.monotonic()), next(self._sequence), timer))
            if self._heap[0][2] is timer:
                self._condition.notify()
        return timer

    def call_soon(self, function: Callable[[], object]) -> abc.DisposableBase:
        """Calls a function on the scheduler's thread; not if the scheduler is closed."""
        return self.call_later(0.0, function)

    def call_later(self, seconds: float, function: Callable[[], object]) -> abc.DisposableBase:
        """Calls a function after a delay; not if the scheduler is closed."""

        def action(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            function()

        try:
            return self.schedule_relative(seconds, action)
        except SchedulerClosedError:
            return Disposable()

    def cancel(self, timer: _Timer) -> None:
        """Cancels an action and disposes of what it returned."""
        with self._condition:
            timer.is_disposed = True
            result, timer.result = timer.result, None
            if timer.action is not None:
                timer.action = timer.state = None
                self._cancelled += 1
                if self._cancelled > _MAX_CANCELLED:
                    self._heap = [entry for entry in self._heap if entry[2].action is not None]
                    heapq.heapify(self._heap)
                    self._cancelled = 0
        if result is not None:
            result.dispose()

    def dispose(self) -> None:
        """Drops all actions; the thread ends after the one that it runs. Idempotent."""
        with self._condition:
            self._closed = True
            dropped, self._heap = self._heap, []
            self._condition.notify()
        dropped.clear()  # releases the closures outside the lock

    def close(self, timeout: float) -> None:
        """Drops all actions and waits for the thread, at most `timeout` seconds. Idempotent."""
        self.dispose()
        self._join(timeout)

    def drain(self) -> None:
        """Runs the actions that are due, drops the others, and waits for the thread to end. Idempotent."""
        with self._condition:
            self._draining = True
            self._closed = self._closed or self._thread is None
            self._condition.notify()
        self._join(None)

    def _join(self, timeout: float | None) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        while (due := self._wait_for_due()) is not None:
            self._invoke(*due)
            del due  # the action's closure must not live until the next is due

    def _wait_for_due(self) -> tuple[_Timer, abc.ScheduledAction[Any], Any] | None:
        """Returns the next timer, its action and state when it is due; None once the thread is to end."""
        with self._condition:
            while not self._closed:
                delay = self._heap[0][0] - time.monotonic() if self._heap else None
                if delay is not None and delay <= 0:
                    timer = heapq.heappop(self._heap)[2]
                    action, timer.action = timer.action, None
                    if action is not None:
                        return timer, action, timer.state
                    self._cancelled -= 1
                elif self._draining:
                    self.dispose()
                else:
                    self._condition.wait(delay)
        return None

    def _invoke(self, timer: _Timer, action: abc.ScheduledAction[Any], state: object) -> None:
        try:
            result = action(self, state)
        except BaseException as error:  # SystemExit too: it would end all timers
            if not (self._closed and isinstance(error, SchedulerClosedError)):
                _log.exception("scheduled action failed: thread=%s", self._name)
                if self._on_error is not None:
                    self._on_error()
            return
        if isinstance(result, abc.DisposableBase):
            with self._condition:
                timer.result, is_disposed = result, timer.is_disposed
            if is_disposed:
                result.dispose()
