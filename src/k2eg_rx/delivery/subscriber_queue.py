"""A subscriber's queue: ordered, bounded, and isolated from other subscribers.

Thread safety: items may be offered on any thread, which is never blocked; the observer is called by one thread at a
time, where `execute` runs the queue's tasks.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from reactivex import abc

from k2eg_rx.concurrency import Task
from k2eg_rx.delivery.buffers import Buffer, Overflow, buffer_for
from k2eg_rx.delivery.gates import BackpressureGate
from k2eg_rx.errors import K2EGError, WireError
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)

_SLICE = 64  # items taken under one lock: some 0.3 ms of work, after which the thread yields to requests
_TURNS = 16  # slices delivered before another queue has its turn

_delivery = threading.local()  # `is_behind` of the queue that the thread drains


def source_is_behind() -> Callable[[], bool] | None:
    """Returns the function that tells whether a source is far behind: that of what this thread delivers now, if any."""
    return getattr(_delivery, "is_behind", None)


class SubscriberInput(Protocol[_T_contra]):
    """The side of a queue that its source uses. Any thread; no method blocks."""

    @property
    def newest_only(self) -> bool:
        """Whether only the newest item of each name is wanted, so that the source may drop older ones."""
        ...

    def count_conflated(self, count: int) -> None:
        """Counts items that the source has dropped in favour of newer ones of the same name."""
        ...

    def offer(self, items: Sequence[_T_contra]) -> None:
        """Queues items, in order."""
        ...

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after the queued items, by completion or with an error."""
        ...

    def cancel_and_drain(self) -> Sequence[object]:
        """Ends the stream at once, without a notification; returns the items that were not delivered.

        An item that another thread is delivering at this moment may be among them.
        """
        ...

    def reclaim_undelivered(self, is_wanted: Callable[[Any], bool]) -> Sequence[Any]:
        """Removes and returns the wanted items that were not delivered. The stream goes on."""
        ...


class SubscriptionContext(Protocol):
    """The part of a `Dispatcher` that its queues use."""

    @property
    def prepare(self) -> Callable[[Any], None]:
        """Called with each item before its delivery; may raise `WireError`, or another `K2EGError`."""
        ...

    @property
    def on_decode_error(self) -> Callable[[WireError, str], None]:
        """Called with the error of an item that could not be prepared, and the stream's label."""
        ...

    @property
    def yield_to_requests(self) -> Callable[[], None]:
        """Called between slices of items."""
        ...

    @property
    def is_behind(self) -> Callable[[], bool]:
        """Returns whether many records wait in Kafka, so that a silent PV may have some there. Any thread."""
        ...

    def remove(self, queue: SubscriberQueue[Any]) -> None:
        """Called when a queue has ended."""
        ...

    def on_idle(self) -> None:
        """Called when a queue has delivered all its items."""
        ...

    def count_dropped(self, count: int) -> None:
        """Counts dropped items."""
        ...


class SubscriberQueue(Generic[_T]):
    """The items of one subscriber that are not delivered yet. State belongs to the lock, the observer to the drain.

    Attributes:
        execute: Runs a task where the subscriber is called.
        newest_only: Whether the subscriber wants the newest item of each name only.

    Args:
        observer: The subscriber.
        execute: As above.
        execute_rest: Runs the rest of a drain that has used up its turn, after the drains of other queues.
        context: The dispatcher.
        gate: Paused while the queue is full, with `Overflow.BLOCK`.
        label: The stream's name, for the log.
        overflow: The policy.
        capacity: How many items may be queued.
        make_buffer: Makes the buffer of a policy.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[_T],
        execute: Callable[[Task], None],
        execute_rest: Callable[[Task], None],
        context: SubscriptionContext,
        *,
        gate: BackpressureGate,
        label: str,
        overflow: Overflow,
        capacity: int,
        make_buffer: Callable[[Overflow, int], Buffer[_T]] = buffer_for,
    ) -> None:
        self._observer = observer
        self.execute = execute
        self._execute_rest = execute_rest
        self._context = context
        self._gate = gate
        self._label = label
        self._lock = threading.Lock()
        self._buffer = make_buffer(overflow, capacity)
        self.newest_only = overflow is Overflow.LATEST
        self._high = capacity if overflow is Overflow.BLOCK else None
        self._low = capacity // 2
        self._paused = False
        self._scheduled = False
        self._ended = False
        self._error: Exception | None = None
        self._disposed = False
        self._drainer: int | None = None  # the id of the draining thread, written by that thread
        # The slice in delivery, the next item last. Other threads may remove items, by atomic operations.
        self._slice: list[_T] = []

    def count_conflated(self, count: int) -> None:
        """Counts items that were dropped before they were queued."""
        self._context.count_dropped(count)

    def offer(self, items: Sequence[_T]) -> None:
        """Queues items; drops by the overflow policy, never blocks."""
        with self._lock:
            if self._disposed or self._ended:
                return
            dropped = self._buffer.add(items)
            if self._high is not None and not self._paused and len(self._buffer) >= self._high:
                self._paused = True
                self._gate.pause()
            starts = self._schedule()
        if dropped:
            self._context.count_dropped(dropped)
        if starts:
            self._run_with(self.execute)

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after the queued items."""
        with self._lock:
            if self._disposed or self._ended:
                return
            self._ended = True
            self._error = error
            starts = self._schedule()
        if starts:
            self._run_with(self.execute)

    def dispose(self) -> None:
        """Drops the queued items; none is delivered any more, except one in delivery."""
        self.cancel_and_drain()

    def cancel_and_drain(self) -> list[_T]:
        """Ends the stream at once; returns the items that were not delivered."""
        with self._lock:
            if self._disposed:
                return []
            self._disposed = True
            undelivered = [*reversed(self._slice), *self._buffer.take(len(self._buffer))]
            paused, self._paused = self._paused, False
        if paused:
            self._gate.resume()
        self._context.remove(self)
        return undelivered

    def reclaim_undelivered(self, is_wanted: Callable[[_T], bool]) -> list[_T]:
        """Removes and returns the wanted items that were not delivered."""
        with self._lock:
            undelivered: deque[_T] = deque()
            with contextlib.suppress(IndexError):  # the draining thread goes on with the buffer once the lock is free
                while True:
                    undelivered.appendleft(self._slice.pop(0))
            undelivered.extend(self._buffer.take(len(self._buffer)))
            reclaimed = [item for item in undelivered if is_wanted(item)]
            dropped = self._buffer.add(item for item in undelivered if not is_wanted(item))
            resumes = self._has_room()
        if resumes:
            self._gate.resume()
        if dropped:
            self._context.count_dropped(dropped)
        return reclaimed

    def is_drained_here(self) -> bool:
        """Whether the calling thread is draining the queue."""
        return self._drainer == threading.get_ident()

    def is_idle(self) -> bool:
        """Whether no other thread is to drain the queue."""
        with self._lock:
            return not self._scheduled or self.is_drained_here()

    def _run_with(self, execute: Callable[[Task], None]) -> None:
        try:
            execute(self._drain)
        except Exception:  # the subscriber's own scheduler was closed
            _log.debug("subscription ends, its scheduler takes no work: stream=%s", self._label, exc_info=True)
            self.dispose()

    def _schedule(self) -> bool:
        """Returns whether a drain has to be started. With the lock held."""
        starts, self._scheduled = not self._scheduled, True
        return starts

    def _has_room(self) -> bool:
        """Returns whether the gate has to be resumed, as enough was taken. With the lock held."""
        resumes = self._paused and len(self._buffer) <= self._low
        self._paused = self._paused and not resumes
        return resumes

    def _take(self) -> tuple[list[_T], bool]:
        """Returns the next items, and whether the stream ends instead. If neither, the drain is over."""
        with self._lock:
            items = self._buffer.take(_SLICE)
            resumes = self._has_room()
            ends = not items and self._ended and not self._disposed
            if not items:
                self._drainer = None
                self._scheduled = ends
        if resumes:
            self._gate.resume()
        return items, ends

    def _drain(self) -> None:
        outer = source_is_behind()  # of a subscriber that has caused this drain
        _delivery.is_behind = self._context.is_behind
        try:
            self._drain_turns()
        finally:
            _delivery.is_behind = outer

    def _drain_turns(self) -> None:
        self._drainer = threading.get_ident()
        for _ in range(_TURNS):
            items, ends = self._take()
            if not items:  # from here on another thread may drain
                if ends:
                    self._end()
                else:
                    self._context.on_idle()
                return
            is_full = len(items) == _SLICE
            self._deliver(items)
            if is_full:
                self._context.yield_to_requests()
        self._drainer = None
        self._run_with(self._execute_rest)

    def _deliver(self, items: list[_T]) -> None:
        """Delivers items and releases each at once: its decoded value is in the processor's cache, and the next one is
        decoded into the same memory."""
        prepare, on_next = self._context.prepare, self._observer.on_next
        items.reverse()
        self._slice = items
        while not self._disposed:
            try:
                item = items.pop()
            except IndexError:  # that was all, or the rest was reclaimed
                return
            try:
                prepare(item)
            except WireError as error:
                self._context.on_decode_error(error, self._label)
                continue
            except K2EGError as error:
                self._fail(error)
                return
            try:
                on_next(item)
            except BaseException as error:
                _log.exception("subscription ends, its on_next raised: stream=%s", getattr(item, "name", self._label))
                self._fail(_as_exception(error))
                return

    def _fail(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except BaseException as unhandled:
            if unhandled is not error:  # reactivex raises the error itself where no on_error was given
                _log.exception("on_error of a subscriber raised: stream=%s", self._label)
            else:
                _log.error("stream failed, its subscriber has no on_error: stream=%s error=%s", self._label, error)
        self.dispose()

    def _end(self) -> None:
        if self._error is not None:
            self._fail(self._error)
            return
        try:
            self._observer.on_completed()
        except BaseException:
            _log.exception("on_completed of a subscriber raised: stream=%s", self._label)
        self.dispose()


def _as_exception(error: BaseException) -> Exception:
    """Returns the error for `on_error`. SystemExit and the like would end the thread, perhaps the poll thread."""
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"a subscriber raised {error!r}; it ends its subscription only, not the program")
