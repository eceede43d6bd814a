"""A valve of its own for a mailbox that is filled by its own reader, until the event pump fills it.

In: a mailbox that is full, and has room again. Out: the same to that reader alone; once joined, to the common valve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from k2eg_rx.delivery.subscriber_queue import BackpressureGate


class ReplayGate(BackpressureGate):
    """The valve of one mailbox. While it stands alone, its being full keeps nobody else waiting.

    All state belongs to the lock. Who fills the mailbox sets `on_open`, called on the thread that made room.

    Args:
        common: The valve that the event pump heeds.
    """

    def __init__(self, common: BackpressureGate) -> None:
        self._lock = threading.Lock()
        self._common = common
        self._full = 0
        self._joined = False
        self.on_open: Callable[[], None] = lambda: None

    def shut(self) -> None:
        """The mailbox is full."""
        with self._lock:
            self._full += 1
            if self._joined:
                self._common.shut()

    def release(self) -> None:
        """The mailbox has room again."""
        with self._lock:
            self._full -= 1
            joined, opened = self._joined, self._full == 0
        if joined:
            self._common.release()
        elif opened:
            self.on_open()

    def join(self) -> None:
        """From now on the event pump waits for this mailbox as for all others. Idempotent."""
        with self._lock:
            if not self._joined:
                self._joined = True
                for _ in range(self._full):
                    self._common.shut()
