"""The newest Kafka record of each PV in a recording, by which a resumed recording goes on without gap or duplicate.

A PV's records are in the order of their offsets. A topic that was deleted and created again begins with low offsets;
its records are younger than all that were recorded.

Thread safety: none; belongs to a recorder, or to the function that reads a recording.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from k2eg_rx.history import Positions
from k2eg_rx.recording.rows import Row
from k2eg_rx.transport import Partition

_Key = tuple[str, int, str]  # topic, partition, PV: several PVs may share a topic


class NewestRecords:
    """Offset and Kafka time stamp of the newest record, by topic, partition and PV."""

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[int, int]] = {}

    def has(self, key: _Key, offset: int, timestamp_ms: int) -> bool:
        """Whether a record was added, or one after it."""
        known = self._known.get(key)
        return known is not None and offset <= known[0] and timestamp_ms <= known[1]

    def add(self, key: _Key, offset: int, timestamp_ms: int) -> None:
        """Adds a record."""
        if not self.has(key, offset, timestamp_ms):
            known = self._known.get(key)
            self._known[key] = (offset, timestamp_ms if known is None else max(timestamp_ms, known[1]))

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Adds the records of a file's rows; those of other items have none."""
        for row in rows:
            if row.topic is not None and row.partition is not None and row.pv is not None and row.offset is not None:
                stamp = -1 if row.kafka_timestamp_ms is None else row.kafka_timestamp_ms
                self.add((row.topic, row.partition, row.pv), row.offset, stamp)

    def encoded(self) -> str:
        """Returns a text for a file's metadata."""
        return json.dumps([[*key, *newest] for key, newest in self._known.items()], separators=(",", ":"))

    def add_encoded(self, text: str) -> None:
        """Adds the records of a file's metadata.

        Raises:
            ValueError: The text is damaged.
        """
        try:
            for topic, partition, pv, offset, timestamp_ms in json.loads(text):
                self.add((str(topic), int(partition), str(pv)), int(offset), int(timestamp_ms))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("positions of the recording must be a JSON list of topics, PVs and offsets") from error

    def positions(self) -> Positions:
        """Returns where to go on in topics: in a shared one behind the PV that is least far."""
        following: dict[Partition, int] = {}
        for (topic, partition, _), (offset, _) in self._known.items():
            following[topic, partition] = min(offset + 1, following.get((topic, partition), offset + 1))
        return Positions(following)
