"""Plays recorded items at their original pace, faster, slower, or as fast as possible.

Thread safety: items are pulled and delivered one at a time on a daemon thread of the subscription (``k2eg-playback``),
or on the given scheduler. A slow subscriber delays the iterable, so nothing piles up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.arguments import positive
from k2eg_rx.concurrency import chosen_scheduler, current_runtime
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_T = TypeVar("_T")

_NANOSECONDS = 1_000_000_000
LONGEST_SECONDS = 1_000_000.0  # of one wait, 11 days; clocks and threads cannot wait for centuries at once


def play(
    items: Iterable[_T],
    timestamp: Callable[[_T], int | None],
    speed: float | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Observable[_T]:
    """Returns a cold stream of items, spaced by their event times divided by the speed; completes after the last.

    The first item with a time is emitted at once, and the clock runs from it. A late item is emitted at once too, so
    playback catches up after a slow subscriber. An exception of the iterable goes to `on_error`.

    Args:
        items: The items; each subscription iterates them anew, at most one item in advance. A ``close()`` of the
            iterable and of its iterator is called once at the end or when the subscription is disposed, never while an
            item is being pulled.
        timestamp: Returns an item's event time in integer nanoseconds; None: it is emitted at once.
        speed: The speed relative to the original: 1 for the original, 60 for an hour in a minute; None: as fast as
            possible.
        scheduler: Where the items are pulled and delivered; by default the scheduler given to `subscribe`, or a thread
            of the subscription.

    Raises:
        ValueError: The speed is not above 0.

    Example:
        >>> from k2eg_rx.history.pacing import play
        >>> from k2eg_rx.client.blocking import first
        >>> from reactivex import operators as ops
        >>> events = [("a", 0), ("b", 60_000_000_000)]  # a minute apart
        >>> first(play(events, timestamp=lambda event: event[1], speed=6000.0).pipe(ops.to_list()))
        [('a', 0), ('b', 60000000000)]
    """
    pace = checked_speed(speed)

    def subscribe(observer: abc.ObserverBase[_T], asked: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        play = _Play(items, timestamp, pace, observer)
        where = scheduler or chosen_scheduler(asked)
        if where is None and (runtime := current_runtime()).is_virtual:
            where = runtime.scheduler
        return _play_on_a_thread(play) if where is None else _play_on(play, where)

    return Observable(subscribe)


def checked_speed(speed: float | None) -> float | None:
    """Returns the speed.

    Raises:
        ValueError: It is neither None nor a number above 0.
    """
    if speed is None:
        return None
    try:
        return positive(speed, "speed")
    except ValueError as error:
        raise ValueError(f"{error}; 1 is the original speed, None is for no pauses") from None


class Pace:
    """When items are due, from the first with a time on. Belongs to the thread that pulls.

    Args:
        speed: The speed; None: all are due at once.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._origin: tuple[int, float] | None = None  # event time in nanoseconds, and the clock's seconds for it

    def seconds_to(self, timestamp: int | None, now: float) -> float:
        """Returns the seconds until an item is due, at most 0 if it is; `now` is in seconds."""
        if self._speed is None or timestamp is None:
            return 0.0
        if self._origin is None:
            self._origin = (timestamp, now)
        began, at = self._origin
        try:
            return at + (timestamp - began) / _NANOSECONDS / self._speed - now
        except OverflowError:  # the times differ by more than a float can hold
            return math.inf if timestamp > began else 0.0


class _Play(Generic[_T]):
    """One subscription's playback. `_running` and `_closed` belong to the lock, all else to the thread in `advance`.

    Attributes:
        stopped: Set, on any thread, to end it.
    """

    def __init__(
        self,
        items: Iterable[_T],
        timestamp: Callable[[_T], int | None],
        speed: float | None,
        observer: abc.ObserverBase[_T],
    ) -> None:
        self._items = items
        self._iterator: Iterator[_T] | None = None
        self._timestamp = timestamp
        self._pace = Pace(speed)
        self._observer = observer
        self._waiting: list[_T] = []  # at most one item, which is not due yet
        self._is_far = False  # whether it is not due after the next wait either
        self._lock = threading.Lock()
        self._running = False
        self._closed = False
        self.stopped = threading.Event()

    def advance(self, now: Callable[[], float]) -> float | None:
        """Emits what is due; returns the seconds to the next item, None after the end."""
        if not self._enter():
            return None
        try:
            return self._emit_due(now)
        except BaseException:
            self.stopped.set()
            raise
        finally:
            self._leave()

    def _emit_due(self, now: Callable[[], float]) -> float | None:
        while not self.stopped.is_set():
            due, self._waiting = self._waiting, []
            try:
                pulled = due or self._pull()
                seconds = 0.0 if due and not self._is_far else self._wait_for(pulled, now)
            except Exception as error:
                self.stopped.set()
                self._observer.on_error(error)
                return None
            if seconds > 0:
                self._waiting = pulled
                self._is_far = seconds > LONGEST_SECONDS
                return min(seconds, LONGEST_SECONDS)
            for item in pulled:
                self._observer.on_next(item)
            if not pulled:
                self.stopped.set()
                self._observer.on_completed()
        return None

    def _pull(self) -> list[_T]:
        if self._iterator is None:
            self._iterator = iter(self._items)
        return list(islice(self._iterator, 1))

    def _wait_for(self, pulled: list[_T], now: Callable[[], float]) -> float:
        return sum(self._pace.seconds_to(self._timestamp(item), now()) for item in pulled)

    def stop(self) -> None:
        """Emits no more; closes the items, unless another thread is in `advance`, which then does."""
        self.stopped.set()
        self._close()

    def _enter(self) -> bool:
        with self._lock:
            self._running = not self._closed
            return self._running

    def _leave(self) -> None:
        with self._lock:
            self._running = False
        if self.stopped.is_set():
            self._close()

    def _close(self) -> None:
        with self._lock:
            if self._running or self._closed:
                return
            self._closed = True
        for part in [self._iterator, None if self._items is self._iterator else self._items]:
            close = getattr(part, "close", None)
            if callable(close):
                try:
                    close()
                except Exception:
                    _log.exception("closing a played iterable failed")


def _play_on_a_thread(play: _Play[_T]) -> abc.DisposableBase:
    def run() -> None:
        try:
            while (seconds := play.advance(time.monotonic)) is not None:
                play.stopped.wait(seconds)
            play.stop()
        except Exception:
            _log.exception("playback ends, its subscriber raised")

    threading.Thread(target=run, name="k2eg-playback", daemon=True).start()
    return Disposable(play.stopped.set)


def _play_on(play: _Play[_T], scheduler: abc.SchedulerBase) -> abc.DisposableBase:
    began = scheduler.now
    next_step = SerialDisposable()

    def now() -> float:
        return (scheduler.now - began).total_seconds()

    def step(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
        seconds = play.advance(now)
        if seconds is not None:
            with suppress(OverflowError):  # beyond the calendar of the scheduler, the item is never due
                next_step.disposable = scheduler.schedule_absolute(_after(scheduler.now, seconds), step)

    def dispose() -> None:
        next_step.dispose()
        play.stop()

    next_step.disposable = scheduler.schedule(step)
    return Disposable(dispose)


def _after(now: datetime, seconds: float) -> datetime:
    """Returns a later time, rounded up to the microseconds of schedulers, so that an item is due when it runs."""
    return now + timedelta(microseconds=math.ceil(seconds * 1_000_000))
