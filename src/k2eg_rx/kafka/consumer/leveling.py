"""Keeps the partitions of a consumer that is far behind at about the same time.

Kafka hands over the records of one partition after those of another, as many as a fetch has room for. After a stall,
what belongs to one instant would so be minutes apart, and a join of many PVs would have to hold all of that. So a
partition that is ahead of the slowest one is paused until that one has come up. A partition reads a fetch's worth
before, since a pause discards what librdkafka has fetched of it. A consumer that keeps up is never paused.

Thread safety: used by the thread that owns the consumer.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from k2eg_rx.kafka.consumer.lag import Lag, Partition
from k2eg_rx.transport import Record

_SKEW_MS = 1_000  # of Kafka's time stamps, by which a partition may be ahead in any case
# What all partitions together may be ahead: less than a join of many PVs holds by default.
_BYTES, _RECORDS = 8 << 20, 15_000
_LEAST = 16 << 10, 30  # bytes and records of one partition, a part of a fetch
_MOST = 1 << 20, 5_000
_PATIENCE = 2.0  # seconds without a record of the slowest partition, after which it is waited for no more


@dataclass(slots=True)
class _Progress:
    """How far a partition has been read.

    Attributes:
        time: Kafka's time stamp of the latest record, in milliseconds; 0 before the first.
        offset: The offset after it.
        size: Bytes that were read since it was resumed.
        count: Records that were read since it was resumed.
    """

    time: int = 0
    offset: int = -1
    size: int = 0
    count: int = 0


class Leveling:
    """The partitions that are paused.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._behind: dict[Partition, _Progress] = {}  # empty if the consumer keeps up
        self._silent: set[Partition] = set()  # those that were waited for in vain
        self._paused: list[tuple[int, Partition]] = []  # a heap by time
        self._heard = 0.0  # when a partition that others may wait for was read

    @property
    def is_active(self) -> bool:
        """Whether partitions may be paused."""
        return bool(self._behind)

    def update(self, consumer: Consumer, lag: Lag) -> None:
        """Begins or ends, by the measured lag."""
        if not lag.is_far:
            if self._behind:
                self.stop(consumer)
            return
        if not self._behind:
            self._heard = self._clock()
        for partition, records in lag.by_partition.items():
            if records and partition not in self._behind and partition not in self._silent:
                self._behind[partition] = _Progress()
        if self._clock() - self._heard > _PATIENCE:
            self._give_up(consumer)

    def add(self, consumer: Consumer, records: Sequence[Record]) -> None:
        """Notes records that were read; pauses and resumes."""
        latest: dict[Partition, Record] = {}
        for record in records:
            partition = record[:2]
            latest[partition] = record
            progress = self._behind.get(partition)
            if progress is None:
                progress = self._behind[partition] = _Progress()
                self._silent.discard(partition)
            progress.size += len(record.value or b"")
            progress.count += 1
        size, count = (
            min(max(whole // len(self._behind), least), most)
            for whole, least, most in zip((_BYTES, _RECORDS), _LEAST, _MOST, strict=True)
        )
        full: list[Partition] = []
        for partition, record in latest.items():
            progress = self._behind[partition]
            progress.time, progress.offset = max(progress.time, record.timestamp_ms), record.offset + 1
            if progress.size < size and progress.count < count:
                self._heard = self._clock()
            else:
                full.append(partition)
        if full or self._paused:
            limit = self._lowest_time(consumer) + _SKEW_MS
            self._pause(consumer, [partition for partition in full if self._is_after(limit, partition)])
            self._resume_until(consumer, limit)

    def stop(self, consumer: Consumer) -> None:
        """Resumes all partitions."""
        self._behind.clear()
        self._silent.clear()
        self._resume(consumer, [heapq.heappop(self._paused)[1] for _ in range(len(self._paused))])

    def forget(self, consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        """Removes partitions that are no longer read. They are resumed: librdkafka would pause them when assigned."""
        keys = {(partition.topic, partition.partition) for partition in partitions}
        for key in keys:
            self._behind.pop(key, None)
        self._silent -= keys
        self._resume(consumer, [partition for _, partition in self._paused if partition in keys])
        self._paused = [entry for entry in self._paused if entry[1] not in keys]
        heapq.heapify(self._paused)

    def _lowest_time(self, consumer: Consumer) -> int:
        """Returns the time of the slowest partition that has more records."""
        while True:
            slowest = min(self._behind, key=lambda partition: self._behind[partition].time)
            progress = self._behind[slowest]
            if len(self._behind) == 1 or progress.offset < 0:  # the only one, or nothing was read of it yet
                return progress.time
            _, end = consumer.get_watermark_offsets(TopicPartition(*slowest), cached=True)
            if progress.offset < end:
                return progress.time
            del self._behind[slowest]

    def _is_after(self, time: int, partition: Partition) -> bool:
        progress = self._behind.get(partition)
        return progress is not None and progress.time > time

    def _pause(self, consumer: Consumer, partitions: Sequence[Partition]) -> None:
        if not partitions:
            return
        consumer.pause([TopicPartition(*partition) for partition in partitions])
        for partition in partitions:
            heapq.heappush(self._paused, (self._behind[partition].time, partition))

    def _resume_until(self, consumer: Consumer, time: int) -> None:
        ready: list[Partition] = []
        while self._paused and self._paused[0][0] <= time:
            ready.append(heapq.heappop(self._paused)[1])
        self._resume(consumer, ready)

    def _resume(self, consumer: Consumer, partitions: Sequence[Partition]) -> None:
        """Resumes partitions, and makes librdkafka fetch at once, instead of within a second."""
        if not partitions:
            return
        for partition in partitions:
            if (progress := self._behind.get(partition)) is not None:
                progress.size = progress.count = 0
        with contextlib.suppress(KafkaException):
            consumer.resume([TopicPartition(*partition) for partition in partitions])
            consumer.list_topics(partitions[0][0], timeout=0)

    def _give_up(self, consumer: Consumer) -> None:
        """Waits no more for partitions of which nothing comes."""
        paused = {partition for _, partition in self._paused}
        if paused:
            silent = self._behind.keys() - paused
            self._silent |= silent
            for partition in silent:
                del self._behind[partition]
            self._heard = self._clock()
            self._resume_until(consumer, self._lowest_time(consumer) + _SKEW_MS)
