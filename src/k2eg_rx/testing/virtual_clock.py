"""Virtual time: actions run only when a test settles the clock, advances it or waits on it.

Thread safety: actions may be scheduled on any thread. They run one at a time, ordered by time and then by arrival, on
the thread that runs the clock. That thread holds a reentrant lock, so that an action may itself advance or wait.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler
from reactivex.scheduler.scheduleditem import ScheduledItem

from k2eg_rx.arguments import LONGEST_DURATION, at_least_one, instance, non_negative, positive
from k2eg_rx.protocol import nanoseconds_of
from k2eg_rx.testing.stepper import Step
from k2eg_rx.texts import shown

_State = TypeVar("_State")

START_TIME = datetime(2026, 1, 1, tzinfo=UTC)

_MAX_ACTIONS = 20_000  # at one instant: enough for thousands of requests, and some seconds of real time
_MAX_WAIT = 3600.0  # seconds of virtual time: above the timeouts of scripts
_TICK = 0.001  # seconds of real time between the steps of a running clock


class ClockStalledError(Exception):
    """The awaited condition stays false: no action is scheduled, or none before the maximum wait ends."""


class EndlessLoopError(Exception):
    """Actions keep scheduling actions at one instant, such as a script that writes the PV whose update called it."""


class VirtualClock(PeriodicScheduler):
    """A reactivex scheduler in virtual time.

    Example:
        >>> from k2eg_rx.testing import VirtualClock
        >>> clock, alarms = VirtualClock(), []
        >>> _ = clock.schedule_relative(60.0, lambda *_: alarms.append(clock.elapsed))
        >>> clock.advance(59.0); alarms
        []
        >>> clock.advance(1.0); alarms
        [60.0]

    Args:
        start: The initial time.
        max_wait: Maximum duration of one `wait`, in seconds of virtual time.
        max_actions: Maximum number of actions at one instant.
    """

    def __init__(
        self, start: datetime = START_TIME, max_wait: float = _MAX_WAIT, max_actions: int = _MAX_ACTIONS
    ) -> None:
        super().__init__()
        if instance(start, "start", datetime, "a datetime with a time zone").utcoffset() is None:
            raise ValueError(f"start must have a time zone, such as datetime.UTC, got {shown(start)}")
        self._start = self._now = start
        self._max_wait = timedelta(seconds=positive(max_wait, "max_wait"))
        self._max_actions = at_least_one(max_actions, "max_actions")
        self._lock = threading.Lock()
        self._run_lock = threading.RLock()
        self._runner: int | None = None  # the thread that runs the clock; guarded by `_run_lock`
        self._number = itertools.count()  # orders actions that are due at the same time
        self._queue: list[tuple[datetime, int, ScheduledItem]] = []
        self._steps: list[Step] = []

    @property
    def now(self) -> datetime:
        """The current time, UTC."""
        return self._now

    @property
    def elapsed(self) -> float:
        """Seconds since the initial time."""
        return (self._now - self._start).total_seconds()

    @property
    def nanoseconds(self) -> int:
        """The current time in integer nanoseconds since the Unix epoch, as EPICS time."""
        return nanoseconds_of(self._now)

    def time(self) -> float:
        """Returns the current time in Unix seconds."""
        return self._now.timestamp()

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs an action at the current time, after those already due. Disposing of the result cancels it."""
        return self.schedule_absolute(self._now, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action after a delay in seconds or a timedelta."""
        return self.schedule_absolute(self._now + self.to_timedelta(duetime), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action at a time."""
        with self._lock:
            due = max(self.to_datetime(duetime), self._now)
            item = ScheduledItem(self, state, action, due)
            heapq.heappush(self._queue, (due, next(self._number), item))
        return Disposable(item.cancel)

    def add_step(self, step: Step) -> Callable[[], None]:
        """Adds a step to run whenever no action is due; returns a function that removes it."""
        with self._lock:
            self._steps.append(step)

        def remove() -> None:
            with self._lock:
                if step in self._steps:
                    self._steps.remove(step)

        return remove

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Keeps other threads from running the clock."""
        with self._run_lock:
            yield

    def is_running_here(self) -> bool:
        """Whether the caller is an action of this clock."""
        return self._runner == threading.get_ident()

    def settle(self) -> None:
        """Runs all actions that are due; the time does not change.

        Raises:
            EndlessLoopError: The actions exceed `max_actions`.
            Exception: An action failed; the actions after it run next time.
        """
        with self._as_runner():
            for _ in range(self._max_actions):
                if not self._run_next():
                    return
        raise EndlessLoopError(
            f"more than {self._max_actions} actions at {self._now.time()}: does a script write the PV whose update"
            " called it? Give the PV a `delay` and use `advance`, or increase `max_actions`"
        )

    def advance(self, seconds: float) -> None:
        """Advances the time by a number of seconds and runs, in order, the actions due by then.

        Raises:
            ValueError: `seconds` is negative.
            Exception: An action failed.
        """
        seconds = non_negative(seconds, "seconds", LONGEST_DURATION)
        with self._run_lock:
            end = self._now + timedelta(seconds=seconds)
            self.settle()
            while (due := self._next_due()) is not None and due <= end:
                self._set_time(due)
                self.settle()
            self._set_time(end)

    def wait(self, done: Callable[[], bool]) -> None:
        """Runs actions and advances the time from one to the next until `done` returns True.

        Raises:
            ClockStalledError: No action is left, or none within `max_wait`.
        """
        limit = self._now + self._max_wait
        while True:
            with self._run_lock:
                self.settle()
                if done():
                    return
                due = self._next_due()
                if due is None:
                    raise ClockStalledError(
                        "the awaited condition cannot become true: nothing is scheduled; is a post missing?"
                    )
                if due > limit:
                    raise ClockStalledError(
                        f"the awaited condition is still false after {self._max_wait} of virtual time"
                    )
                self._set_time(due)

    @contextmanager
    def running(self, speed: float = 100.0) -> Generator[None]:
        """Advances the time continuously on a thread, for scripts that wait by means the clock does not control.

        Args:
            speed: Maximum virtual seconds per real second. The script's own work takes real time: if the speed is too
                high, its timeouts expire early.

        Raises:
            Exception: An action failed meanwhile; raised at the end.
        """
        stopped = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            try:
                # in fixed steps, not by elapsed real time, so that the clock pauses if the machine does
                while not stopped.wait(_TICK):
                    self.advance(_TICK * speed)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=copy_context().run, args=(run,), name="k2eg-virtual-time", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        if raised:
            raise raised[0]

    @contextmanager
    def _as_runner(self) -> Generator[None]:
        with self._run_lock:
            previous, self._runner = self._runner, threading.get_ident()
            try:
                yield
            finally:
                self._runner = previous

    def _run_next(self) -> bool:
        """Runs the next due action, or else all steps; returns whether there was anything to do."""
        with self._lock:
            due = bool(self._queue) and self._queue[0][0] <= self._now
            item = heapq.heappop(self._queue)[2] if due else None
            steps = tuple(self._steps)
        if item is None:
            return sum(step() for step in steps) > 0
        if not item.is_cancelled():
            item.invoke()
        return True

    def _next_due(self) -> datetime | None:
        with self._lock:
            while self._queue and self._queue[0][2].is_cancelled():
                heapq.heappop(self._queue)
            return self._queue[0][0] if self._queue else None

    def _set_time(self, time: datetime) -> None:
        with self._lock:
            self._now = max(self._now, time)


class VirtualExecutor:
    """Runs subscribers' code as actions of a clock; a `TaskExecutor`.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._closed = False

    def collect_inline(self) -> None:
        """Returns None: all tasks run on the clock's thread anyway."""
        return

    def submit(self, task: Callable[[], None]) -> None:
        """Schedules a task at the current time; ignored after `close`."""

        def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            task()

        if not self._closed:
            self._clock.schedule(run)

    def resubmit(self, task: Callable[[], None]) -> None:
        """Schedules the rest of a task after all submitted ones."""
        self.submit(task)

    def wait_for(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        timeout: float,  # noqa: ARG002 - virtual time does not pass
    ) -> bool:
        """Runs due actions; returns whether the predicate is true then."""
        self._clock.settle()
        with condition:
            return predicate()

    def close(self, timeout: float) -> None:  # noqa: ARG002 - there is no thread to wait for
        """Runs due actions and ignores later tasks. Idempotent."""
        self._closed = True
        self._clock.settle()
