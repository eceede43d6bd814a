"""Operators that limit the rate of a stream: `conflate`, `sample_latest`, `rate_limit`.

- `conflate` limits each PV: of updates that come faster, the newest of each PV is emitted.
- `sample_latest` limits the stream: of items that come faster, the newest is emitted.
- `rate_limit` limits the stream: items that come faster wait in a bounded queue.

All of them emit the last item, so that a display does not end with an old value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from k2eg_rx.arguments import at_least_one, period_of
from k2eg_rx.operators.stage import Stage, staged
from k2eg_rx.protocol import PVData
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_T = TypeVar("_T")

DEFAULT_CAPACITY = 1000  # items; at 10 Hz a delay of 100 s, more than most receivers accept


class _Newest(Stage[_T, _T]):
    """Emits an item at once after a pause; otherwise the newest item of each key once per period."""

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
        self._is_timed = False

    def take(self, item: _T) -> None:
        if self._is_timed:
            self._waiting[self._key(item)] = item
            return
        self._is_timed = True
        self.tick_in(self._period)
        self.emit(item)

    def tick(self) -> None:
        self._is_timed = bool(self._waiting)
        if self._is_timed:
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
    """Emits all items in order, one per period."""

    def __init__(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase, period: float, capacity: int
    ) -> None:
        super().__init__(observer, scheduler)
        self._period = period
        self._queue: deque[_T] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._is_timed = False
        self._end: Callable[[], None] | None = None

    def take(self, item: _T) -> None:
        if not self._is_timed:
            self._is_timed = True
            self.tick_in(self._period)
            self.emit(item)
            return
        if len(self._queue) == self._capacity:
            self._queue.popleft()
            self._count_dropped()
        self._queue.append(item)

    def _count_dropped(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            _log.warning("rate_limit queue full, dropping the oldest items: capacity=%d", self._capacity)

    def tick(self) -> None:
        if not self._queue:
            self._is_timed = False
            return
        self.tick_in(self._period)
        self.emit(self._queue.popleft())
        self._end_if_empty()

    def source_completed(self) -> None:
        self._end = self.complete
        self._end_if_empty()

    def source_failed(self, error: Exception) -> None:
        self._end = lambda: self.fail(error)
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._queue or self._end is None:
            return
        if self._dropped:
            _log.warning("rate_limit ends: dropped=%d", self._dropped)
        self._end()


def _pv_of(item: Any) -> str:
    return item.name if isinstance(item, PVData) else ""


def _one_key(_item: Any) -> str:
    return ""


def conflate(rate: float, *, scheduler: abc.SchedulerBase | None = None) -> Callable[[Observable[_T]], Observable[_T]]:
    """Emits the newest update of each PV, at most `rate` times a second.

    For displays of many PVs. A fast PV loses intermediate updates, a slow one none. After a pause an update is emitted
    at once; updates within the period after it wait for its end and are emitted together. The last update of each PV is
    always emitted, also when the stream completes or fails.

    `sample_latest` does the same for a stream as a whole; `rate_limit` keeps and delays every item.

    Args:
        rate: Emissions a second for each PV, in hertz. Items other than updates count as one PV.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        Items of the source.

    Raises:
        ValueError: `rate` is not above 0.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import conflate
        >>> from k2eg_rx.testing import series
        >>> burst = rx.from_iterable(series("a", [1, 2, 3]) + series("b", [7, 8]))
        >>> burst.pipe(conflate(rate=10)).subscribe(lambda update: print(update.name, update.value)).dispose()
        a 1
        a 3
        b 8
    """
    period = period_of(rate)

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Newest(observer, timing, period, _pv_of), scheduler)

    return operator


def sample_latest(
    rate: float, *, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Emits the newest item of the stream, at most `rate` times a second.

    For one PV, or for results computed from several: sums, dicts of `latest_by_pv`, plots. After a pause an item is
    emitted at once; of the items within the period after it the last is emitted at its end. Unlike `throttle_first` of
    reactivex it always emits the last item, and unlike `debounce` it emits while items keep coming.

    In a stream of several PVs it drops updates of one PV in favour of another: use `conflate` there.

    Args:
        rate: Items a second, in hertz.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        Items of the source.

    Raises:
        ValueError: `rate` is not above 0.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import sample_latest
        >>> rx.of(1, 2, 3, 4).pipe(sample_latest(2.0)).subscribe(print).dispose()
        1
        4
    """
    period = period_of(rate)

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Newest(observer, timing, period, _one_key), scheduler)

    return operator


def rate_limit(
    rate: float, *, capacity: int = DEFAULT_CAPACITY, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Emits every item in order, at most `rate` items a second.

    For receivers that need every item but take them slowly: a log, a web service, text messages. Items that come faster
    wait, so emitted items may be old; for displays use `conflate` or `sample_latest`. Completion or error of the source
    follows after the waiting items.

    Args:
        rate: Items a second, in hertz.
        capacity: Items that may wait. A full queue drops its oldest items, so that the last item is always emitted; the
            log reports the first drop and the total.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        Items of the source.

    Raises:
        ValueError: `rate` is not above 0, or `capacity` is below 1.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import rate_limit
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time
        >>> def show(item):
        ...     print(float(clock.clock), item)
        >>> subscription = rx.of("a", "b", "c").pipe(rate_limit(rate=2)).subscribe(show, scheduler=clock)
        >>> clock.advance_to(2.0)
        0.0 a
        0.5 b
        1.0 c
    """
    period = period_of(rate)
    capacity = at_least_one(capacity, "capacity")

    def operator(source: Observable[_T]) -> Observable[_T]:
        return staged(source, lambda observer, timing: _Queued(observer, timing, period, capacity), scheduler)

    return operator
