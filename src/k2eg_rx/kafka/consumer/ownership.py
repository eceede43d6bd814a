"""Proof that received records belong to one member of a consumer group alone.

A commit that the group's coordinator accepts shows two things: the records before the committed offset go to no other
member, and this member's session had not expired. Partitions move to others in two ways only: this member gives them
up, which its poll loop does itself, or its session expires, at the earliest `session.timeout.ms` after the commit was
sent. So the proof holds for a part of that time, also in a process that was frozen meanwhile.

Thread safety: `Ownership.covers` and `Ownership.is_proven` any thread; the rest belongs to the poll thread.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from k2eg_rx.concurrency import elapsed
from k2eg_rx.kafka.consumer.lag import Partition

_SESSION_TIMEOUT_MS = 45_000  # librdkafka's default
# Of the session timeout. The rest is a margin for a coordinator that has not counted the commit as a sign of life: the
# last heartbeat may be a heartbeat interval older.
_VALIDITY = 0.5


class Ownership:
    """The committed offsets of a member, and until when they prove that its records are its own.

    Args:
        properties: The consumer's properties.
    """

    def __init__(self, properties: Mapping[str, object]) -> None:
        self._validity = _VALIDITY * float(str(properties.get("session.timeout.ms", _SESSION_TIMEOUT_MS))) / 1000
        self._until = -math.inf
        self._committed: dict[Partition, int] = {}  # replaced, never changed

    def covers(self, partition: Partition, offset: int) -> bool:
        """Whether a record is this member's alone; False if that is not certain at the moment."""
        return offset < self._committed.get(partition, -1) and elapsed() < self._until

    def is_proven(self) -> bool:
        """Whether the member's session cannot have expired."""
        return elapsed() < self._until

    def extend(self, sent_at: float, committed: Mapping[Partition, int]) -> None:
        """Adds a commit that was accepted.

        Args:
            sent_at: The time before it was sent, by `elapsed`.
            committed: The offsets.
        """
        self._committed = {**self._committed, **committed}
        self._until = sent_at + self._validity

    def drop(self, partitions: Collection[Partition]) -> None:
        """Ends the ownership of partitions."""
        self._committed = {key: offset for key, offset in self._committed.items() if key not in partitions}
