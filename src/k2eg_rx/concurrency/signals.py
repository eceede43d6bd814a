"""Turns Ctrl-C, SIGTERM and SIGHUP into an event to wait for, so that a program stops its parts in order.

Thread safety: main thread, where Python runs signal handlers. On another one nothing is handled, and `wait` only waits.
"""

from __future__ import annotations

import select
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

# SIGHUP: the terminal was closed; Windows has no such signal.
_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminationSignals:
    """Handles the signals that end a program, from `__enter__` to `__exit__`.

    The first signal raises KeyboardInterrupt unless `defer` was called before. Otherwise signals only end `wait`, so
    that a second Ctrl-C cannot interrupt the shutdown. A SIGHUP that is ignored stays so: the program runs in nohup.

    Attributes:
        received: The first signal; None before it.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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
        del frame
        self.received = self.received or signal.Signals(number)
        with suppress(BlockingIOError):  # the buffer is full of signals: one is enough
            self._sender.send(b".")
        if not self._deferred:
            self._deferred = True
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._receiver.close()
        self._sender.close()
