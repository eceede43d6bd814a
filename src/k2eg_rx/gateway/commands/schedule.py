"""The moments of a recurring snapshot that runs by itself: when a window opens, pushes and ends.

In: its times. Out: an Observable of moments on a scheduler, so that a test has it in virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import MultipleAssignmentDisposable

_MIN_CYCLE = 0.001  # seconds; a window of 0 makes an iteration each millisecond, as the deployed gateway's does
_DEFAULT_PUSH = 1.0  # seconds between pushes where none are asked for, the deployed gateway's


class WindowEvent(Enum):
    """What happens. `OPEN` only comes where a pause has gone before."""

    OPEN = "open"
    PUSH = "push"
    END = "end"


@dataclass(frozen=True, slots=True)
class SnapshotTiming:
    """The times of a recurring snapshot, in seconds.

    Attributes:
        window: How long values are collected.
        delay: The pause between windows.
        sub_push: How often what has come so far is pushed within a window; 0 is the default, which is 1 s.
    """

    window: float
    delay: float = 0.0
    sub_push: float = 0.0

    @property
    def push(self) -> float | None:
        """Seconds between pushes; None for no push before the window's end."""
        period = self.sub_push or _DEFAULT_PUSH
        return period if period < self.window else None

    @property
    def cycle(self) -> float:
        """Seconds from one window's begin to the next one's."""
        return max(self.window + self.delay, _MIN_CYCLE)


def window_events(timing: SnapshotTiming, scheduler: abc.SchedulerBase) -> Observable[WindowEvent]:
    """Returns the moments of one window after the other, from the subscription on.

    Windows follow each other without drift. If the scheduler's thread is late by more than a whole cycle, windows are
    left out rather than made up for.
    """

    def window(begin: datetime) -> Iterator[tuple[datetime, WindowEvent]]:
        push = timing.push
        if push is not None:
            # one that falls on the end, but for rounding, is the end
            for n in range(int((timing.window - push / 1000) / push)):
                yield begin + timedelta(seconds=push * (n + 1)), WindowEvent.PUSH
        yield begin + timedelta(seconds=timing.window if timing.delay else timing.cycle), WindowEvent.END
        if timing.delay:
            yield begin + timedelta(seconds=timing.cycle), WindowEvent.OPEN

    def subscribe(observer: abc.ObserverBase[WindowEvent], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        slot = MultipleAssignmentDisposable()
        steps = window(scheduler.now)

        def arm(due: datetime, moment: WindowEvent) -> None:
            def act(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                try:
                    observer.on_next(moment)
                finally:
                    proceed(due)

            slot.disposable = scheduler.schedule_absolute(due, act)

        def proceed(done: datetime) -> None:
            nonlocal steps
            if slot.is_disposed:
                return
            step = next(steps, None)
            if step is None:
                late = scheduler.now - done > timedelta(seconds=timing.cycle)
                steps = window(scheduler.now if late else done)
                step = next(steps)
            arm(*step)

        arm(*next(steps))
        return slot

    return reactivex.create(subscribe)
