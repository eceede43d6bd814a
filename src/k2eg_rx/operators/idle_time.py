"""Time in which an operator waits for items: the clock's, without the time in which it is busy with them.

A PV that is silent while the operator is busy with others, or while its subscriber blocks, may have updates that wait
in a queue or in Kafka. Only the time in which the operator has nothing to do shows that it has none, and not while the
source is far behind: what it waits for then is in Kafka.

Thread safety: none; it belongs to one subscription, under the lock of its operator if it has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from reactivex import abc

from k2eg_rx.concurrency import current_runtime, scheduler_or
from k2eg_rx.delivery import source_is_behind
from k2eg_rx.protocol import nanoseconds_of


def clock_of(given: abc.SchedulerBase | None, subscribed: abc.SchedulerBase | None) -> Callable[[], int]:
    """Returns a clock in integer nanoseconds: that of an operator's scheduler, see `scheduler_or`."""
    scheduler = scheduler_or(given, subscribed)
    runtime = current_runtime()
    if scheduler is runtime.scheduler and not runtime.is_virtual:
        return time.monotonic_ns  # the same time; the scheduler's takes 3 us
    return lambda: nanoseconds_of(scheduler.now)


class IdleTime:
    """Counts the time between the end of one item and the arrival of the next.

    Args:
        clock: Returns the time in nanoseconds.
        longest: Nanoseconds that one wait counts at most, since it may be a stall of the process; None for no limit.
    """

    __slots__ = ("_clock", "_is_behind", "_left", "_longest", "_total")

    def __init__(self, clock: Callable[[], int], longest: int | None = None) -> None:
        self._clock = clock
        self._longest = longest
        self._total = 0
        self._left = clock()
        self._is_behind: Callable[[], bool] = lambda: False  # that of the client whose item came last

    def enter(self) -> int:
        """Called when the operator gets an item; returns the idle time until now."""
        self._is_behind = source_is_behind() or self._is_behind
        self._total = self.now()
        return self._total

    def leave(self) -> None:
        """Called when the operator and its subscriber are done with an item."""
        self._left = self._clock()

    def now(self) -> int:
        """Returns the idle time until now, while the operator waits."""
        if self._is_behind():
            return self._total
        waited = max(0, self._clock() - self._left)
        return self._total + (waited if self._longest is None else min(waited, self._longest))
