"""Bounded queue of updates from EPICS threads to the event loop thread.

EPICS can produce updates faster than Kafka accepts them for longer than memory lasts. While the queue is full, a PV
with more than one waiting update loses its oldest one for each new one; losses are counted and logged. So a PV's latest
value is never lost, and a slow PV loses nothing because of a fast one.

Thread safety: EPICS threads enqueue and never block; a lock guards the queues. The thread whose update finds the queue
empty wakes the event loop. The others rely on it, so the event loop looks once a second whether that has happened: any
thread may be held up for long, where it collects garbage, by the end of an object of a C library.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_later, call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.protocol import Structure
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_BATCH = 500  # updates per turn of the event loop, about 10 ms of work; commands and timers run in between
_STRUCTURE_BYTES = 2000  # memory of a scalar PV's structure, roughly
_SCALARS = (float, int, str)


def size_of(structure: Structure) -> int:
    """Returns the approximate memory of a structure: arrays are in `value`, or one level below in tables and images."""
    value: Any = structure.get("value")
    if isinstance(value, _SCALARS):
        return _STRUCTURE_BYTES
    parts = cast("dict[str, Any]", value).values() if isinstance(value, dict) else (value,)
    return _STRUCTURE_BYTES + sum(getattr(part, "nbytes", 0) for part in parts)


class UpdateSource:
    """One PV's input to the update queue.

    Args:
        queue: The queue.
        on_update: Called with each update on the event loop thread.
        on_disconnect: Called on the event loop thread when the PV disconnects, in order with its updates.
    """

    def __init__(
        self, queue: UpdateQueue, on_update: Callable[[Structure], None], on_disconnect: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._on_update = on_update
        self._on_disconnect = on_disconnect
        self.waiting: deque[tuple[Structure | None, int]] = deque()  # guarded by the queue's lock

    def put(self, structure: Structure) -> None:
        """Enqueues an update. Any thread; never blocks."""
        self._queue.add(self, structure, size_of(structure))

    def disconnected(self) -> None:
        """Enqueues a disconnection. Any thread; never blocks."""
        self._queue.add(self, None, 0)

    def deliver(self, structure: Structure | None) -> None:
        """Calls `on_update`, or `on_disconnect` for None. Called on the event loop thread."""
        if structure is None:
            self._on_disconnect()
        else:
            self._on_update(structure)


class UpdateQueue:
    """Delivers the updates of all PVs on the event loop thread, in the order of their arrival.

    Args:
        context: Scheduler, metrics and options.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._scheduler = context.scheduler
        self._limit = context.options.update_buffer
        self._metrics = context.metrics
        self._probe = context.metrics.latency
        self._dropped = RateLimitedWarning(_log, "{} EPICS updates dropped: the update queue is full")
        self._lock = threading.Lock()
        self._order: deque[UpdateSource] = deque()  # one entry per waiting update
        self._bytes = 0
        self._scheduled = False
        self._waker = 0  # the thread that was to wake the event loop last
        self._overdue = RateLimitedWarning(_log, "the event loop was not woken for EPICS updates {} times")
        self._pace = context.update_pace
        self._delivered = context.scheduler.now - self._pace  # time of the last delivery
        self._left_since: datetime | None = None  # that of the last look, if updates were waiting

    @property
    def waiting(self) -> int:
        """The number of updates that wait. Any thread."""
        return len(self._order)

    @property
    def waiting_bytes(self) -> int:
        """Their approximate memory. Any thread."""
        return self._bytes

    def add(self, source: UpdateSource, structure: Structure | None, size: int) -> None:
        """Enqueues an update of `size` bytes, or a disconnection (None)."""
        with self._lock:
            source.waiting.append((structure, size))
            self._bytes += size
            if self._probe.idle and structure is not None:
                self._probe.begin(structure)
            if self._bytes > self._limit and len(source.waiting) > 1:
                dropped, size = source.waiting.popleft()
                self._bytes -= size
                if dropped is self._probe.update:
                    self._probe.end(confirmed=False)
                self._metrics.dropped_updates += 1
                self._dropped.count()
            else:
                self._order.append(source)
            wake, self._scheduled = not self._scheduled, True
            if wake:
                self._waker = threading.get_ident()
        if wake:
            self._wake()

    def _wake(self) -> None:
        now = self._scheduler.now
        due = max(now, self._delivered + self._pace)
        call_later(self._scheduler, (due - now).total_seconds(), self._drain)

    def check(self) -> None:
        """Delivers updates that were waiting at the last call and are still: no thread has woken the event loop.

        Called on its thread, from time to time.
        """
        if self._order and self._delivered == self._left_since:
            frame = sys._current_frames().get(self._waker)  # pyright: ignore[reportPrivateUsage]
            place = "its end" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
            self._overdue.count(f"waiting={len(self._order)} thread={self._waker} at={place}")
            self._drain()
        self._left_since = self._delivered if self._order else None

    def _take_batch(self) -> list[tuple[UpdateSource, Structure | None]]:
        batch: list[tuple[UpdateSource, Structure | None]] = []
        with self._lock:
            for _ in range(min(_BATCH, len(self._order))):
                source = self._order.popleft()
                structure, size = source.waiting.popleft()
                self._bytes -= size
                batch.append((source, structure))
        return batch

    def _drain(self) -> None:
        self._delivered = self._scheduler.now
        for source, structure in self._take_batch():
            followed = structure is self._probe.update
            self._probe.passing = followed
            try:
                source.deliver(structure)
            except Exception:
                _log.exception("handling an EPICS update failed")
                self._metrics.failures += 1
            if followed:
                self._probe.passed()
        with self._lock:
            again = self._scheduled = bool(self._order)
        if again:
            call_soon(self._scheduler, self._drain)
