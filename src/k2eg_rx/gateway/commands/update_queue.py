"""The way of updates from EPICS to the gateway's thread.

In: structures, from the threads that EPICS calls back on, which are never held up. Out: calls on the gateway's thread,
in the order of arrival. The queues belong to the lock.

It is bounded, because EPICS can be faster than Kafka for longer than memory lasts. When it is full, a PV that has more
than one update waiting loses its oldest one for each new one; that is counted and in the log. So nothing is merged
silently, a PV's last value is never the one lost, and a slow PV does not pay for a fast one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.protocol import Structure

_log = logging.getLogger(__name__)

_BATCH = 500  # updates at a stretch, some 10 ms of work: commands and timers have their turn in between
_WEIGHT = 2000  # bytes of a scalar PV's structure in memory, roughly
_SCALARS = (float, int, str)


def _weight(structure: Structure) -> int:
    """Roughly what a structure costs: its arrays, which are under `value`, or a level below in tables and images."""
    value: Any = structure.get("value")
    if isinstance(value, _SCALARS):
        return _WEIGHT
    parts = cast("dict[str, Any]", value).values() if isinstance(value, dict) else (value,)
    return _WEIGHT + sum(getattr(part, "nbytes", 0) for part in parts)


class UpdateSource:
    """One PV's place in the inbox.

    Args:
        inbox: Where.
        take: Called with each update, on the gateway's thread.
        lost: Called when the PV's connection is lost, in order with the updates.
    """

    def __init__(self, inbox: UpdateQueue, take: Callable[[Structure], None], lost: Callable[[], None]) -> None:
        self._inbox = inbox
        self.take = take
        self.lost = lost
        self.waiting: deque[tuple[Structure | None, int]] = deque()  # belongs to the inbox's lock

    def put(self, structure: Structure) -> None:
        """Has the gateway's thread take an update. Any thread; never blocks."""
        self._inbox.add(self, structure, _weight(structure))

    def disconnected(self) -> None:
        """Has the gateway's thread learn that the connection is lost. Any thread; never blocks."""
        self._inbox.add(self, None, 0)

    def deliver(self, structure: Structure | None) -> None:
        """Calls what is to be called, on the gateway's thread."""
        if structure is None:
            self.lost()
        else:
            self.take(structure)


class UpdateQueue:
    """What waits for the gateway's thread.

    Args:
        context: The gateway's thread, options and numbers.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._scheduler = context.scheduler
        self._limit = context.options.update_buffer
        self._metrics = context.metrics
        self._warning = RateLimitedWarning(_log, "{} updates from EPICS were dropped: the gateway cannot keep up")
        self._lock = threading.Lock()
        self._turns: deque[UpdateSource] = deque()  # one for each update that waits
        self._weight = 0
        self._scheduled = False

    def add(self, source: UpdateSource, structure: Structure | None, weight: int) -> None:
        """Queues an update of a source, or the loss of its connection (None)."""
        with self._lock:
            source.waiting.append((structure, weight))
            self._weight += weight
            if self._weight > self._limit and len(source.waiting) > 1:
                self._weight -= source.waiting.popleft()[1]
                self._metrics.dropped_updates += 1
                self._warning.count()
            else:
                self._turns.append(source)
            wake, self._scheduled = not self._scheduled, True
        if wake:
            call_soon(self._scheduler, self._drain)

    def _batch(self) -> list[tuple[UpdateSource, Structure | None]]:
        batch: list[tuple[UpdateSource, Structure | None]] = []
        with self._lock:
            for _ in range(min(_BATCH, len(self._turns))):
                source = self._turns.popleft()
                structure, weight = source.waiting.popleft()
                self._weight -= weight
                batch.append((source, structure))
        return batch

    def _drain(self) -> None:
        for source, structure in self._batch():
            try:
                source.deliver(structure)
            except Exception:
                _log.exception("an update from EPICS could not be taken")
                self._metrics.failures += 1
        with self._lock:
            again = self._scheduled = bool(self._turns)
        if again:
            call_soon(self._scheduler, self._drain)
