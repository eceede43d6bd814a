"""The scheduler of operators that are given none: one timer thread and a pool that runs what is due.

Thread safety: all methods may be called on any thread; actions run on the pool's daemon threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler
from reactivex.scheduler.scheduleditem import ScheduledItem

from k2eg_rx.concurrency.timers import TimerScheduler
from k2eg_rx.concurrency.worker_pool import Task, WorkerPool
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_State = TypeVar("_State")

_WORKER_LIMIT = 32  # subscribers that block in a timed item at the same time; as many as a client has


class SharedScheduler(PeriodicScheduler):
    """Runs each action on a thread of a pool when it is due, so that a slow subscriber delays no other timer.

    Actions due at the same time may run concurrently. The scheduler has no state of its own.

    Args:
        timers: Waits for the time of an action.
        execute: Runs a task on some thread.
    """

    def __init__(self, timers: abc.SchedulerBase, execute: Callable[[Task], None]) -> None:
        self._timers = timers
        self._execute = execute

    @property
    def now(self) -> datetime:
        """The time, UTC, by the monotonic clock."""
        return self._timers.now

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs an action as soon as a thread is free. Disposing the result cancels it; so for the other methods."""
        item = ScheduledItem(self, state, action, self.now)
        self._execute(functools.partial(_run, item))
        return Disposable(item.cancel)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action after a delay, in seconds or as a timedelta."""
        return self.schedule_absolute(self.now + self.to_timedelta(duetime), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action at a time of this scheduler's `now`."""
        item = ScheduledItem(self, state, action, self.to_datetime(duetime))

        def due(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            try:
                self._execute(functools.partial(_run, item))
            except RuntimeError:  # the process can start no more threads
                _log.exception("timed action dropped: no thread to run it")

        timer = self._timers.schedule_absolute(item.duetime, due)
        return CompositeDisposable(timer, Disposable(item.cancel))


def _run(item: ScheduledItem) -> None:
    if not item.is_cancelled():
        item.invoke()


# No thread is started until it is used.
SHARED = SharedScheduler(TimerScheduler("k2eg-operator-timers"), WorkerPool(_WORKER_LIMIT, "k2eg-operators").submit)
