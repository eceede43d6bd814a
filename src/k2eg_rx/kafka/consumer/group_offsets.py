"""Where a group has to start in partitions that it has not read before.

In: for each topic that a member takes part in, where it was to be read from, fixed when that was asked for. Out:
commits of those offsets, before the member takes part; and where a partition is begun. All on the pump's thread.

The first member that asks for a topic has the start committed, for whichever member gets the partitions. Several that
ask at about the same time may have found it at different offsets: then the lowest counts, until somebody has read on.
It is told apart by the metadata of the commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from k2eg_rx.kafka.consumer.lag import Partition

_log = logging.getLogger(__name__)

# How a commit fails while the group rebalances. The second: Kafka answers a member's requests one after the other, so a
# commit that follows a request to join waits until all have joined, and is then of a generation that is over.
REBALANCE_ERRORS = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})

COMMITTED_TIMEOUT = 5.0  # seconds; the whole group waits for a member that takes over a partition
PATIENCE = 10.0  # seconds that a rebalance may keep a topic's start from being committed
# Seconds in which a member that has waited for a topic to appear may say that the group has to begin at its beginning:
# it looks for the topic once a second, while one that starts later finds it at once, with its first records in it.
GRACE = 1.2
RETRY = 0.1  # seconds between looks then
_START = "start"  # the metadata of a start that was committed, while nobody has read on from there

Commit = Callable[[Consumer, Iterable[tuple[Partition, int]], str], KafkaError | None]


def partition_of(partition: TopicPartition) -> Partition:
    """Returns which one it is."""
    return partition.topic, partition.partition


class InitialOffsets:
    """The starts of one member.

    Args:
        commit: Commits offsets with their metadata; returns what was in the way, if something was.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._offsets: dict[Partition, int] = {}
        self._uncommitted: dict[Partition, int] = {}  # those that the group has not been told of yet
        self._since: float | None = None  # when that was first tried, by the monotonic clock
        self._next_try = 0.0  # when to try again

    def add(self, offsets: Mapping[Partition, int]) -> None:
        """Takes the starts of a topic."""
        self._offsets.update(offsets)
        self._uncommitted.update(offsets)

    def drop(self, topic: str) -> None:
        """Forgets a topic."""
        for offsets in (self._offsets, self._uncommitted):
            for key in [key for key in offsets if key[0] == topic]:
                del offsets[key]

    def ready_to_join(self, consumer: Consumer, *, joining: bool) -> bool:
        """Tells the group of new starts, if it is time to; whether to go on and take part in their topics.

        Args:
            consumer: The member's.
            joining: Whether it waits for the group's next generation.
        """
        if not self._uncommitted:
            self._since = None
            return True
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if waited < PATIENCE:
            if joining or now < self._next_try:
                return False
            if not self.commit(consumer, may_wait=waited < GRACE):
                self._next_try = now + RETRY
                return False
        self._uncommitted.clear()
        self._since = None
        return True

    def commit(self, consumer: Consumer, *, may_wait: bool = False) -> bool:
        """Commits new starts of partitions that the group has not read before; whether there is no point in a next try.

        Only a member may commit, once there are some; for one that is none yet it is done when it gets the partition.

        Args:
            consumer: The member's.
            has_time: Whether a start within a topic may wait for another member's at its beginning.
        """
        uncommitted = self._uncommitted
        if not uncommitted:
            return True
        try:
            asked = [TopicPartition(*key) for key in uncommitted]
            known = consumer.committed(asked, timeout=COMMITTED_TIMEOUT)
        except KafkaException as failure:
            _log.debug("the start is committed when a partition is assigned: %s", failure)
            return True
        unread = {partition_of(partition) for partition in known if partition.error is None and partition.offset < 0}
        if may_wait and any(uncommitted[key] > 0 for key in unread):
            return False
        lower = {partition_of(p) for p in known if p.metadata == _START and p.offset > uncommitted[partition_of(p)]}
        failure = self._commit(consumer, [(key, uncommitted[key]) for key in unread | lower], _START)
        return failure is None or failure.code() not in REBALANCE_ERRORS

    def start_offset(self, committed: TopicPartition) -> int:
        """Returns where the group is in a partition, or where it has to start."""
        offset = self.get(partition_of(committed))
        if committed.offset < 0:
            return offset or 0
        return committed.offset if offset is None or committed.metadata != _START else min(offset, committed.offset)

    def get(self, partition: Partition) -> int | None:
        """Returns where this member was to start in a partition, if it is known."""
        return self._offsets.get(partition)
