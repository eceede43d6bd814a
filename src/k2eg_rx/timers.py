"""The client's one thread for what happens later: timeouts, and looks once in a while.

In: actions, from any thread. Out: calls on the thread of the scheduler.
"""

from __future__ import annotations

from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.internal import PriorityQueue
from reactivex.scheduler import EventLoopScheduler
from reactivex.scheduler.scheduleditem import ScheduledItem

_State = TypeVar("_State")

_MOST_CANCELLED = 1000  # replies mostly come before their timeout; beyond these the queue is swept


class Timers(EventLoopScheduler):
    """An `EventLoopScheduler` that forgets what is cancelled.

    The original keeps a cancelled action until it would have been due, and with a timeout's action the whole request
    and its reply: at a thousand gets a second, hundreds of megabytes.
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

        scheduled = super().schedule_absolute(duetime, act, state)

        def cancel() -> None:
            scheduled.dispose()
            kept.clear()
            self._note_cancelled()

        return Disposable(cancel)

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
