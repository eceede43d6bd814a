"""A subscriber's items on their way: in order, bounded, guarded.

In: items, from the thread that has them (a pump, a timer); it is never blocked. Out: `on_next` calls, one at a time,
where `execute` has them made.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from reactivex import abc

from k2eg_rx.concurrency import Task
from k2eg_rx.delivery.buffers import Buffer, Overflow, buffer_for
from k2eg_rx.errors import K2EGError, WireError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)

# Items taken at a time, since taking costs a lock; some 0.3 ms of work, after which others may be let through.
_SLICE = 64
_TURNS = 16  # slices handed over before another mailbox gets its turn


def _contained(error: BaseException) -> Exception:
    """Returns what a subscriber is told of what it raised. SystemExit and its like would end the thread, and it may be
    the one that reads events for everybody."""
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"a subscriber raised {error!r}; it ends its subscription only, not the program")


class BackpressureGate:
    """Open while every blocking mailbox has room; the event pump reads only while it is open.

    The count belongs to the lock. `on_open` is called on the thread that made room.
    """

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._full = 0
        self._on_open = on_open

    def is_open(self) -> bool:
        """Whether there is room everywhere."""
        return self._full == 0

    def shut(self) -> None:
        """One more mailbox is full."""
        with self._lock:
            self._full += 1

    def release(self) -> None:
        """One mailbox has room again."""
        with self._lock:
            self._full -= 1
            opened = self._full == 0
        if opened:
            self._on_open()


class SubscriberInput(Protocol[_T_contra]):
    """The side of a mailbox that a stream's source sees. Any thread; nothing here blocks."""

    @property
    def newest_only(self) -> bool:
        """Whether only the newest item of a name is wanted, so that a source may leave older ones out."""
        ...

    def count_conflated(self, count: int) -> None:
        """Takes note of items that were left out, because newer ones of the same name are offered."""
        ...

    def offer(self, items: Sequence[_T_contra]) -> None:
        """Hands over items, in order."""
        ...

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after what was offered: completed, or failed."""
        ...

    def cancel_and_drain(self) -> Sequence[object]:
        """Ends the stream here and now, without a word; returns what was not handed over.

        An item that is being handed over at this moment, on another thread, may be among it.
        """
        ...

    def reclaim_undelivered(self, is_wanted: Callable[[Any], bool]) -> Sequence[Any]:
        """Returns those items that were not handed over and are wanted, and forgets them. The stream goes on."""
        ...


class SubscriptionContext(Protocol):
    """What a mailbox needs of the place it belongs to."""

    @property
    def valve(self) -> BackpressureGate:
        """What is shut while a mailbox is full."""
        ...

    @property
    def prepare(self) -> Callable[[Any], None]:
        """Called with each item before it is handed over; may raise `WireError`, or another `K2EGError`."""
        ...

    @property
    def discard(self) -> Callable[[WireError, str], None]:
        """Told of an item that could not be prepared, and of which stream."""
        ...

    @property
    def yield_to_requests(self) -> Callable[[], None]:
        """Called when there is more to hand over, so that others can have the processor first."""
        ...

    def leave(self, mailbox: SubscriberQueue[Any]) -> None:
        """Told by a mailbox that has come to its end."""
        ...

    def rest(self) -> None:
        """Told by a mailbox that has handed over all it had."""
        ...

    def count_dropped(self, count: int) -> None:
        """Told how many items were dropped."""
        ...


class SubscriberQueue(Generic[_T]):
    """One subscriber's items on their way.

    All state belongs to the lock, but the observer, which only the one drain at a time touches.

    Attributes:
        execute: Has a task run where the subscriber is called.
        newest_only: Whether its subscriber wants the newest item of each name.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[_T],
        execute: Callable[[Task], None],
        execute_rest: Callable[[Task], None],
        office: SubscriptionContext,
        label: str,
        *,
        overflow: Overflow,
        capacity: int,
    ) -> None:
        self._observer = observer
        self.execute = execute
        self._execute_rest = execute_rest
        self._office = office
        self._label = label
        self._lock = threading.Lock()
        self._buffer: Buffer[_T] = buffer_for(overflow, capacity)
        self.newest_only = overflow is Overflow.LATEST
        self._high = capacity if overflow is Overflow.BLOCK else None
        self._low = capacity // 2
        self._shut = False
        self._scheduled = False
        self._ended = False
        self._error: Exception | None = None
        self._disposed = False
        self._drainer: int | None = None  # the thread at it, if any; written by that thread while it is
        # What it has taken, the next one last. Anybody may take of it, by atomic operations.
        self._in_hand: list[_T] = []

    def count_conflated(self, count: int) -> None:
        """Counts items that were dropped before they were queued."""
        self._office.count_dropped(count)

    def offer(self, items: Sequence[_T]) -> None:
        """Queues items; drops by the subscriber's policy, never blocks."""
        with self._lock:
            if self._disposed or self._ended:
                return
            dropped = self._buffer.add(items)
            if self._high is not None and not self._shut and len(self._buffer) >= self._high:
                self._shut = True
                self._office.valve.shut()
            start = self._start()
        if dropped:
            self._office.count_dropped(dropped)
        if start:
            self._run_soon(self.execute)

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after what is queued."""
        with self._lock:
            if self._disposed or self._ended:
                return
            self._ended = True
            self._error = error
            start = self._start()
        if start:
            self._run_soon(self.execute)

    def dispose(self) -> None:
        """Forgets what is queued; no more is handed over, but for an item under way."""
        self.cancel_and_drain()

    def cancel_and_drain(self) -> list[_T]:
        """Ends it here and now; returns what was not handed over."""
        with self._lock:
            if self._disposed:
                return []
            self._disposed = True
            left = [*reversed(self._in_hand), *self._buffer.take(len(self._buffer))]
            shut, self._shut = self._shut, False
        if shut:
            self._office.valve.release()
        self._office.leave(self)
        return left

    def reclaim_undelivered(self, is_wanted: Callable[[_T], bool]) -> list[_T]:
        """Returns those items that were not handed over and are wanted, and forgets them."""
        with self._lock:
            waiting: deque[_T] = deque()
            with contextlib.suppress(IndexError):  # who is at it goes on with what is put back, once the lock is free
                while True:
                    waiting.appendleft(self._in_hand.pop(0))
            waiting.extend(self._buffer.take(len(self._buffer)))
            recalled = [item for item in waiting if is_wanted(item)]
            dropped = self._buffer.add(item for item in waiting if not is_wanted(item))
            room = self._shut and len(self._buffer) <= self._low
            self._shut = self._shut and not room
        if room:
            self._office.valve.release()
        if dropped:
            self._office.count_dropped(dropped)
        return recalled

    def is_drained_here(self) -> bool:
        """Whether the caller's thread is at it."""
        return self._drainer == threading.get_ident()

    def is_idle(self) -> bool:
        """Whether nothing is queued and nobody is at it, but perhaps the caller."""
        with self._lock:
            return not self._scheduled or self.is_drained_here()

    def _run_soon(self, execute: Callable[[Task], None]) -> None:
        try:
            execute(self._drain)
        except Exception:  # the subscriber's own scheduler is gone
            _log.debug("the scheduler of a subscriber to %s takes no more work", self._label, exc_info=True)
            self.dispose()

    def _start(self) -> bool:
        if self._scheduled:
            return False
        self._scheduled = True
        return True

    def _take(self) -> tuple[list[_T], bool]:
        """Returns the next items, and whether the end is to be told instead; with neither, gives up the turn."""
        with self._lock:
            items = self._buffer.take(_SLICE)
            room = self._shut and len(self._buffer) <= self._low
            if room:
                self._shut = False
            ends = not items and self._ended and not self._disposed
            if not items:
                self._drainer = None
                self._scheduled = ends
        if room:
            self._office.valve.release()
        return items, ends

    def _drain(self) -> None:
        self._drainer = threading.get_ident()
        for _ in range(_TURNS):
            items, ends = self._take()
            if not items:  # from here on another thread may be at it
                if ends:
                    self._tell_end()
                else:
                    self._office.rest()
                return
            whole = len(items) == _SLICE
            self._hand_over(items)
            if whole:
                self._office.yield_to_requests()
        self._drainer = None
        self._run_soon(self._execute_rest)  # at the end of the line: the others have their turn first

    def _hand_over(self, items: list[_T]) -> None:
        """Hands items over, and empties the list: each is let go of at once, since what was decoded of one is fresh in
        the processor's cache and its memory will do for the next."""
        prepare, on_next = self._office.prepare, self._observer.on_next
        items.reverse()
        self._in_hand = items
        while not self._disposed:
            try:
                item = items.pop()
            except IndexError:  # that was all; or the rest was recalled
                return
            try:
                prepare(item)
            except WireError as error:
                self._office.discard(error, self._label)
                continue
            except K2EGError as error:
                self._fail(error)
                return
            try:
                on_next(item)
            except BaseException as error:
                _log.exception("a subscriber to %s raised; its subscription ends", getattr(item, "name", self._label))
                self._fail(_contained(error))
                return

    def _fail(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except BaseException as unhandled:
            if unhandled is not error:  # reactivex raises the error itself where no on_error was given
                _log.exception("the error handler of a subscriber to %s raised", self._label)
            else:
                _log.error("%s failed, and its subscriber has no on_error: %s", self._label, error)
        self.dispose()

    def _tell_end(self) -> None:
        if self._error is not None:
            self._fail(self._error)
            return
        try:
            self._observer.on_completed()
        except BaseException:
            _log.exception("a subscriber to %s raised at its completion", self._label)
        self.dispose()
