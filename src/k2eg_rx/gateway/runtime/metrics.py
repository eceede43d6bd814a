"""Counts of what a gateway does and loses, and rate-limited warnings about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

_LOG_PERIOD = 60.0  # seconds between two lines of one warning, so that a long outage does not flood the log

_LOSSES = ("dropped_updates", "dropped_samples", "dropped_records", "undelivered")


@dataclass(slots=True)
class Metrics:
    """Counts since the gateway was created.

    Thread safety: readable on any thread. The event loop thread writes all figures but `dropped_updates` (under the
    update queue's lock) and `undelivered` (the producer's thread).

    Attributes:
        commands: Records read from the command topic.
        published: Records passed to the Kafka producer, replies and events alike.
        refused: Commands answered with an error instead of being carried out.
        poison: Commands that cannot be answered: unreadable, too large, or without a reply topic or reply id.
        failures: Unexpected exceptions; each one is logged.
        unencodable: Values that cannot be serialized.
        oversized: Records that are too large for Kafka.
        unreadable: EPICS updates that could not be read; the first one of each PV is logged.
        dropped_updates: EPICS updates discarded because the update queue was full.
        dropped_samples: Values discarded because a recurring snapshot's buffer was full.
        dropped_records: Records discarded because no more may wait for Kafka, or the producer refused them.
        undelivered: Records that Kafka refused, or did not confirm in an outage.
        pvs_connected: Subscribed PVs that are connected and have a value; now, as the two below.
        pvs_disconnected: Subscribed PVs that have lost their connection.
        pvs_never_connected: Subscribed PVs that have not had a value since their subscription.
    """

    commands: int = 0
    published: int = 0
    refused: int = 0
    poison: int = 0
    failures: int = 0
    unencodable: int = 0
    oversized: int = 0
    unreadable: int = 0
    dropped_updates: int = 0
    dropped_samples: int = 0
    dropped_records: int = 0
    undelivered: int = 0
    pvs_connected: int = 0
    pvs_disconnected: int = 0
    pvs_never_connected: int = 0

    @property
    def dropped(self) -> int:
        """The sum of all `dropped_*` figures."""
        return self.dropped_updates + self.dropped_samples + self.dropped_records

    def losses(self) -> dict[str, int]:
        """Returns the figures that count what was lost between EPICS and Kafka, by name."""
        return {name: getattr(self, name) for name in _LOSSES}

    def as_dict(self) -> dict[str, int]:
        """Returns the figures by name."""
        return asdict(self)


class RateLimitedWarning:
    """Logs the first occurrence of a problem at once, then one line per minute with the number of occurrences.

    Thread safety: not thread-safe; callers hold a lock or use one thread.

    Args:
        log: The logger.
        text: The log line; ``{}`` becomes the number of occurrences since the last line.
        clock: Returns seconds.
    """

    def __init__(self, log: logging.Logger, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._text = text
        self._clock = clock
        self._occurrences = 0
        self._next_line = -_LOG_PERIOD

    def count(self, detail: object = "") -> None:
        """Counts an occurrence, and logs a line if one is due."""
        self._occurrences += 1
        now = self._clock()
        if now >= self._next_line:
            self._log.warning("%s%s", self._text.format(self._occurrences), f": {detail}" if str(detail) else "")
            self._occurrences, self._next_line = 0, now + _LOG_PERIOD
