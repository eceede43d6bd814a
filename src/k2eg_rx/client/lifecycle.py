"""A client's lifecycle: open, closing, closed; unusable after a fork.

Thread safety: any thread. State changes hold the lock; reads need none.
"""

from __future__ import annotations

import os
import threading
from enum import Enum

from k2eg_rx.errors import ClientClosedError, ForkError


class LifecycleState(Enum):
    """The state of a client."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Lifecycle:
    """The lifecycle of one client, which starts open."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._state = LifecycleState.OPEN
        self._closed = threading.Event()

    def is_forked(self) -> bool:
        """Returns whether this is a forked child, which has none of the client's threads."""
        return os.getpid() != self._process

    @property
    def is_open(self) -> bool:
        """Whether `close` has not begun."""
        return self._state is LifecycleState.OPEN

    def require_open(self) -> None:
        """Returns if the client is open.

        Raises:
            ForkError: This is a forked child.
            ClientClosedError: The client is closing or closed.
        """
        if self.is_forked():
            raise ForkError("this client was made before a fork; the child has none of its threads: make another one")
        if not self.is_open:
            raise ClientClosedError("the client is closed")

    def begin_close(self) -> bool:
        """Returns True for the first call, whose caller has to close the client and call `end_close`."""
        with self._lock:
            first = self._state is LifecycleState.OPEN
            if first:
                self._state = LifecycleState.CLOSING
        return first

    def end_close(self) -> None:
        """Sets the state to closed."""
        self._state = LifecycleState.CLOSED
        self._closed.set()

    def wait_closed(self, timeout: float) -> None:
        """Blocks until the client is closed, for at most `timeout` seconds."""
        self._closed.wait(timeout)
