"""`conflate`, `throttle`, `rate_limit`: fewer items a second, for displays and for whatever else is slow.

In: items. Out: fewer of them, or later, on the thread of the source or of the scheduler. What waits belongs to the
lock of the stage: one item per PV, one item, or as many as the user allowed.

- `conflate` counts each PV for itself: of what comes too early the newest of each PV waits for the next beat.
- `throttle` takes the stream as a whole: of what comes too early the newest waits, whichever PV it is of.
- `rate_limit` takes the stream as a whole: all wait for their turn, in order; nothing is lost up to its capacity.

Each of them emits what came last in the end, so that a display never stays behind.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from k2eg_rx.arguments import at_least_one, positive
from k2eg_rx.operators.stage import Stage, staged
from k2eg_rx.protocol import PVData

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

DEFAULT_QUEUE = 1000  # items; at 10 Hz more than a minute of delay, which no display wants


class _Newest(Stage[_T, _T]):
    """Emits at once when it has been quiet, and then at most at every beat: the newest item of each key."""

    def __init__(
        self,
        observer: abc.ObserverBase[_T],
        scheduler: abc.SchedulerBase,
        period: float,
        key: Callable[[_T], str],
    ) -> None:
        super().__init__(observer, scheduler)
        self._period = period
        self._key = key
        self._waiting: dict[str, _T] = {}
        self._beating = False

    def take(self, item: _T) -> None:
        if self._beating:
            self._waiting[self._key(item)] = item
            return
        self._beating = True
        self.tick_in(self._period)
        self.emit(item)

    def tick(self) -> None:
        self._beating = bool(self._waiting)
        if self._beating:
            self.tick_in(self._period)
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for item in waiting.values():
            self.emit(item)

    def source_completed(self) -> None:
        self._flush()
        self.complete()

    def source_failed(self, error: Exception) -> None:
        self._flush()
        self.fail(error)


class _Queued(Stage[_T, _T]):
    """Emits all items in order, with a period between them."""

    def __init__(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase, period: float, capacity: int
    ) -> None:
        super().__init__(observer, scheduler)
        self._period = period
        self._waiting: deque[_T] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._pausing = False
        self._end: Callable[[], None] | None = None

    def take(self, item: _T) -> None:
        if not self._pausing:
            self._pausing = True
            self.tick_in(self._period)
            self.emit(item)
            return
        if len(self._waiting) == self._capacity:
            self._waiting.popleft()
            self._count_dropped()
        self._waiting.append(item)

    def _count_dropped(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            _log.warning("rate_limit: %d items wait already; the oldest are dropped from now on", self._capacity)

    def tick(self) -> None:
        if not self._waiting:
            self._pausing = False
            return
        self.tick_in(self._period)
        self.emit(self._waiting.popleft())
        self._end_if_empty()

    def source_completed(self) -> None:
        self._end = self.complete
        self._end_if_empty()

    def source_failed(self, error: Exception) -> None:
        self._end = lambda: self.fail(error)
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._waiting or self._end is None:
            return
        if self._dropped:
            _log.warning("rate_limit: %d items were dropped", self._dropped)
        self._end()


def _pv_of(item: Any) -> str:
    return item.name if isinstance(item, PVData) else ""


def _all_alike(_item: Any) -> str:
    return ""


def conflate(hz: float, *, scheduler: abc.SchedulerBase | None = None) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that emits the newest update of each PV, at most `hz` times a second.

    For a display of many PVs. A PV that changes faster loses what is between; one that is slow loses nothing, however
    fast the others are. After a pause an update is emitted at once; those that come within the period then wait for
    its end, and come together. The last update of every PV is always emitted, at the end of the stream too.

    `throttle` takes the stream as a whole, whatever PVs it has; `rate_limit` keeps every item and delays it.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import conflate
        >>> from k2eg_rx.testing import series
        >>> burst = rx.from_iterable(series("a", [1, 2, 3]) + series("b", [7, 8]))
        >>> burst.pipe(conflate(hz=10)).subscribe(lambda update: print(update.name, update.value)).dispose()
        a 1
        a 3
        b 8

    Args:
        hz: How often. Items that are no updates count as those of one PV.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: `hz` is not above 0.
    """
    period = 1.0 / positive(hz, "hz")

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Newest(observer, timing, period, _pv_of), scheduler)

    return operator


def throttle(
    seconds: float, *, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that emits an item at most every so many seconds, and then the newest.

    For one PV, or for what is made of several: sums, dicts of `latest_by_pv`, plots. After a pause an item is emitted
    at once; of those that come within the period the last one is emitted at its end. Unlike reactivex's
    `throttle_first` it never leaves the last item out, and unlike `debounce` it does not fall silent while items keep
    coming.

    Of several PVs it would show only which came last: use `conflate` there, which counts each for itself.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import throttle
        >>> rx.of(1, 2, 3, 4).pipe(throttle(0.5)).subscribe(print).dispose()
        1
        4

    Args:
        seconds: The least time between two items.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: `seconds` is not above 0.
    """
    period = positive(seconds, "seconds")

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Newest(observer, timing, period, _all_alike), scheduler)

    return operator


def rate_limit(
    hz: float, *, capacity: int = DEFAULT_QUEUE, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that emits every item, in order, at most `hz` of them a second.

    For a receiver that must have all of them but takes them slowly: a log, a web service, a message to somebody's
    phone. What comes faster waits, so what is emitted may be old; for a display use `conflate` or `throttle`, which
    show what is new. The end of the stream, or its error, comes after what waits.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import rate_limit
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time: it passes when it is told to
        >>> def show(item):
        ...     print(float(clock.clock), item)
        >>> subscription = rx.of("a", "b", "c").pipe(rate_limit(hz=2)).subscribe(show, scheduler=clock)
        >>> clock.advance_to(2.0)
        0.0 a
        0.5 b
        1.0 c

    Args:
        hz: How many items a second.
        capacity: How many may wait. Beyond them the oldest are dropped, so that the last one always comes; the log
            tells when that begins, and how many it were.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: `hz` is not above 0, or `capacity` is below 1.
    """
    period = 1.0 / positive(hz, "hz")
    at_least_one(capacity, "capacity")

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Queued(observer, timing, period, capacity), scheduler)

    return operator
