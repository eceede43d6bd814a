"""Items of the past played at the pace at which they happened, or faster, or slower.

In: an iterable, pulled an item at a time, only when the one before has been handed over. Out: the items, on the thread
that pulls them: one of the subscription's own (``k2eg-playback``, a daemon that ends with the subscription), or that
of the scheduler that was asked for. A subscriber that is slow keeps the iterable waiting, so nothing piles up.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.concurrency import chosen_scheduler, current_runtime

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_NANOSECONDS = 1_000_000_000


def play(
    items: Iterable[_T],
    timestamp: Callable[[_T], int | None],
    speed: float | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Observable[_T]:
    """Returns a cold stream of the items, spaced by their event times divided by the speed; it then completes.

    The first item with a time comes at once, and the clock runs from it. An item that is late, because the subscriber
    or the iterable was slow or because its time is before that of others, comes at once too: the play catches up. An
    exception of the iterable goes to `on_error`.

    Args:
        items: What is played; each subscription iterates it anew. Never more than one item is taken in advance. What
            the iterable and its iterator have for a ``close()`` is called once at the end, also when somebody
            unsubscribes: never while an item is being pulled, on the thread that pulls, or, with a scheduler, on that
            of who unsubscribes.
        timestamp: Returns an item's event time in integer nanoseconds; None for one without, which comes at once.
        speed: How much faster than it was: 1 as it was, 60 an hour in a minute; None as fast as possible.
        scheduler: Where the items are pulled and handed over; a thread of the subscription's own by default, or the
            scheduler that is given to `subscribe`.

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
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0 < speed < math.inf:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"speed is a number above 0 (1 is as it was), or None for as fast as possible, not {speed!r}")
    return float(speed)


class Pace:
    """When items are due: the clock runs from the first that has a time. Belongs to the thread that pulls.

    Args:
        speed: How fast; None for at once.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._origin: tuple[int, float] | None = None  # event time in nanoseconds, and the clock's seconds for it

    def seconds_to(self, timestamp: int | None, now: float) -> float:
        """Returns how long an item has still to wait, by a clock's seconds; not above 0 if it is due."""
        if self._speed is None or timestamp is None:
            return 0.0
        if self._origin is None:
            self._origin = (timestamp, now)
        began, at = self._origin
        return at + (timestamp - began) / _NANOSECONDS / self._speed - now


class _Play(Generic[_T]):
    """One subscription's way through the items.

    `stopped` may be set by anybody; `_running` and `_closed` belong to the lock; all else to the one thread at a time
    that is in `advance`.
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
        self._waiting: list[_T] = []  # the item that is not due yet, if any
        self._lock = threading.Lock()
        self._running = False
        self._closed = False
        self.stopped = threading.Event()

    def advance(self, now: Callable[[], float]) -> float | None:
        """Hands over what is due; returns the seconds until more is, or None after the end."""
        if not self._enter():
            return None
        try:
            return self._hand_over(now)
        except BaseException:
            self.stopped.set()
            raise
        finally:
            self._leave()

    def _hand_over(self, now: Callable[[], float]) -> float | None:
        while not self.stopped.is_set():
            due, self._waiting = self._waiting, []
            try:
                pulled = due or self._pull()
                seconds = 0.0 if due else self._wait_for(pulled, now)
            except Exception as error:
                self.stopped.set()
                self._observer.on_error(error)
                return None
            if seconds > 0:
                self._waiting = pulled
                return seconds
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
        """Hands over no more; closes the items unless somebody is at it, who then does."""
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
                    _log.exception("closing what was played failed")


def _play_on_a_thread(play: _Play[_T]) -> abc.DisposableBase:
    def run() -> None:
        try:
            while (seconds := play.advance(time.monotonic)) is not None:
                play.stopped.wait(seconds)
            play.stop()
        except Exception:
            _log.exception("a subscriber to what is played raised; the play ends")

    threading.Thread(target=run, name="k2eg-playback", daemon=True).start()
    return Disposable(play.stopped.set)


def _play_on(play: _Play[_T], scheduler: abc.SchedulerBase) -> abc.DisposableBase:
    began = scheduler.now
    next_turn = SerialDisposable()

    def now() -> float:
        return (scheduler.now - began).total_seconds()

    def turn(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
        seconds = play.advance(now)
        if seconds is not None:
            next_turn.disposable = scheduler.schedule_absolute(_after(scheduler.now, seconds), turn)

    def dispose() -> None:
        next_turn.dispose()
        play.stop()

    next_turn.disposable = scheduler.schedule(turn)
    return Disposable(dispose)


def _after(now: datetime, seconds: float) -> datetime:
    """Rounded up to the microseconds that schedulers know: an item is never found not to be due yet."""
    return now + timedelta(microseconds=math.ceil(seconds * 1_000_000))
