"""An event loop as a reactivex scheduler that may be used from any thread.

In: actions, from any thread. Out: calls on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

_State = TypeVar("_State")


class LoopScheduler(PeriodicScheduler):
    """Runs actions on an event loop.

    Cancelling never waits for the loop, as reactivex's own does from another thread: it might wait for the caller.

    Args:
        loop: The loop. Once it is closed, scheduling raises RuntimeError.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Schedules an action for as soon as possible."""
        return self._begin(lambda run: run(), action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Schedules an action for a time from now."""
        seconds = max(0.0, self.to_seconds(duetime))
        return self._begin(lambda run: self._loop.call_later(seconds, run), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Schedules an action for a time."""
        return self.schedule_relative(self.to_datetime(duetime) - self.now, action, state)

    def _begin(
        self,
        start: Callable[[Callable[[], None]], object],
        action: typing.ScheduledAction[_State],
        state: _State | None,
    ) -> abc.DisposableBase:
        result = SingleAssignmentDisposable()
        wanted = [action]

        def run() -> None:
            while wanted:
                result.disposable = self.invoke_action(wanted.pop(), state)

        def cancel() -> None:
            wanted.clear()
            result.dispose()

        self._loop.call_soon_threadsafe(start, run)
        return Disposable(cancel)
