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
OF_A_REBALANCE = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})

COMMITTED_TIMEOUT = 5.0  # seconds; the whole group waits for a member that takes over a partition
PATIENCE = 10.0  # seconds that a rebalance may keep a topic's start from being committed
# Seconds in which a member that has waited for a topic to appear may say that the group has to begin at its beginning:
# it looks for the topic once a second, while one that starts later finds it at once, with its first records in it.
GRACE = 1.2
AGAIN = 0.1  # seconds between looks then
_START = "start"  # the metadata of a start that was committed, while nobody has read on from there

Commit = Callable[[Consumer, Iterable[tuple[Partition, int]], str], KafkaError | None]


def key_of(partition: TopicPartition) -> Partition:
    """Returns which one it is."""
    return partition.topic, partition.partition


class InitialOffsets:
    """The starts of one member.

    Args:
        commit: Commits offsets with their metadata; returns what was in the way, if something was.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._pins: dict[Partition, int] = {}
        self._untold: dict[Partition, int] = {}  # those that the group has not been told of yet
        self._since: float | None = None  # when that was first tried, by the monotonic clock
        self._next = 0.0  # when to try again

    def add(self, pins: Mapping[Partition, int]) -> None:
        """Takes the starts of a topic."""
        self._pins.update(pins)
        self._untold.update(pins)

    def drop(self, topic: str) -> None:
        """Forgets a topic."""
        for pins in (self._pins, self._untold):
            for key in [key for key in pins if key[0] == topic]:
                del pins[key]

    def are_told(self, consumer: Consumer, *, joining: bool) -> bool:
        """Tells the group of new starts, if it is time to; whether to go on and take part in their topics.

        Args:
            consumer: The member's.
            joining: Whether it waits for the group's next generation.
        """
        if not self._untold:
            self._since = None
            return True
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if waited < PATIENCE:
            if joining or now < self._next:
                return False
            if not self.tell(consumer, has_time=waited < GRACE):
                self._next = now + AGAIN
                return False
        self._untold.clear()
        self._since = None
        return True

    def tell(self, consumer: Consumer, *, has_time: bool = False) -> bool:
        """Commits new starts of partitions that the group has not read before; whether there is no point in a next try.

        Only a member may commit, once there are some; for one that is none yet it is done when it gets the partition.

        Args:
            consumer: The member's.
            has_time: Whether a start within a topic may wait for another member's at its beginning.
        """
        untold = self._untold
        if not untold:
            return True
        try:
            asked = [TopicPartition(*key) for key in untold]
            known = consumer.committed(asked, timeout=COMMITTED_TIMEOUT)
        except KafkaException as failure:
            _log.debug("the start is committed when a partition is assigned: %s", failure)
            return True
        unread = {key_of(partition) for partition in known if partition.error is None and partition.offset < 0}
        if has_time and any(untold[key] > 0 for key in unread):
            return False
        lower = {key_of(p) for p in known if p.metadata == _START and p.offset > untold[key_of(p)]}
        failure = self._commit(consumer, [(key, untold[key]) for key in unread | lower], _START)
        return failure is None or failure.code() not in OF_A_REBALANCE

    def left_off(self, committed: TopicPartition) -> int:
        """Returns where the group is in a partition, or where it has to start."""
        pin = self.of(key_of(committed))
        if committed.offset < 0:
            return pin or 0
        return committed.offset if pin is None or committed.metadata != _START else min(pin, committed.offset)

    def of(self, partition: Partition) -> int | None:
        """Returns where this member was to start in a partition, if it is known."""
        return self._pins.get(partition)
