"""The end of the process: closes what is open, and waits for threads that still end.

A thread that has a Kafka client may need longer to end than its owner can wait. If the process exited meanwhile, the
clean-up of OpenSSL would crash it in a TLS handshake of librdkafka.

Thread safety: functions may be called from any thread; the end runs on the main thread.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from typing import Protocol

_CLOSE_TIMEOUT = 1.0  # seconds for each object that a script left open
_PATIENCE = 10.0  # seconds for all threads that still end; a refused client needs less than 3


class Closable(Protocol):
    """An object with a `close` method."""

    def close(self, timeout: float) -> None:
        """Closes the object within `timeout` seconds. Idempotent."""
        ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_ending: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def close_at_exit(closable: Closable) -> None:
    """Closes an object when the process exits, if it still exists."""
    _open.add(closable)


def await_at_exit(thread: threading.Thread) -> None:
    """Lets the exit of the process wait for a thread that ends by itself soon."""
    _ending.add(thread)


def join(thread: threading.Thread, timeout: float) -> None:
    """Waits for a thread that was asked to end. If it needs longer, the exit of the process waits for it.

    Has no effect on the thread itself, and on one that was not started.
    """
    if thread.ident is None or thread is threading.current_thread():
        return
    thread.join(timeout)
    if thread.is_alive():
        await_at_exit(thread)


@atexit.register
def _end() -> None:
    """Closes clients that a script left open, so that they leave their consumer groups at once, not by session
    timeout; then waits for threads."""
    for closable in list(_open):
        closable.close(timeout=_CLOSE_TIMEOUT)
    deadline = time.monotonic() + _PATIENCE
    for thread in list(_ending):
        thread.join(max(0.0, deadline - time.monotonic()))
