"""Turns Ctrl-C, SIGTERM and SIGHUP into an event to wait for, so that a program stops its parts in order.

Thread safety: main thread, where Python runs signal handlers. On another one nothing is handled, and `wait` only waits.
`wait_interruptibly` may be called on any thread.
"""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

# SIGHUP: the terminal was closed; Windows has no such signal.
_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

INTERRUPTION_SECONDS = 0.25  # until a blocked main thread runs Python again, and with it the handlers of signals


def is_main_thread() -> bool:
    """Returns whether this is the thread on which Python runs the handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def wait_interruptibly(wait: Callable[[float], bool], seconds: float) -> bool:
    """Waits by a blocking function, so that Ctrl-C ends the wait on the main thread.

    The kernel gives a signal of the process to any of its threads. If that is not the main thread, this one is not
    woken and would not raise KeyboardInterrupt before the end of its wait; so it waits for a quarter of a second at a
    time.

    Args:
        wait: Waits for some seconds; returns whether that for which it waits has happened.
        seconds: The time to wait; may be infinite.

    Returns:
        Whether it has happened.
    """
    longest = INTERRUPTION_SECONDS if is_main_thread() else threading.TIMEOUT_MAX
    deadline = time.monotonic() + seconds
    while not wait(min(max(seconds, 0.0), longest)):
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return False
    return True


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
        if is_main_thread():
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
