"""Measures the consumer lag: the records in Kafka that were not received yet.

It sends no requests: end offsets are those of the latest fetches.

Thread safety: used by the thread that owns the consumer; `Lag.total` may be read from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

Partition = tuple[str, int]

INTERVAL = 1.0  # seconds
_FAR = 10_000  # records of all partitions; a consumer reads fewer in less than a second
_NEAR = 1_000  # records of all partitions, below which a consumer that was far behind has come up
_AT_ONCE = 256  # partitions measured per interval, in turn: 25 us each, during which no records are read


class Lag:
    """The lag of a consumer.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        starts: The partitions that are read, with their initial offsets.
        by_partition: The lag in records of each partition that was measured.
        total: The lag in records.
        is_far: Whether many records wait: from 10,000 on, until fewer than 1,000 are left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self.starts: dict[Partition, int] = {}
        self._step: list[Partition] = []
        self.by_partition: dict[Partition, int] = {}
        self.total = 0
        self.is_far = False

    def add(self, partitions: Iterable[TopicPartition]) -> None:
        """Adds partitions with their initial offsets."""
        self.starts.update(((partition.topic, partition.partition), partition.offset) for partition in partitions)

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Removes partitions."""
        for partition in partitions:
            key = (partition.topic, partition.partition)
            self.starts.pop(key, None)
            self.total -= self.by_partition.pop(key, 0)

    def refresh(self, consumer: Consumer) -> bool:
        """Measures the lag, if the interval has passed; returns whether it has."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + INTERVAL
        if not self._step:
            self._step = list(self.starts)
        some, self._step = self._step[:_AT_ONCE], self._step[_AT_ONCE:]
        try:
            self._measure(consumer, [key for key in some if key in self.starts])
        except KafkaException as failure:
            _log.debug("lag unknown: error=%s", failure)
        self.is_far = self.total >= (_NEAR if self.is_far else _FAR)
        return True

    def _measure(self, consumer: Consumer, keys: list[Partition]) -> None:
        if not keys:
            return
        for position in consumer.position([TopicPartition(topic, partition) for topic, partition in keys]):
            key = (position.topic, position.partition)
            at = position.offset if position.offset >= 0 else self.starts[key]
            _, end = consumer.get_watermark_offsets(position, cached=True)
            lag = max(end - at, 0) if at >= 0 else 0
            self.total += lag - self.by_partition.get(key, 0)
            self.by_partition[key] = lag
