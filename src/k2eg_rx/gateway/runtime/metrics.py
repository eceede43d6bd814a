"""What a gateway has done and what it could not do, in numbers, and the lines in the log about it.

In: increments; each number belongs to one thread, which is named beside it. Out: the numbers, readable on any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

_LOG_PERIOD = 10.0  # seconds between two lines about the same trouble: a flood of it must not become a flood of lines


@dataclass(slots=True)
class Metrics:
    """Counts since the gateway was made.

    Attributes:
        commands: Records of the command topic taken. Gateway thread.
        published: Records handed to Kafka: replies, events. Gateway thread.
        refused: Commands answered with a failure instead of being carried out. Gateway thread.
        poison: Commands that nobody could be told about. Gateway thread.
        failures: Exceptions that were none of the command's business; each is in the log. Gateway thread.
        unencodable: Values that have no form on the wire. Gateway thread.
        dropped_updates: Updates from EPICS that had to make room for newer ones. The inbox's lock.
        dropped_samples: Values that did not fit into a snapshot's buffer. Gateway thread.
        dropped_records: Records that found no room on the way to Kafka. Gateway thread.
        undelivered: Records that Kafka did not take. The sink's thread.
    """

    commands: int = 0
    published: int = 0
    refused: int = 0
    poison: int = 0
    failures: int = 0
    unencodable: int = 0
    dropped_updates: int = 0
    dropped_samples: int = 0
    dropped_records: int = 0
    undelivered: int = 0

    @property
    def dropped(self) -> int:
        """All that was lost for want of room."""
        return self.dropped_updates + self.dropped_samples + self.dropped_records

    def as_dict(self) -> dict[str, int]:
        """Returns the numbers by name."""
        return asdict(self)


class RateLimitedWarning:
    """A line in the log about a trouble that may come by the thousand: the first, then one each 10 s with the number.

    Used on one thread. Call `made` for each case; the text's `{}` is the number of cases since the last line.
    """

    def __init__(self, log: logging.Logger, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._text = text
        self._clock = clock
        self._cases = 0
        self._next = -_LOG_PERIOD

    def made(self, detail: object = "") -> None:
        """Adds a case, and says so if it is time."""
        self._cases += 1
        now = self._clock()
        if now >= self._next:
            self._log.warning("%s%s", self._text.format(self._cases), f": {detail}" if str(detail) else "")
            self._cases, self._next = 0, now + _LOG_PERIOD
