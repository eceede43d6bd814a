"""Listening to something that goes on, until it ends, and telling people what becomes of the connection meanwhile.

In: items and statuses, on the client's worker threads. Out: the end of a wait, on the command's thread; notes on
standard error.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from k2eg_rx import ConnectionState, Status


def note(text: str) -> None:
    """Tells people something that scripts need not read."""
    print(f"k2eg: {text}", file=sys.stderr, flush=True)


class Listening:
    """The end of something that goes on: by number, by an error, or by Ctrl-C.

    Args:
        show: Prints an item.
        count: After how many items to end; None for never.
    """

    def __init__(self, show: Callable[[Any], None], count: int | None) -> None:
        self._show = show
        self._left = count
        self._error: Exception | None = None
        self._ended = threading.Event()

    def item(self, item: Any) -> None:
        """Takes an item. One thread at a time."""
        if self._ended.is_set():
            return
        try:
            self._show(item)
        except Exception as error:  # a closed pipe among them; the command's thread reports it
            self.end(error)
            return
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.end()

    def end(self, error: Exception | None = None) -> None:
        """Ends it. Any thread."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end; returns whether it came in time.

        Raises:
            Exception: What ended it.
        """
        ended = self._ended.wait(seconds)
        if self._error is not None:
            raise self._error
        return ended


class ConnectionNotes:
    """Tells people when the connection to the broker is lost, and when it is back."""

    def __init__(self) -> None:
        self._down = False

    def status(self, status: Status) -> None:
        """Takes the client's status."""
        if status.connection is ConnectionState.DOWN and not self._down:
            self._down = True
            note(status.reason or "the connection to the broker is lost")
        elif status.connection is ConnectionState.UP and self._down:
            self._down = False
            note("the connection to the broker is back")
