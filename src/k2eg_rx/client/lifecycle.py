"""Where a client is in its life, and the process it lives in.

In: the begin and the end of its close, from any thread. Out: an error for whoever uses it outside its life. All state
belongs to the lock; it is read without.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from enum import Enum
from typing import Protocol

from k2eg_rx.errors import ClientClosedError, ForkError


class LifecycleState(Enum):
    """Where a client is in its life."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Lifecycle:
    """The life of one client, from now on."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._lifetime = LifecycleState.OPEN
        self._closed = threading.Event()

    def is_elsewhere(self) -> bool:
        """Whether this is a forked child: the client's threads are the parent's."""
        return os.getpid() != self._process

    def require_open(self) -> None:
        """Raises what a call has to, if any.

        Raises:
            ForkError: This is a forked child.
            ClientClosedError: It is closed, or about to be.
        """
        if self.is_elsewhere():
            raise ForkError(
                "this client was made before a fork, and its threads are the parent's; make one in the child"
            )
        if self._lifetime is not LifecycleState.OPEN:
            raise ClientClosedError("the client is closed")

    def begin_close(self) -> bool:
        """Returns whether the caller is the first to close it, and has to do so."""
        with self._lock:
            first = self._lifetime is LifecycleState.OPEN
            self._lifetime = LifecycleState.CLOSING if first else self._lifetime
        return first

    def end(self) -> None:
        """Told that it is closed."""
        self._lifetime = LifecycleState.CLOSED
        self._closed.set()

    def await_end(self, timeout: float) -> None:
        """Returns when it is closed, after `timeout` seconds at the latest."""
        self._closed.wait(timeout)


class Closable(Protocol):
    """What can be closed."""

    def close(self, timeout: float) -> None:
        """Closes, in at most `timeout` seconds. Idempotent."""
        ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(client: Closable) -> None:
    """Has a client closed when the script ends, if it is still there."""
    _open.add(client)


@atexit.register
def _close_all() -> None:
    """Lets a script end that forgot to close, its members leaving their groups at once instead of by time-out."""
    for client in list(_open):
        client.close(timeout=1.0)
