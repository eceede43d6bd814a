"""Turns Ctrl-C and SIGTERM into an event to wait for, so that a program stops its parts in order.

Thread safety: main thread only, where Python runs signal handlers.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

# SIGHUP: the terminal was closed; Windows has no such signal.
_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminationSignals:
    """Handles the signals that end a program, from `__enter__` to `__exit__`.

    A signal raises KeyboardInterrupt until `defer` is called; afterwards it only ends `wait`, so that a second Ctrl-C
    cannot interrupt the shutdown.
    """

    def __init__(self) -> None:
        # A signal handler may not take a lock, which Event.set does, but it may write to a socket. A pair of sockets
        # rather than a pipe: on Windows, select takes sockets only.
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._deferred = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def defer(self) -> None:
        """Makes signals end `wait` instead of raising KeyboardInterrupt."""
        self._deferred = True

    def wait(self, seconds: float) -> bool:
        """Waits; returns whether a signal has arrived."""
        readable, _, _ = select.select([self._receiver], [], [], seconds)
        return bool(readable)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._deferred:
            raise KeyboardInterrupt
        with suppress(BlockingIOError):  # the buffer is full of signals: one is enough
            self._sender.send(b".")

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._receiver.close()
        self._sender.close()
