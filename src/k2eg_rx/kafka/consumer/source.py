"""Record sources: `ExactSource` reads every record of its topics, `GroupSource` a group's share.

Thread safety: topics may be read and released on any thread; records are received on the poll thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from confluent_kafka import Consumer, TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.consumer.group import GroupPollLoop
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, PollLoopListener
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Creation, TopicSubscription
from k2eg_rx.transport import Assignment, Offsets, Partition, SourceClosedError, Span

_P = TypeVar("_P", bound=PollLoop)


class TopicSource(Generic[_P]):
    """The subscriptions of a source; base of both kinds.

    Args:
        resolver: Resolves initial offsets.
        make_poll_loop: Makes the poll loop, which is not started yet, given its listener.
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
        """Subscribes to a topic; see `RecordSource.read`.

        Args:
            topic: The topic.
            creation: Creates the topic if it is missing.
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
        """Releases topics; see `RecordSource.release_for_rebalance`. Without a group, offsets are not committed."""
        unused()
        for topic in topics:
            self.release(topic)

    def wake(self) -> None:
        """Checks again whether the receiver is ready; see `RecordSource.wake`."""
        self._poll_loop.wake()

    def lag(self) -> int:
        """Returns the number of records not received yet; see `RecordSource.lag`."""
        return self._poll_loop.lag.total

    def is_behind(self) -> bool:
        """Whether many records were not received yet; see `RecordSource.is_behind`."""
        return self._poll_loop.lag.is_far

    def assignment(self) -> Assignment | None:
        """Returns what is read; see `RecordSource.assignment`."""
        number = len(self._poll_loop.lag.starts)
        return Assignment(number, 1, frozenset(self._poll_loop.lag.starts)) if number else None

    def owns(self, partition: Partition, offset: int) -> bool:  # noqa: ARG002 - it shares no partitions
        """Returns True; see `RecordSource.owns`."""
        return True

    def in_session(self) -> bool:
        """Returns True; see `RecordSource.in_session`."""
        return True

    def is_live(self, partition: Partition, offset: int) -> bool:  # noqa: ARG002 - its receivers do not ask
        """Returns False; see `RecordSource.is_live`."""
        return False

    def confirm(self, done: Callable[[], None]) -> None:
        """See `RecordSource.confirm`; there is nothing to commit."""
        done()

    def close(self, timeout: float) -> None:
        """Stops the poll thread; see `RecordSource.close`."""
        self.on_failed(SourceClosedError("the source is closed"))
        self._poll_loop.close(timeout)

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Reads partitions; see `Target.begin`."""
        raise NotImplementedError

    def halt(self, subscription: TopicSubscription) -> None:
        """Stops reading a deleted topic; see `Target.halt`."""
        raise NotImplementedError

    def on_topic_missing(self, topic: str) -> None:
        """Looks up a topic again, since the consumer does not find it."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            self._resolver.on_missing(subscription)

    def on_partition_count(self, topic: str, partitions: int) -> None:
        """Looks up a topic again, since its number of partitions changed; 0 if it was deleted."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            self._resolver.on_missing(subscription, deleted=partitions == 0)

    def on_position_lost(self, topic: str, partition: int) -> None:
        """Looks up where to continue a partition."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            self._resolver.on_position_lost(subscription, partition)

    def relocate(self, subscription: TopicSubscription, partition: int, held: Span) -> None:
        """Continues a partition; see `Target.relocate`."""
        place = subscription.topic, partition
        self._poll_loop.queue(lambda consumer: self._poll_loop.relocate(consumer, place, held))

    def on_failed(self, error: TransportError) -> None:
        """Fails pending and further subscriptions."""
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
        ] = {}  # poll thread only, which starts in `super().__init__`
        super().__init__(resolver, make_poll_loop)

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Assigns partitions at the given offsets, which stay valid however late they are assigned."""
        self._poll_loop.queue(lambda consumer: self._assign(consumer, starts))

    def halt(self, subscription: TopicSubscription) -> None:
        """Unassigns the partitions of a topic."""
        if not subscription.released:
            self.on_gone(subscription.topic)
        self._poll_loop.queue(lambda consumer: self._unassign(consumer, subscription))

    def _assign(self, consumer: Consumer, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        starts = [(subscription, ends) for subscription, ends in starts if not subscription.released]
        partitions: list[TopicPartition] = []
        assigned: list[tuple[TopicSubscription, list[TopicPartition]]] = []
        for subscription, ends in starts:
            added = [TopicPartition(subscription.topic, partition, offset) for partition, offset in ends.items()]
            assigned.append((subscription, added))
            partitions.extend(added)
        if partitions:
            consumer.incremental_assign(partitions)
            self._poll_loop.lag.add(partitions)
        for subscription, added in assigned:
            self._assigned.setdefault(subscription, []).extend(added)
        self._poll_loop.refresh_metadata(consumer, [subscription.topic for subscription, _ in starts])

    def _unassign(self, consumer: Consumer, subscription: TopicSubscription) -> None:
        partitions = self._assigned.pop(subscription, [])
        if partitions:
            self._poll_loop.forget(partitions)
            self._poll_loop.leveling.forget(consumer, partitions)
            consumer.incremental_unassign(partitions)


class GroupSource(TopicSource[GroupPollLoop]):
    """Reads the partitions that the consumer group assigns to this member."""

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Subscribes to topics; see `Target.begin`."""
        self._poll_loop.queue(
            lambda consumer: self._poll_loop.begin(
                consumer, [(subscription, ends) for subscription, ends in starts if not subscription.released]
            )
        )

    def halt(self, subscription: TopicSubscription) -> None:
        """Unsubscribes from a topic; see `Target.halt`."""
        if not subscription.released:
            self.on_gone(subscription.topic)
        self._poll_loop.queue(lambda consumer: self._poll_loop.halt(consumer, subscription))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Releases topics; see `RecordSource.release_for_rebalance`."""
        self._poll_loop.released_topics.update(topics)
        offsets = unused()
        self._poll_loop.queue(lambda consumer: self._poll_loop.release_for_rebalance(consumer, offsets))
        for topic in topics:
            self.release(topic)

    def assignment(self) -> Assignment | None:
        """Returns what is read; see `RecordSource.assignment`."""
        loop = self._poll_loop
        number, owned = loop.assignments, frozenset(loop.lag.starts)
        return Assignment(len(owned), number, owned) if loop.is_assigned and loop.assignments == number else None

    def owns(self, partition: Partition, offset: int) -> bool:
        """Whether a record is this member's alone; see `RecordSource.owns`."""
        return self._poll_loop.ownership.covers(partition, offset)

    def in_session(self) -> bool:
        """Whether the session cannot have expired; see `RecordSource.in_session`."""
        return self._poll_loop.ownership.is_proven()

    def is_live(self, partition: Partition, offset: int) -> bool:
        """Whether a record was written a moment ago; see `RecordSource.is_live`."""
        return self._poll_loop.arrivals.is_live(partition, offset)

    def confirm(self, done: Callable[[], None]) -> None:
        """Commits the offsets of received records; see `RecordSource.confirm`."""
        self._poll_loop.confirm_soon(done)
