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
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, PollLoopListener
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Creation, TopicSubscription
from k2eg_rx.transport import Offsets, SourceClosedError

_P = TypeVar("_P", bound=PollLoop)


class TopicSource(Generic[_P]):
    """What all our sources have in common: which topics they read.

    Args:
        positions: Where starts are found.
        make_pump: Makes the pump, not started yet.
    """

    def __init__(self, resolver: OffsetResolver, make_poll_loop: Callable[[PollLoopListener], _P]) -> None:
        self._resolver = resolver
        self._lock = threading.Lock()
        self._subscriptions: dict[str, TopicSubscription] = {}
        self._refusal: TransportError | None = None
        self.on_gone: Callable[[str], None] = lambda _: None
        self._poll_loop = make_poll_loop(self)
        self._poll_loop.start()

    def read(self, topic: str, creation: Creation | None = None) -> Future[None]:
        """Adds a topic; see `RecordSource.read`.

        Args:
            topic: Its name.
            creation: What creates it if it is missing.
        """
        with self._lock:
            subscription = self._subscriptions.get(topic)
            if subscription is not None and not _has_failed(subscription):
                return subscription.ready
            subscription = TopicSubscription(topic, self, creation)
            if self._refusal is not None:
                subscription.fail(self._refusal)
                return subscription.ready
            self._subscriptions[topic] = subscription
        self._resolver.add(subscription)
        return subscription.ready

    def release(self, topic: str) -> None:
        """Stops reading a topic; see `RecordSource.release`."""
        with self._lock:
            subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            subscription.released = True
            self.halt(subscription)
            self._poll_loop.released(topic)
            subscription.fail(TransportError(f"topic {topic!r} was released before it could be read"))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Stops reading topics; see `RecordSource.release_for_rebalance`. Without a group nobody is given anything."""
        unused()
        for topic in topics:
            self.release(topic)

    def wake(self) -> None:
        """Asks the receiver again; see `RecordSource.wake`."""
        self._poll_loop.wake()

    def lag(self) -> int:
        """How many records wait in Kafka; see `RecordSource.lag`."""
        return self._poll_loop.lag.total

    def close(self, timeout: float) -> None:
        """Stops the thread and leaves; see `RecordSource.close`."""
        self.on_failed(SourceClosedError("the source is closed"))
        self._poll_loop.close(timeout)

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Reads partitions, from the offsets given."""
        raise NotImplementedError

    def halt(self, subscription: TopicSubscription) -> None:
        """Stops reading a topic that is not there any more."""
        raise NotImplementedError

    def on_topic_missing(self, topic: str) -> None:
        """Takes note that the consumer does not find a topic."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            self._resolver.on_missing(subscription)

    def on_partition_count(self, topic: str, partitions: int) -> None:
        """Takes note that a topic has another number of partitions, or was deleted."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            self._resolver.on_missing(subscription, deleted=partitions == 0)

    def on_failed(self, error: TransportError) -> None:
        """Fails what waits for a position, and what will."""
        with self._lock:
            self._refusal = self._refusal or error
            subscriptions = list(self._subscriptions.values())
            self._subscriptions.clear()
        for subscription in subscriptions:
            subscription.released = True
            subscription.fail(error)


def _has_failed(subscription: TopicSubscription) -> bool:
    return subscription.ready.done() and subscription.ready.exception() is not None


class ExactSource(TopicSource[PollLoop]):
    """Reads every record of its topics."""

    def __init__(self, resolver: OffsetResolver, make_poll_loop: Callable[[PollLoopListener], PollLoop]) -> None:
        self._assigned: dict[
            TopicSubscription, list[TopicPartition]
        ] = {}  # the pump's thread only, which starts with super's
        super().__init__(resolver, make_poll_loop)

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Reads partitions, from the offsets given. The numbers are exact, so it does not matter when that happens."""
        self._poll_loop.queue(lambda consumer: self._assign(consumer, starts))

    def halt(self, subscription: TopicSubscription) -> None:
        """Stops reading a topic."""
        if not subscription.released:
            self.on_gone(subscription.topic)
        self._poll_loop.queue(lambda consumer: self._unassign(consumer, subscription))

    def _assign(self, consumer: Consumer, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        starts = [(subscription, ends) for subscription, ends in starts if not subscription.released]
        partitions: list[TopicPartition] = []
        for subscription, ends in starts:
            added = [TopicPartition(subscription.topic, partition, offset) for partition, offset in ends.items()]
            self._assigned.setdefault(subscription, []).extend(added)
            partitions.extend(added)
        if partitions:
            consumer.incremental_assign(partitions)
            self._poll_loop.lag.add(partitions)
        self._poll_loop.refresh_metadata(consumer, [subscription.topic for subscription, _ in starts])

    def _unassign(self, consumer: Consumer, subscription: TopicSubscription) -> None:
        partitions = self._assigned.pop(subscription, [])
        if partitions:
            self._poll_loop.lag.remove(partitions)
            consumer.incremental_unassign(partitions)
