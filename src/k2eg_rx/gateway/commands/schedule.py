"""Window schedule of recurring snapshots: when a window opens, pushes and ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import MultipleAssignmentDisposable

_MIN_CYCLE = 0.001  # seconds; a window of 0 yields an iteration per millisecond, as with the deployed gateway
_DEFAULT_PUSH_PERIOD = 1.0  # seconds; the deployed gateway's default


class WindowEvent(Enum):
    """An event of the schedule. `OPEN` occurs only after a pause."""

    OPEN = "open"
    PUSH = "push"
    END = "end"


@dataclass(frozen=True, slots=True)
class SnapshotTiming:
    """The timing of a recurring snapshot, in seconds.

    Attributes:
        window: How long values are collected.
        delay: The pause between windows.
        sub_push: The period at which values are published within a window; 0 means the default of 1 s.
    """

    window: float
    delay: float = 0.0
    sub_push: float = 0.0

    @property
    def push_period(self) -> float | None:
        """The time between pushes; None if there is no push before the end of the window."""
        period = self.sub_push or _DEFAULT_PUSH_PERIOD
        return period if period < self.window else None

    @property
    def cycle(self) -> float:
        """The time from the start of one window to the start of the next."""
        return max(self.window + self.delay, _MIN_CYCLE)


def _window(timing: SnapshotTiming, start: datetime) -> Iterator[tuple[datetime, WindowEvent]]:
    """Yields the events of one window."""
    period = timing.push_period
    if period is not None:
        # a push that coincides with the end, up to rounding, is left out
        for n in range(int((timing.window - period / 1000) / period)):
            yield start + timedelta(seconds=period * (n + 1)), WindowEvent.PUSH
    yield start + timedelta(seconds=timing.window if timing.delay else timing.cycle), WindowEvent.END
    if timing.delay:
        yield start + timedelta(seconds=timing.cycle), WindowEvent.OPEN


def window_events(timing: SnapshotTiming, scheduler: abc.SchedulerBase) -> Observable[WindowEvent]:
    """Returns the events of consecutive windows, starting at subscription.

    Windows follow each other without drift. If the scheduler is late by more than a whole cycle, it skips windows
    instead of catching up.
    """

    def subscribe(observer: abc.ObserverBase[WindowEvent], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        timer = MultipleAssignmentDisposable()
        events = _window(timing, scheduler.now)

        def schedule(due: datetime, event: WindowEvent) -> None:
            def emit(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                try:
                    observer.on_next(event)
                finally:
                    schedule_next(due)

            timer.disposable = scheduler.schedule_absolute(due, emit)

        def schedule_next(previous: datetime) -> None:
            nonlocal events
            if timer.is_disposed:
                return
            upcoming = next(events, None)
            if upcoming is None:
                late = scheduler.now - previous > timedelta(seconds=timing.cycle)
                events = _window(timing, scheduler.now if late else previous)
                upcoming = next(events)
            schedule(*upcoming)

        schedule(*next(events))
        return timer

    return reactivex.create(subscribe)
