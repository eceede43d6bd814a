"""Counts undecodable records; rejects oversized ones.

Thread safety: `DecodeErrorCounter` any thread; `SizeFilter` is called on a poll thread.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import Record
from k2eg_rx.texts import get_logger
from k2eg_rx.transport.interfaces import Receiver

_log = get_logger(__name__)


class DecodeErrorCounter:
    """Counts skipped records by kind and source; logs the first of each. All state belongs to the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, error: WireError, source: str) -> None:
        """Counts a skipped record of a topic or a stream."""
        with self._lock:
            self._counts[error.kind, source] += 1
            first = self._counts[error.kind, source] == 1
        if first:
            _log.warning(
                "skipped a record: source=%s error=%s; further ones of the kind are only counted", source, error
            )

    @property
    def total(self) -> int:
        """The number of skipped records."""
        with self._lock:
            return self._counts.total()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Returns the counts by (kind, source)."""
        with self._lock:
            return dict(self._counts)


_value_of = itemgetter(Record._fields.index("value"))


def _largest(records: Sequence[Record]) -> float:
    """Returns the size of the largest value; infinite if there are tombstones, so that each is looked at."""
    try:
        return max(map(len, map(_value_of, records)), default=0)
    except TypeError:
        return math.inf


class SizeFilter:
    """A receiver that drops and counts oversized records, so that they are neither decoded nor kept. No state.

    A conflation filter must apply the limit itself: an oversized record must not replace the ones before it.

    Args:
        receiver: Takes the other records.
        limit: The largest size of a value, in bytes.
        decode_errors: Counts the oversized records.
    """

    def __init__(self, receiver: Receiver, limit: int, decode_errors: DecodeErrorCounter) -> None:
        self.judges_age = receiver.judges_age
        self.ready = receiver.ready
        self.commit_first = receiver.commit_first
        self.reclaim_undelivered = receiver.reclaim_undelivered
        self.on_revoked = receiver.on_revoked
        self.collect_inline = receiver.collect_inline
        self.prefer_small_batches = receiver.prefer_small_batches
        self.conflation_filter = receiver.conflation_filter
        self._receiver = receiver
        self._limit = limit
        self._decode_errors = decode_errors

    def receive(self, records: Sequence[Record]) -> None:
        """Takes a batch; see `Receiver.receive`."""
        if _largest(records) <= self._limit:
            self._receiver.receive(records)
            return
        accepted: list[Record] = []
        for record in records:
            size = len(record.value or b"")
            if size <= self._limit:
                accepted.append(record)
            else:
                self._decode_errors.add(oversized(size, self._limit), record.topic)
        if accepted:
            self._receiver.receive(accepted)


def oversized(size: int, limit: int) -> WireError:
    """Returns the error of a record whose value is too large."""
    return WireError("size", f"record value must have at most {limit} bytes (setting max_message_bytes), got {size}")
