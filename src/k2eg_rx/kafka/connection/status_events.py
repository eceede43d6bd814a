"""Tells listeners how it stands with the broker, in order, on a thread of its own.

In: states, from any thread. Out: calls of the listeners, on the thread ``k2eg-status``, which starts with the first.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from k2eg_rx.transport import ConnectionState, TransportStatus

_log = logging.getLogger(__name__)

Listener = Callable[[TransportStatus], None]


class StatusEvents:
    """Keeps the present state and announces each change of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._listeners: list[Listener] = []
        self._calls: queue.SimpleQueue[tuple[Listener, TransportStatus] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def status(self) -> TransportStatus:
        """The present state."""
        return self._status

    def listen(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has the listener called with the present state, and then with each change."""
        with self._lock:
            if self._closed:
                return
            self._listeners.append(listener)
            self._calls.put((listener, self._status))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="k2eg-status", daemon=True)
                self._thread.start()

    def announce(self, status: TransportStatus) -> None:
        """Takes a state; the same as before is no news."""
        with self._lock:
            if status == self._status or self._closed:
                return
            self._status = status
            for listener in self._listeners:
                self._calls.put((listener, status))

    def close(self, timeout: float) -> None:
        """Ends it after what is announced already. Idempotent; a listener may call it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            listener, status = call
            try:
                listener(status)
            except Exception:
                _log.exception("a listener to the state of the connection raised")
