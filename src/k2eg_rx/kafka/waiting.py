"""The records of a sink that librdkafka does not have yet.

Thread safety: all belongs to the lock of the sink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from k2eg_rx.kafka.in_flight import PendingRecord


class WaitingRecords:
    """Records in the order in which they were sent. Those of a topic can be held back while the others go on.

    Attributes:
        count: How many there are, with those held back.
        size: The bytes of their values.
    """

    def __init__(self) -> None:
        self._ready: deque[PendingRecord] = deque()
        self._held: dict[str, deque[PendingRecord]] = {}  # by topic, all older than the ready ones of the topic
        self.count = 0
        self.size = 0

    @property
    def next(self) -> PendingRecord | None:
        """The oldest record that is not held back."""
        return self._ready[0] if self._ready else None

    def add(self, record: PendingRecord) -> None:
        """Adds a record behind all others."""
        self._ready.append(record)
        self._count(record, 1)

    def hold(self, record: PendingRecord) -> None:
        """Adds a record, behind all others of its topic, that is held back until `release`."""
        self._held.setdefault(record.topic, deque()).append(record)
        self._count(record, 1)

    def release(self, topic: str) -> None:
        """Holds the records of a topic back no longer; they are the next ones."""
        self._ready.extendleft(reversed(self._held.pop(topic, ())))

    def take(self) -> PendingRecord | None:
        """Removes and returns the oldest record that is not held back."""
        if not self._ready:
            return None
        record = self._ready.popleft()
        self._count(record, -1)
        return record

    def put_back(self, record: PendingRecord) -> None:
        """Makes the record that was taken the next one again."""
        self._ready.appendleft(record)
        self._count(record, 1)

    def take_while(self, condition: Callable[[PendingRecord], bool]) -> list[PendingRecord]:
        """Removes and returns the oldest records that meet a condition, also of those that are held back."""
        taken: list[PendingRecord] = []
        for records in (*self._held.values(), self._ready):
            while records and condition(records[0]):
                taken.append(records.popleft())
        for record in taken:
            self._count(record, -1)
        return taken

    def _count(self, record: PendingRecord, by: int) -> None:
        self.count += by
        self.size += by * record.size
