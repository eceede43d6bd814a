"""Positions whose records do not exist, and where reading continues.

Retention removes the beginning of a log. A power cut of the broker may remove its end, since Kafka acknowledges records
before they are on disk; new records then get the same offsets. A reader must not take that for retention: it would read
the whole log again, and a gateway would carry out old puts. Leader epochs (KIP-320), which librdkafka compares when the
broker is back, show at which offset the log departs from what was read.

Thread safety: used by the thread that owns the consumer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.transport import Span

# librdkafka reports a truncated log only in the text of its error. If the end is -1, all records are of later epochs.
_TRUNCATED = re.compile(r"offset (?P<offset>\d+) .*broker end offset is (?P<end>-?\d+) \(offset leader epoch")


_VALIDATED = 500  # partitions of an assignment; each takes 50 us, while the whole group waits, and a request


def assign_validated(
    consumer: Consumer, assignment: list[TopicPartition], partitions: Iterable[TopicPartition]
) -> None:
    """Assigns partitions, and makes librdkafka compare the leader epochs of some of them with those of the log.

    By itself it does so only when it learns of another leader epoch, not for an assignment after that. The compared
    partitions are paused, so that nothing is fetched before the comparison, except if they are new to the consumer.
    """
    compared = list(islice(filter(_has_epoch, partitions), _VALIDATED))
    consumer.pause(compared)
    consumer.assign(assignment)
    for partition in compared:
        with contextlib.suppress(KafkaException):  # not started
            consumer.seek(partition)


def _has_epoch(partition: TopicPartition) -> bool:
    return partition.leader_epoch is not None  # pyright: ignore[reportUnnecessaryComparison] - None if there is none


@dataclass(frozen=True, slots=True)
class LostPosition:
    """A position whose record does not exist.

    Attributes:
        offset: The offset after the last record that was read.
        departure: The first offset at which the log differs from what was read; None if librdkafka does not know it.
    """

    offset: int
    departure: int | None = None

    @classmethod
    def of(cls, message: Message) -> LostPosition | None:
        """Returns the position that an error message of librdkafka reports as lost; None if it names none."""
        error, offset = message.error(), message.offset()
        truncated = _TRUNCATED.search(error.str()) if error is not None else None
        if truncated is not None:
            return cls(int(truncated["offset"]), max(int(truncated["end"]), 0))
        return None if offset is None or offset < 0 else cls(offset)

    def continuation(self, held: Span) -> int:
        """Returns the offset of the first record that was not read.

        If the departure is unknown, records that were written between the loss and now are skipped: a missing record
        does less harm than an old one that is read again.

        Args:
            held: The offsets that the log holds.
        """
        departure = self.offset if self.departure is None else self.departure
        return min(max(departure, held.begin), held.end)

    def warning(self, partition: Partition, held: Span) -> str:
        """Returns what was lost, for the log."""
        topic, number = partition
        if self.offset < held.begin:
            return (
                f"records of {topic}[{number}] were deleted before they were read (retention); reading on from the"
                f" oldest there is: lost={held.begin - self.offset}"
            )
        return (
            f"the log of {topic}[{number}] was truncated, as by a power cut of the broker; reading on after what is"
            f" left of it: read_to={self.offset} continued_at={self.continuation(held)}"
        )


class StoppedPartitions:
    """The partitions that librdkafka does not read, because their positions are lost."""

    def __init__(self) -> None:
        self._lost: dict[Partition, LostPosition] = {}
        self._left: dict[Partition, int] = {}  # the lost position from which a partition was moved last

    def add(self, partition: Partition, lost: LostPosition, position: int) -> bool:
        """Adds a partition, given the position that its reader has reached; returns False if the report is old.

        librdkafka may report a lost position twice, the second time after the partition was moved.
        """
        if lost.offset < position or position < lost.offset == self._left.get(partition):
            return False
        self._lost[partition] = lost
        return True

    def take(self, partition: Partition) -> LostPosition | None:
        """Removes a partition, which is moved now; returns its lost position."""
        lost = self._lost.pop(partition, None)
        if lost is not None:
            self._left[partition] = lost.offset
        return lost

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Removes partitions that are no longer read."""
        for partition in partitions:
            for positions in (self._lost, self._left):
                positions.pop((partition.topic, partition.partition), None)
