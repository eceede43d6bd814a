"""A reactivex scheduler that runs actions on an event loop.

Thread safety: actions may be scheduled and cancelled on any thread; they run on the loop's.
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

    Unlike reactivex's AsyncIOThreadSafeScheduler, cancelling on another thread does not wait for the loop, which may be
    waiting for that thread.

    Args:
        loop: The loop. Once it is closed, scheduling raises RuntimeError.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs an action as soon as possible."""
        return self._begin(lambda run: run(), action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action after a delay in seconds or a timedelta."""
        seconds = max(0.0, self.to_seconds(duetime))
        return self._begin(lambda run: self._loop.call_later(seconds, run), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Runs an action at a time."""
        return self.schedule_relative(self.to_datetime(duetime) - self.now, action, state)

    def _begin(
        self,
        start: Callable[[Callable[[], None]], object],
        action: typing.ScheduledAction[_State],
        state: _State | None,
    ) -> abc.DisposableBase:
        result = SingleAssignmentDisposable()
        pending = [action]

        def run() -> None:
            while pending:
                result.disposable = self.invoke_action(pending.pop(), state)

        def cancel() -> None:
            pending.clear()
            result.dispose()

        self._loop.call_soon_threadsafe(start, run)
        return Disposable(cancel)
