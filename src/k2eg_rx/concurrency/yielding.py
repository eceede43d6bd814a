"""Lets a get through a flood: who hands over events stands aside for a moment while somebody is at a request.

In: word of requests and replies, on their threads; the question, between slices of items, on workers. Out: now and then
a short sleep. Python runs one thread at a time, and a thread that is busy gives up its turn every 5 ms only
(`sys.getswitchinterval`); a reply that passes three threads would wait that long for each.
"""

from __future__ import annotations

import time

_ASIDE = 0.001  # seconds; a reply passes a dozen threads of client, broker and gateway, which want processors, too
# Seconds from a request or a reply in which its threads need their turns. One that is not answered costs nothing
# after that.
_AFTER = 0.02


class RequestPriority:
    """Whether somebody is at a request. The one figure is written and read whole, by any thread."""

    def __init__(self) -> None:
        self._until = 0.0

    def note(self) -> None:
        """Takes note of a request that is sent, or of a reply."""
        self._until = time.monotonic() + _AFTER

    def is_due(self) -> bool:
        """Whether somebody is at a request."""
        return time.monotonic() < self._until

    def yield_to_requests(self) -> None:
        """Stands aside for a moment, if somebody is at a request."""
        if self.is_due():
            time.sleep(_ASIDE)
