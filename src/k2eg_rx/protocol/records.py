"""A Kafka record as read: topic, partition, offset, key, body, headers.

Thread safety: immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes | str | None]]


class Record(NamedTuple):
    """A Kafka record. A named tuple, because one is created for each event.

    Attributes:
        topic: The topic's name.
        partition: The partition.
        offset: The offset in the partition.
        key: The key, or None.
        value: The body; None for a tombstone.
        headers: The headers in order.
        timestamp_ms: Kafka's time stamp (not EPICS time) in Unix milliseconds; -1 if the record has none.
        is_append_time: Whether Kafka set the time stamp (LogAppendTime); otherwise it is the sender's (CreateTime).
            Recordings do not keep it.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = -1
    is_append_time: bool = False
