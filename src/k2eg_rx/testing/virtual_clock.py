"""Virtual time: nothing happens by itself, and a minute takes as long as what is to be done in it.

In: actions, with the time when they are due, and parts that take steps; from any thread. Out: their execution, one at a
time, in the order of time and then of arrival, on the thread of whoever drives: that which settles, advances or waits.

The queue and the time belong to the lock. Driving has a lock of its own, which a thread may take again within: code
that is run here may wait for what is done here.
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

from k2eg_rx.testing.stepper import Step

_State = TypeVar("_State")

START_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Actions at one instant after which an end is not to be expected: some seconds of work, and what thousands of requests
# need; records go by the hundred.
_MOST_AT_ONCE = 20_000
_PATIENCE = 3600.0  # seconds of virtual time for one wait: above every timeout that a script would have
_TICK = 0.001  # seconds of real time between two looks of a clock that runs


class Stuck(Exception):
    """What is waited for does not come: nothing is due that could bring it, or not for so long that nobody waits."""


class Unsettled(Exception):
    """There is always more to do at one instant, such as for a script that writes the PV it is called for."""


class VirtualClock(PeriodicScheduler):
    """A reactivex scheduler in virtual time.

    Example:
        >>> from k2eg_rx.testing import VirtualClock
        >>> clock, rung = VirtualClock(), []
        >>> _ = clock.schedule_relative(60.0, lambda *_: rung.append(clock.elapsed))
        >>> clock.advance(59.0); rung
        []
        >>> clock.advance(1.0); rung
        [60.0]

    Args:
        start: The time at its begin.
        patience: Seconds of virtual time that one `wait` may take.
        most_at_once: How many actions there may be at one instant.
    """

    def __init__(
        self, start: datetime = START_TIME, patience: float = _PATIENCE, most_at_once: int = _MOST_AT_ONCE
    ) -> None:
        super().__init__()
        self._start = self._now = start
        self._patience = timedelta(seconds=patience)
        self._most_at_once = most_at_once
        self._lock = threading.Lock()
        self._driving = threading.RLock()
        self._driver: int | None = None  # the thread that drives; belongs to `_driving`
        self._number = itertools.count()  # keeps the order of those that are due at the same time
        self._queue: list[tuple[datetime, int, ScheduledItem]] = []
        self._steps: list[Step] = []

    @property
    def now(self) -> datetime:
        """The time, UTC."""
        return self._now

    @property
    def elapsed(self) -> float:
        """Seconds since the begin."""
        return (self._now - self._start).total_seconds()

    @property
    def nanoseconds(self) -> int:
        """The time as EPICS tells it, in integer nanoseconds since the Unix epoch."""
        return (self._now - _EPOCH) // timedelta(microseconds=1) * 1000

    def time(self) -> float:
        """Returns the time in Unix seconds."""
        return self._now.timestamp()

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Has an action done at this time, behind what is due already. Disposing what is returned cancels it."""
        return self.schedule_absolute(self._now, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Has an action done in so many seconds, or after a timedelta."""
        return self.schedule_absolute(self._now + self.to_timedelta(duetime), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Has an action done at a time."""
        with self._lock:
            due = max(self.to_datetime(duetime), self._now)
            item = ScheduledItem(self, state, action, due)
            heapq.heappush(self._queue, (due, next(self._number), item))
        return Disposable(item.cancel)

    def drive(self, step: Step) -> Callable[[], None]:
        """Has a part take steps whenever the clock is driven; returns what ends that."""
        with self._lock:
            self._steps.append(step)

        def release() -> None:
            with self._lock:
                if step in self._steps:
                    self._steps.remove(step)

        return release

    @contextmanager
    def alone(self) -> Generator[None]:
        """Has nobody else drive meanwhile."""
        with self._driving:
            yield

    def is_driven_here(self) -> bool:
        """Whether the caller is what the clock is doing."""
        return self._driver == threading.get_ident()

    def settle(self) -> None:
        """Does all that is to be done at this time; the time stays as it is.

        Raises:
            Unsettled: It never ends.
            Exception: What an action raised; what is behind it is done next time.
        """
        with self._as_driver():
            for _ in range(self._most_at_once):
                if not self._act():
                    return
        raise Unsettled(
            f"{self._most_at_once} things were done at {self._now.time()} and there is more: does something write the "
            "PV that it is called for? Give the PV a `delay`, and use `advance`; or allow more by `most_at_once`"
        )

    def advance(self, seconds: float) -> None:
        """Lets so many seconds pass, and does in their order all things that are due until then.

        Raises:
            ValueError: Time does not run backwards.
            Exception: What an action raised.
        """
        if seconds < 0:
            raise ValueError(f"time cannot be advanced by {seconds} s")
        with self._driving:
            end = self._now + timedelta(seconds=seconds)
            self.settle()
            while (due := self._next_due()) is not None and due <= end:
                self._move(due)
                self.settle()
            self._move(end)

    def wait(self, done: Callable[[], bool]) -> None:
        """Does what is to be done, and advances to what is due next, until `done`.

        Raises:
            Stuck: It is not done although nothing more is due, or nothing within the clock's patience.
        """
        limit = self._now + self._patience
        while True:
            with self._driving:
                self.settle()
                if done():
                    return
                due = self._next_due()
                if due is None:
                    raise Stuck("what is waited for cannot come: nothing more is due; is something to be posted first?")
                if due > limit:
                    raise Stuck(f"what is waited for did not come within {self._patience} of virtual time")
                self._move(due)

    @contextmanager
    def running(self, speed: float = 100.0) -> Generator[None]:
        """Has the time run by itself, on a thread, for a script that waits in ways that the clock does not know of.

        Args:
            speed: Seconds of virtual time for one of real time, at most. What the script does by itself takes real
                time: at too high a speed, its timeouts come before it has got far.

        Raises:
            Exception: What an action raised meanwhile, at the end.
        """
        over = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            try:
                # by ticks, not by the real time between them: on a machine that stands still, this one does as well
                while not over.wait(_TICK):
                    self.advance(_TICK * speed)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=copy_context().run, args=(run,), name="k2eg-virtual-time", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if raised:
            raise raised[0]

    @contextmanager
    def _as_driver(self) -> Generator[None]:
        with self._driving:
            before, self._driver = self._driver, threading.get_ident()
            try:
                yield
            finally:
                self._driver = before

    def _act(self) -> bool:
        """Does the next action that is due, or else has each part take a step; returns whether anything was done."""
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

    def _move(self, to: datetime) -> None:
        with self._lock:
            self._now = max(self._now, to)


class VirtualExecutor:
    """Runs subscribers' code on a clock, one task at a time; a `TaskExecutor`.

    Args:
        clock: When, and on whose thread.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._closed = False

    def gather(self) -> None:
        """Nobody else's thread is needed."""
        return

    def submit(self, task: Callable[[], None]) -> None:
        """Has a task run at this time; after `close`, not."""

        def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            task()

        if not self._closed:
            self._clock.schedule(run)

    def resubmit(self, task: Callable[[], None]) -> None:
        """Has what is left of a task run, after all that was submitted."""
        self.submit(task)

    def wait_for(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        timeout: float,  # noqa: ARG002 - time does not pass by itself
    ) -> bool:
        """Runs what there is to run, and returns whether that has made it true."""
        self._clock.settle()
        with condition:
            return predicate()

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nobody is waited for
        """Runs what there is to run, and no more after that. Idempotent."""
        self._closed = True
        self._clock.settle()
