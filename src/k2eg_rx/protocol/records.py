"""A Kafka record as read: topic, offset, key, body, headers.

Thread safety: immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes | str | None]]


class Record(NamedTuple):
    """One Kafka record, as read. A named tuple because one is made for each event.

    Attributes:
        topic: The topic's name.
        partition: The partition it was read from.
        offset: Its offset there.
        key: The key's bytes, if any.
        value: The body's bytes; None is a tombstone.
        headers: The headers in order.
        timestamp_ms: Kafka's own time stamp, Unix milliseconds; never EPICS time. -1 if there is none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = -1
