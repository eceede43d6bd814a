"""Dispatch threads yield briefly while a request is in flight, so that a reply does not wait for the GIL.

A busy thread gives up the GIL only every 5 ms (`sys.getswitchinterval`), and a reply passes three threads, each of
which would wait that long in a flood of events.
"""

from __future__ import annotations

import time

_YIELD_SECONDS = 0.001  # a reply passes a dozen threads of client, broker and gateway, which need processors too
# Seconds after a request or a reply in which its threads need the GIL. A request without a reply costs nothing after
# that.
_ACTIVE_SECONDS = 0.02


class RequestPriority:
    """Whether a request is in flight. Its one attribute is read and written atomically, by any thread."""

    def __init__(self) -> None:
        self._until = 0.0

    def note(self) -> None:
        """Notes that a request was sent or a reply received."""
        self._until = time.monotonic() + _ACTIVE_SECONDS

    def is_due(self) -> bool:
        """Whether a request is in flight."""
        return time.monotonic() < self._until

    def yield_to_requests(self) -> None:
        """Sleeps for a millisecond if a request is in flight."""
        if self.is_due():
            time.sleep(_YIELD_SECONDS)
