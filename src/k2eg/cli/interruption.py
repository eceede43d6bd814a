"""Ctrl-C and SIGTERM as something to wait for, so that what has been started is stopped in order.

In: signals. Out: the end of a wait. Main thread only.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed


class Interruption:
    """Catches the signals that end a program, from `__enter__` to `__exit__`.

    Until `defer` is called they raise KeyboardInterrupt, wherever the program is; from then on they only end `wait`, so
    that no second Ctrl-C can cut the stopping short.
    """

    def __init__(self) -> None:
        # A handler may neither take a lock nor set an Event (which takes one); it may write to a pipe.
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._deferred = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def defer(self) -> None:
        """From now on, signals only end `wait`."""
        self._deferred = True

    def wait(self, seconds: float) -> bool:
        """Waits; returns whether a signal has come."""
        readable, _, _ = select.select([self._read], [], [], seconds)
        return bool(readable)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._deferred:
            raise KeyboardInterrupt
        with suppress(BlockingIOError):  # the pipe is full of signals: one is enough
            os.write(self._write, b".")

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)
