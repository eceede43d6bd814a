"""Backpressure: gates that are closed while a subscriber's queue is full.

Thread safety: any thread; callbacks run on the thread that made room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackpressureGate:
    """Open while no blocking queue is full; the event source polls only while it is open.

    The count belongs to the lock.

    Args:
        on_open: Called when the gate opens.
    """

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._full = 0
        self._on_open = on_open

    def is_open(self) -> bool:
        """Whether no queue is full."""
        return self._full == 0

    def pause(self) -> None:
        """Counts a queue that became full."""
        with self._lock:
            self._full += 1

    def resume(self) -> None:
        """Counts a queue that has room again."""
        with self._lock:
            self._full -= 1
            opened = self._full == 0
        if opened:
            self._on_open()


class ReplayGate(BackpressureGate):
    """The gate of one queue that a history reader fills, until live events do: then it acts on the common gate.

    All state belongs to the lock. The reader sets `on_open`.

    Args:
        common: The gate of the event source.
    """

    def __init__(self, common: BackpressureGate) -> None:
        self._lock = threading.Lock()
        self._common = common
        self._full = 0
        self._joined = False
        self.on_open: Callable[[], None] = lambda: None

    def pause(self) -> None:
        """Counts the queue as full. It may do so again before the last `resume`, which comes without its lock."""
        with self._lock:
            self._full += 1
            if self._joined:
                self._common.pause()

    def resume(self) -> None:
        """Counts the queue as having room."""
        with self._lock:
            self._full -= 1
            joined, opened = self._joined, self._full == 0
        if joined:
            self._common.resume()
        elif opened:
            self.on_open()

    def join(self) -> None:
        """Lets the queue pause the event source from now on, like all others. Idempotent."""
        with self._lock:
            if not self._joined:
                self._joined = True
                for _ in range(self._full):
                    self._common.pause()
