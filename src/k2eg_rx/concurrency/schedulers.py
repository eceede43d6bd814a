"""Where operators get their time from: the scheduler they are given, else one that the whole process shares.

In: actions and when they are due, from any thread. Out: their execution, on daemon threads that are started when
needed: one that waits for what is due, and a pool that runs it, so that a slow subscriber delays no other timer.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.scheduler import ImmediateScheduler, TimeoutScheduler, TrampolineScheduler
from reactivex.scheduler.periodicscheduler import PeriodicScheduler
from reactivex.scheduler.scheduleditem import ScheduledItem

from k2eg_rx.concurrency.runtime import current_runtime
from k2eg_rx.concurrency.timers import TimerScheduler
from k2eg_rx.concurrency.worker_pool import Task, WorkerPool

_log = logging.getLogger(__name__)

_State = TypeVar("_State")

_WORKER_LIMIT = 32  # subscribers that block in a timed item at the same time; as many as a client has


class SharedScheduler(PeriodicScheduler):
    """Runs each action on a thread of a pool when it is due; actions due at the same time may run side by side.

    It holds no state of its own: the queue belongs to the timers' lock, the tasks to that of the workers. An action
    that raises is logged, and harms no other.

    Args:
        timers: What tells the time and waits for what is due.
        execute: Has a task run on some thread.
    """

    def __init__(self, timers: abc.SchedulerBase, execute: Callable[[Task], None]) -> None:
        self._timers = timers
        self._execute = execute

    @property
    def now(self) -> datetime:
        """The present time, UTC. It goes on steadily: a correction of the system's clock does not show in it."""
        return self._timers.now

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs an action as soon as a thread is free. Disposing what is returned cancels it."""
        item = ScheduledItem(self, state, action, self.now)
        self._execute(functools.partial(_run, item))
        return Disposable(item.cancel)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action after so many seconds, or a timedelta."""
        return self.schedule_absolute(self.now + self.to_timedelta(duetime), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action at a time by this scheduler's `now`."""
        item = ScheduledItem(self, state, action, self.to_datetime(duetime))

        def due(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            try:
                self._execute(functools.partial(_run, item))
            except RuntimeError:  # no more threads: the timers' own thread has to outlive that
                _log.exception("a timer of an operator was lost")

        timer = self._timers.schedule_absolute(item.duetime, due)
        return CompositeDisposable(timer, Disposable(item.cancel))


def _run(item: ScheduledItem) -> None:
    if not item.is_cancelled():
        item.invoke()


# The scheduler of all operators in this process that are given none. No thread is started until it is used.
SHARED = SharedScheduler(TimerScheduler(), WorkerPool(_WORKER_LIMIT, "k2eg-operators").submit)

# What reactivex's own operators pass to the streams above them where nobody chose a scheduler. They would run timers
# on the thread that subscribes, asleep until the time is up, or start a thread for each.
_NOT_CHOSEN = (TrampolineScheduler, ImmediateScheduler, TimeoutScheduler)


def scheduler_or(given: abc.SchedulerBase | None, subscribed: abc.SchedulerBase | None) -> abc.SchedulerBase:
    """Returns the scheduler by which an operator has to tell the time and have its timers run.

    Call it at subscription. To the source pass on `subscribed` as it is, not what is returned here: a client runs its
    subscribers on its own threads unless the user asked for others.

    Actions may come on another thread than the source's items, and two actions on two threads: what they share with
    the items needs a lock.

    Args:
        given: The scheduler that the user gave to the operator. It counts first.
        subscribed: The scheduler that was given to `subscribe`. It counts next, unless it is one that reactivex's
            operators pass on by themselves (current thread, trampoline, immediate, timeout). Where neither counts it is
            one that all share; in a test with `k2eg_rx.testing`'s virtual time, the test's.
    """
    if given is not None:
        return given
    if subscribed is None or isinstance(subscribed, _NOT_CHOSEN):
        around = current_runtime()
        return around.scheduler if around else SHARED
    return subscribed
