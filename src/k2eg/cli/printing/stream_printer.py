"""Prints a stream's items until it ends, and reports lost connections meanwhile.

Thread safety: the client's worker threads deliver items and statuses; the command's thread waits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from k2eg.cli.output import print_note
from k2eg_rx import ConnectionState, Status
from k2eg_rx.concurrency import wait_interruptibly


class StreamPrinter:
    """Prints items until the stream, the item count, an error or Ctrl-C ends it.

    Args:
        show: Prints an item.
        count: Number of items after which to end; None for no limit.
        counts: Returns whether an item is one of them.
    """

    def __init__(
        self, show: Callable[[Any], None], count: int | None, counts: Callable[[Any], bool] = lambda _: True
    ) -> None:
        self._show = show
        self._counts = counts
        self._left = count
        self._error: Exception | None = None
        self._ended = threading.Event()

    def on_next(self, item: Any) -> None:
        """Prints an item. One thread at a time."""
        if self._ended.is_set():
            return
        try:
            self._show(item)
        except Exception as error:  # for example a closed pipe; the command's thread reports it
            self.end(error)
            return
        if self._left is not None and self._counts(item):
            self._left -= 1
            if self._left == 0:
                self.end()

    def end(self, error: Exception | None = None) -> None:
        """Ends printing, successfully or with an error; the first call counts. Any thread."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end; returns whether it came in time.

        Raises:
            Exception: The error that ended it.
        """
        ended = wait_interruptibly(self._ended.wait, math.inf if seconds is None else seconds)
        if self._error is not None:
            raise self._error
        return ended


class ConnectionReporter:
    """Prints a note when the connection to the broker, or a PV's to the gateway, is lost and when it is back.

    Args:
        of_pvs: Whether to print notes about PVs.
    """

    def __init__(self, *, of_pvs: bool = True) -> None:
        self._of_pvs = of_pvs
        self._down = False
        self._disconnected: dict[str, None] = {}

    def on_status(self, status: Status) -> None:
        """Takes the client's status."""
        if status.connection is ConnectionState.DOWN and not self._down:
            self._down = True
            print_note(status.reason or "the connection to the broker is lost")
        elif status.connection is ConnectionState.UP and self._down:
            self._down = False
            print_note("the connection to the broker is back")
        if not self._of_pvs:
            return
        before, self._disconnected = self._disconnected, dict.fromkeys(status.disconnected)
        for uri in self._disconnected:
            if uri not in before:
                print_note(f"{uri} is disconnected: its last value may be old")
        for uri in before:
            if uri not in self._disconnected:
                print_note(f"{uri} is connected again")
