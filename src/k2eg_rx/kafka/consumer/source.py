"""Topics read in full, each from an exact start, without a consumer group.

In: topics to read and to release, from any thread. Out: their records, on the pump's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from confluent_kafka import Consumer, TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, Watcher
from k2eg_rx.kafka.metadata.cluster import Ends
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Creation, Reading
from k2eg_rx.transport import Offsets, SourceClosedError

_P = TypeVar("_P", bound=PollLoop)


class TopicSource(Generic[_P]):
    """What all our sources have in common: which topics they read.

    Args:
        positions: Where starts are found.
        make_pump: Makes the pump, not started yet.
    """

    def __init__(self, positions: OffsetResolver, make_pump: Callable[[Watcher], _P]) -> None:
        self._positions = positions
        self._lock = threading.Lock()
        self._readings: dict[str, Reading] = {}
        self._refusal: TransportError | None = None
        self.on_gone: Callable[[str], None] = lambda _: None
        self._pump = make_pump(self)
        self._pump.start()

    def read(self, topic: str, creation: Creation | None = None) -> Future[None]:
        """Adds a topic; see `RecordSource.read`.

        Args:
            topic: Its name.
            creation: What creates it if it is missing.
        """
        with self._lock:
            reading = self._readings.get(topic)
            if reading is not None and not _has_failed(reading):
                return reading.fixed
            reading = Reading(topic, self, creation)
            if self._refusal is not None:
                reading.fail(self._refusal)
                return reading.fixed
            self._readings[topic] = reading
        self._positions.add(reading)
        return reading.fixed

    def release(self, topic: str) -> None:
        """Stops reading a topic; see `RecordSource.release`."""
        with self._lock:
            reading = self._readings.pop(topic, None)
        if reading is not None:
            reading.released = True
            self.halt(reading)
            self._pump.released(topic)
            reading.fail(TransportError(f"topic {topic!r} was released before it could be read"))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Stops reading topics; see `RecordSource.release_for_rebalance`. Without a group nobody is given anything."""
        unused()
        for topic in topics:
            self.release(topic)

    def wake(self) -> None:
        """Asks the receiver again; see `RecordSource.wake`."""
        self._pump.wake()

    def lag(self) -> int:
        """How many records wait in Kafka; see `RecordSource.lag`."""
        return self._pump.lag.total

    def close(self, timeout: float) -> None:
        """Stops the thread and leaves; see `RecordSource.close`."""
        self.useless(SourceClosedError("the source is closed"))
        self._pump.close(timeout)

    def begin(self, starts: Sequence[tuple[Reading, Ends]]) -> None:
        """Reads partitions, from the offsets given."""
        raise NotImplementedError

    def halt(self, reading: Reading) -> None:
        """Stops reading a topic that is not there any more."""
        raise NotImplementedError

    def gone(self, topic: str) -> None:
        """Takes note that the consumer does not find a topic."""
        reading = self._readings.get(topic)
        if reading is not None:
            self._positions.lose(reading)

    def changed(self, topic: str, partitions: int) -> None:
        """Takes note that a topic has another number of partitions, or was deleted."""
        reading = self._readings.get(topic)
        if reading is not None:
            self._positions.lose(reading, for_certain=partitions == 0)

    def useless(self, error: TransportError) -> None:
        """Fails what waits for a position, and what will."""
        with self._lock:
            self._refusal = self._refusal or error
            readings = list(self._readings.values())
            self._readings.clear()
        for reading in readings:
            reading.released = True
            reading.fail(error)


def _has_failed(reading: Reading) -> bool:
    return reading.fixed.done() and reading.fixed.exception() is not None


class ExactSource(TopicSource[PollLoop]):
    """Reads every record of its topics."""

    def __init__(self, positions: OffsetResolver, make_pump: Callable[[Watcher], PollLoop]) -> None:
        self._assigned: dict[Reading, list[TopicPartition]] = {}  # the pump's thread only, which starts with super's
        super().__init__(positions, make_pump)

    def begin(self, starts: Sequence[tuple[Reading, Ends]]) -> None:
        """Reads partitions, from the offsets given. The numbers are exact, so it does not matter when that happens."""
        self._pump.queue(lambda consumer: self._assign(consumer, starts))

    def halt(self, reading: Reading) -> None:
        """Stops reading a topic."""
        if not reading.released:
            self.on_gone(reading.topic)
        self._pump.queue(lambda consumer: self._unassign(consumer, reading))

    def _assign(self, consumer: Consumer, starts: Sequence[tuple[Reading, Ends]]) -> None:
        starts = [(reading, ends) for reading, ends in starts if not reading.released]
        partitions: list[TopicPartition] = []
        for reading, ends in starts:
            added = [TopicPartition(reading.topic, partition, offset) for partition, offset in ends.items()]
            self._assigned.setdefault(reading, []).extend(added)
            partitions.extend(added)
        if partitions:
            consumer.incremental_assign(partitions)
            self._pump.lag.add(partitions)
        self._pump.nudge(consumer, [reading.topic for reading, _ in starts])

    def _unassign(self, consumer: Consumer, reading: Reading) -> None:
        partitions = self._assigned.pop(reading, [])
        if partitions:
            self._pump.lag.remove(partitions)
            consumer.incremental_unassign(partitions)
