"""Reads past records of the in-memory broker.

Thread safety: one thread at a time; the broker's lock guards all state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k2eg_rx.testing.memory_broker import MemoryBroker
from k2eg_rx.transport import Excerpt, Partition, Record, Span

_MAX_BATCH = 500  # as over Kafka


class MemoryHistory:
    """Reads past records of topics; a `History`.

    Args:
        broker: The broker.
        topics: The topics.
    """

    def __init__(self, broker: MemoryBroker, topics: Sequence[str]) -> None:
        self._broker = broker
        self._topics = list(dict.fromkeys(topics))

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> Mapping[Partition, Span] | None:
        """Returns the offsets of the records of a time interval; see `History.locate`."""
        with self._broker.changed:
            if not self._broker.changed.wait_for(lambda: self._broker.is_up, timeout):
                return None
            spans: dict[Partition, Span] = {}
            for name in self._topics:
                topic = self._broker.topic(name)
                for number, records in enumerate(topic.partitions if topic is not None else ()):
                    start = _first_at(records, start_ms)
                    stop = len(records) if stop_ms is None else _first_at(records, stop_ms)
                    spans[name, number] = Span(start, max(start, stop))
            return spans

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        """Returns a batch of records of partitions; see `History.read`."""
        with self._broker.changed:
            if not self._broker.changed.wait_for(lambda: self._broker.is_up, timeout):
                return Excerpt((), {})
            excerpt = self._take(wanted)
            if not excerpt.records and not excerpt.ends:
                self._broker.changed.wait(timeout)
            return excerpt

    def _take(self, wanted: Mapping[Partition, int]) -> Excerpt:
        found: list[Record] = []
        ends: dict[Partition, int] = {}
        for (name, number), offset in wanted.items():
            topic = self._broker.topic(name)
            records = topic.partitions[number] if topic is not None and number < len(topic.partitions) else []
            start = offset if offset <= len(records) else 0
            found.extend(records[start : start + _MAX_BATCH])
            if start + _MAX_BATCH >= len(records):
                ends[name, number] = len(records)
        return Excerpt(found, ends)

    def close(self) -> None:
        """Does nothing."""


def _first_at(records: Sequence[Record], time_ms: int) -> int:
    """Returns the offset of the first record at or after a time, or the end."""
    return next((record.offset for record in records if record.timestamp_ms >= time_ms), len(records))
