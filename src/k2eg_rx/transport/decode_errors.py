"""The account of records that were skipped because they break the wire format, and the door that keeps large ones out.

In: `WireError`s with the topic they came from, from any thread; batches of records, on a pump's thread. Out: a count,
and one line in the log for each kind and topic, so that a flood of bad records does not become a flood of log lines;
the records that are not too large.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import Record
from k2eg_rx.transport.interfaces import Receiver

_log = logging.getLogger(__name__)


class DecodeErrorCounter:
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


_value_of = itemgetter(Record._fields.index("value"))


def _largest(records: Sequence[Record]) -> float:
    """Returns the size of the largest body; infinite if it takes a closer look because there are tombstones."""
    try:
        return max(map(len, map(_value_of, records)), default=0)
    except TypeError:
        return math.inf


class SizeFilter:
    """A receiver that passes on to another one what is not too large, so that nothing else is ever decoded or kept.

    Args:
        receiver: The other one.
        limit: Bytes that a body may have.
        discards: Where the others are counted.
    """

    def __init__(self, receiver: Receiver, limit: int, discards: DecodeErrorCounter) -> None:
        self.ready = receiver.ready
        self.conflation_filter = (
            receiver.conflation_filter
        )  # who has to know the limit: what is too large must not take others' places
        self.gather_work = receiver.gather_work
        self.reclaim_undelivered = receiver.reclaim_undelivered
        self.prefer_small_batches = receiver.prefer_small_batches
        self._receiver = receiver
        self._limit = limit
        self._discards = discards

    def receive(self, records: Sequence[Record]) -> None:
        """Takes a batch; see `Receiver.receive`."""
        limit = self._limit
        if _largest(records) <= limit:
            self._receiver.receive(records)
            return
        fitting = [record for record in records if record.value is None or len(record.value) <= limit]
        if len(fitting) < len(records):
            for record in records:
                if (size := len(record.value or b"")) > limit:
                    text = f"{size} bytes; {limit} are allowed (max_message_bytes in the environment's file)"
                    self._discards.add(WireError("size", text), record.topic)
        if fitting:
            self._receiver.receive(fitting)
