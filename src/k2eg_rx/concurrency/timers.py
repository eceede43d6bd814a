"""The client's one thread for what happens later: timeouts, and looks once in a while.

In: actions, from any thread. Out: calls on the thread of the scheduler.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.internal import DisposedException, PriorityQueue
from reactivex.scheduler import EventLoopScheduler
from reactivex.scheduler.scheduleditem import ScheduledItem

_State = TypeVar("_State")

_MOST_CANCELLED = 1000  # replies mostly come before their timeout; beyond these the queue is swept


class SteadyLoop(EventLoopScheduler):
    """An `EventLoopScheduler` whose time runs with the monotonic clock.

    The original's is the system's: as that is corrected by a minute, all that waits would time out, or wait on.

    Args:
        thread_factory: Makes the thread; see `EventLoopScheduler`.
    """

    def __init__(self, thread_factory: typing.StartableFactory | None = None) -> None:
        super().__init__(thread_factory=thread_factory)
        self._epoch = datetime.now(UTC) - timedelta(seconds=time.monotonic())

    @property
    def now(self) -> datetime:
        """The scheduler's time, UTC; like the system's at the start, and even since."""
        return self._epoch + timedelta(seconds=time.monotonic())


class Timers(SteadyLoop):
    """A `SteadyLoop` that forgets what is cancelled, and sleeps until something is due.

    The original keeps a cancelled action until it would have been due, and with a timeout's action the whole request
    and its reply: at a thousand gets a second, hundreds of megabytes. And it wakes its thread for each action, to find
    that another one is due earlier: for each get, just when the threads that see to the get need the processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cancelled = 0

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Schedules an action; see `EventLoopScheduler.schedule_absolute`."""
        kept = [action]

        def act(scheduler: abc.SchedulerBase, state: _State | None = None) -> abc.DisposableBase | None:
            for wanted in tuple(kept):
                return wanted(scheduler, state)
            return None

        item = ScheduledItem(self, state, act, self.to_datetime(duetime))
        self._take_in(item)

        def cancel() -> None:
            item.cancel()
            kept.clear()
            self._note_cancelled()

        return Disposable(cancel)

    def _take_in(self, item: ScheduledItem) -> None:
        with self._condition:
            if self._is_disposed:
                raise DisposedException
            is_due = item.duetime <= self.now
            # the thread sleeps until the first in the queue is due, cancelled or not; or for ever if there is none
            is_first = is_due or not self._queue or item.duetime < self._queue.peek().duetime
            if is_due:
                self._ready_list.append(item)
            else:
                self._queue.enqueue(item)
            if is_first:
                self._condition.notify()
            self._ensure_thread()

    def _note_cancelled(self) -> None:
        with self._condition:
            self._cancelled += 1
            if self._cancelled > _MOST_CANCELLED:
                self._cancelled = 0
                self._sweep()

    def _sweep(self) -> None:
        queue: PriorityQueue[ScheduledItem] = PriorityQueue()
        while self._queue:
            item = self._queue.dequeue()
            if not item.is_cancelled():
                queue.enqueue(item)
        self._queue = queue
