"""The account of records that were skipped because they break the wire format.

In: `WireError`s with the topic they came from, from any thread. Out: a count, and one line in the log for each kind
and topic, so that a flood of bad records does not become a flood of log lines.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping

from k2eg_rx.errors import WireError

_log = logging.getLogger(__name__)


class Discards:
    """Counts what was skipped, by kind and source. All state belongs to the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, error: WireError, source: str) -> None:
        """Counts a skipped record of a topic or a stream; logs the first of its kind there."""
        with self._lock:
            self._counts[error.kind, source] += 1
            first = self._counts[error.kind, source] == 1
        if first:
            _log.warning("skipped a record of %s (%s); more of the kind are only counted", source, error)

    @property
    def total(self) -> int:
        """How many records were skipped."""
        with self._lock:
            return self._counts.total()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Returns the counts by (kind, source)."""
        with self._lock:
            return dict(self._counts)
