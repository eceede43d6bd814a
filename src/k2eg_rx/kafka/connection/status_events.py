"""Publishes changes of the connection state to listeners, in order.

Thread safety: all methods may be called from any thread; listeners run on the thread ``k2eg-status``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from k2eg_rx.texts import get_logger
from k2eg_rx.transport import ConnectionState, TransportStatus

_log = get_logger(__name__)

Listener = Callable[[TransportStatus], None]


class StatusEvents:
    """Holds the current status and calls listeners on each change. The thread starts with the first listener."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._listeners: list[Listener] = []
        self._calls: queue.SimpleQueue[tuple[Listener, TransportStatus] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def status(self) -> TransportStatus:
        """The current status."""
        return self._status

    def listen(self, listener: Callable[[TransportStatus], None]) -> None:
        """Adds a listener, which is called with the current status and then with each change."""
        with self._lock:
            if self._closed:
                return
            self._listeners.append(listener)
            self._calls.put((listener, self._status))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="k2eg-status", daemon=True)
                self._thread.start()

    def announce(self, status: TransportStatus) -> None:
        """Sets the status; listeners are called only if it differs from the current one."""
        with self._lock:
            if status == self._status or self._closed:
                return
            self._status = status
            for listener in self._listeners:
                self._calls.put((listener, status))

    def close(self, timeout: float) -> None:
        """Delivers pending changes and stops the thread. Idempotent; may be called by a listener."""
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
                _log.exception("status listener raised: listener=%r", listener)
