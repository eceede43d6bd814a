"""Topics shared with the other members of a consumer group: each record goes to one of them.

In: topics to read and to release, from any thread. Out: records of the partitions that the group gives to this member,
on the pump's thread. A partition is read from where the group left off; if it never was read, from where it ended when
`read` was called, or from its beginning if the topic did not exist then.

In a rebalance every member gives up all its partitions, commits what it has used of them, and gets its share anew. What
is in hand and not received yet is forgotten, and what was received and not used is recalled from the receiver: neither
is committed, so whoever gets the partition reads it. Nor is anything committed of a topic that was deleted: it would
stand for the one that is made in its place, whose first records nobody would read.

A commit is refused to a member that the coordinator took for dead. The mock cluster also refuses one as soon as a next
rebalance has begun, where Apache Kafka takes it until the member has joined anew. Either is told in the log, and what
was received since the last commit (a second) another member receives too: nothing is lost, but something comes twice.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, kafka_error
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.consumer.group_offsets import COMMITTED_TIMEOUT, REBALANCE_ERRORS, InitialOffsets, partition_of
from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, PollLoopListener
from k2eg_rx.kafka.consumer.source import TopicSource
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets
from k2eg_rx.kafka.metadata.topic_subscription import TopicSubscription
from k2eg_rx.transport import Offsets, Receiver

_log = logging.getLogger(__name__)

_COORDINATOR_TIMEOUT = 10.0  # seconds that a coordinator has to come about when a partition is taken over
_PAUSE_AFTER = 1.0  # seconds of not being ready, after which the prefetch is given up to go on taking part in the group
_PAUSED_POLL = 0.1  # seconds between polls then: how late this member may be at a rebalance


def _partition_of(message: Message) -> Partition:
    partition = message.partition()
    return message.topic() or "", -1 if partition is None else partition


def _topic_partitions(offsets: Iterable[tuple[Partition, int]], metadata: str = "") -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset, metadata) for (topic, partition), offset in offsets]


class GroupPollLoop(PollLoop):
    """Reads as a member of a group."""

    is_member = True

    def __init__(
        self,
        name: str,
        properties: Properties,
        *,
        receiver: Receiver,
        listener: PollLoopListener,
        health: Health,
        translator: ErrorTranslator,
    ) -> None:
        super().__init__(name, properties, receiver=receiver, listener=listener, health=health, translator=translator)
        self._topics: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._blocked_since: float | None = None
        self._paused = False
        self._initial_offsets = InitialOffsets(self._commit)
        self._joining = False  # subscribed to something, and not assigned anything yet
        self._received: dict[Partition, int] = {}  # of the partitions that are ours: the offset after what was received
        self._deleted: set[str] = set()  # topics that were deleted, until they are read again
        # What was received of partitions that were lost: if nobody else has gone further, they go on there, and nothing
        # is received twice by one that only lost touch with the group.
        self._lost_positions: dict[Partition, int] = {}
        self._unresolved: set[Partition] = set()  # ours, but where the group left off could not be found out
        self._pending: list[Message] = []
        # Topics that nobody here wants any more: what comes of them counts as not received. Anybody adds, the pump's
        # thread removes; each access is one atomic operation.
        self.released_topics: set[str] = set()
        # librdkafka was left to find out where the group left off. If it fails as well, it reads nothing and says so
        # once: rather a new consumer that joins the group.
        self._must_rejoin = False

    def begin(self, consumer: Consumer, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Takes part in reading topics."""
        offsets = {(subscription.topic, n): offset for subscription, ends in starts for n, offset in ends.items()}
        topics = {subscription.topic for subscription, _ in starts}
        if topics & self._deleted & self._subscribed:
            self._subscribe(consumer)  # lets go of the partitions that were deleted, and of where it was in them
        self._deleted -= topics
        self.released_topics -= topics
        self._initial_offsets.add(offsets)
        self._topics |= topics

    def halt(self, consumer: Consumer, subscription: TopicSubscription) -> None:
        """Takes no part in reading a topic any more."""
        self._topics -= {subscription.topic}
        self._initial_offsets.drop(subscription.topic)
        self._lost_positions = {
            key: offset for key, offset in self._lost_positions.items() if key[0] != subscription.topic
        }
        if not subscription.released:
            self._deleted.add(subscription.topic)
            self._discard_offsets(consumer, subscription.topic)

    def release_for_rebalance(self, consumer: Consumer, unused: Offsets) -> None:
        """Has the next member begin with what was received here and was of no use."""
        self._lower(consumer, unused)
        self._lost_positions = {key: offset for key, offset in self._lost_positions.items() if key not in unused}

    def _reclaim(self, consumer: Consumer, partitions: Collection[Partition]) -> None:
        """Has the next member begin with what was received here and has not been used."""
        try:
            unused = self._receiver.reclaim_undelivered(partitions)
        except Exception:
            _log.exception("a receiver raised when asked for what it has not used of %d partitions", len(partitions))
            return
        self._lower(consumer, unused)

    def _lower(self, consumer: Consumer, unused: Offsets) -> None:
        lower = {key: offset for key, offset in unused.items() if offset < self._received.get(key, -1)}
        self._received.update(lower)
        with contextlib.suppress(KafkaException):  # its partitions are not this member's any more
            consumer.store_offsets(offsets=_topic_partitions(lower.items()))

    def _discard_offsets(self, consumer: Consumer, topic: str) -> None:
        """Has nothing committed of a topic that was deleted."""
        received = {key for key in self._received if key[0] == topic}
        self._received = {key: offset for key, offset in self._received.items() if key not in received}
        with contextlib.suppress(KafkaException):  # its partitions are not this member's any more
            consumer.store_offsets(offsets=_topic_partitions((key, OFFSET_INVALID) for key in received))

    def _commit(
        self, consumer: Consumer, offsets: Iterable[tuple[Partition, int]], metadata: str = ""
    ) -> KafkaError | None:
        """Commits; what was in the way, if something was."""
        partitions = _topic_partitions(offsets, metadata)
        if not partitions:
            return None
        try:
            consumer.commit(offsets=partitions, asynchronous=False)
        except KafkaException as failure:
            _log.info("not committed now: %s", failure)
            return kafka_error(failure)
        return None

    def _leave(self, consumer: Consumer) -> None:
        """Commits what was used, once a rebalance under way lets it, and leaves the group."""
        if not self._joining:
            self._initial_offsets.commit(consumer)
        self._reclaim(consumer, self._received.keys())
        failure = self._commit(consumer, self._received.items())
        while failure is not None and failure.code() in REBALANCE_ERRORS and time.monotonic() < self._deadline:
            consumer.pause(consumer.assignment())
            consumer.poll(_PAUSED_POLL)
            failure = self._commit(consumer, self._received.items())
        if failure is not None:
            self._warn_uncommitted(len(self._received), failure)
        self._received.clear()  # while it closes, librdkafka answers no more requests: it would be waited for in vain
        super()._leave(consumer)

    def _warn_uncommitted(self, count: int, failure: KafkaError) -> None:
        _log.warning(
            "what this member received of %d partitions could not be committed before they went to others of its group,"
            " which may receive it too: %s",
            count,
            failure.str(),
        )

    def _topics_read(self) -> Iterable[str]:
        return self._topics

    def _is_disconnected(self, consumer: Consumer) -> bool:
        return self._must_rejoin or super()._is_disconnected(consumer)

    def _resume_on(self, new: Consumer, old: Consumer) -> None:  # noqa: ARG002
        """Joins the group once more; for the other members it is another one that does."""
        self._must_rejoin = False
        lost = list(self.lag.starts)
        self._forget(set(lost))
        self.lag.remove(_topic_partitions((key, 0) for key in lost))
        self._subscribed, self._joining = frozenset(), False
        self._blocked_since, self._paused = None, False
        self._subscribe(new)

    def _do_actions(self, consumer: Consumer) -> None:
        super()._do_actions(consumer)
        if self._initial_offsets.ready_to_join(consumer, joining=self._joining):
            self._subscribe(consumer)

    def _subscribe(self, consumer: Consumer) -> None:
        if self._topics == self._subscribed:
            return
        self._subscribed = self._topics
        self._joining = bool(self._topics)
        if self._topics:
            consumer.subscribe(
                sorted(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        else:
            consumer.unsubscribe()

    def _wait_until_ready(self, consumer: Consumer) -> None:
        now = time.monotonic()
        self._blocked_since = self._blocked_since or now
        if not self._paused and now - self._blocked_since >= _PAUSE_AFTER:
            self._paused = True
            consumer.pause(consumer.assignment())
        if self._paused:
            message = consumer.poll(0)
            if message is not None:  # it was on its way when its partition was paused
                self._pending.append(message)
        self._signal.wait(_PAUSED_POLL)

    def _fetch(self, consumer: Consumer) -> list[Message]:
        """Takes what there is, one by one: a partition may be taken away at any poll, but not within one.

        What librdkafka still gives of a partition just after it was taken away is left to whoever has it now.
        """
        self._blocked_since = None
        if self._paused:
            self._paused = False
            consumer.resume(consumer.assignment())
        batch = self._batch_size()
        message = consumer.poll(0 if self._pending else self._poll_timeout())
        while message is not None:
            self._pending.append(message)
            message = consumer.poll(0) if len(self._pending) < batch else None
        ours = self.lag.starts
        messages = [
            message for message in self._pending if message.error() is not None or _partition_of(message) in ours
        ]
        self._pending = []
        return messages

    def _is_read(self, message: Message) -> bool:  # noqa: ARG002
        return True  # the group has given it to this member, and another would get it if this one did not take it

    def _process(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        super()._process(consumer, messages)
        received = {
            _partition_of(message): (message.offset() or 0) + 1
            for message in messages
            if message.error() is None
            and message.topic() not in self._deleted
            and message.topic() not in self.released_topics
        }
        self._received.update(received)
        if received:
            consumer.store_offsets(offsets=_topic_partitions(received.items()))  # librdkafka commits them once a second

    def _restart_offset(self, topic: str, partition: int) -> int:
        if (topic, partition) not in self._unresolved:
            return super()._restart_offset(topic, partition)
        self._unresolved.discard((topic, partition))  # the group has not read it before
        return self._initial_offsets.get((topic, partition)) or 0

    def _fetch_committed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition] | None:
        """Where the group left off; None if the coordinator does not say so. One that moves, or loads, does soon."""
        deadline = time.monotonic() + _COORDINATOR_TIMEOUT
        while True:
            try:
                committed = consumer.committed(partitions, timeout=COMMITTED_TIMEOUT)
                failure = next((partition.error for partition in committed if partition.error is not None), None)
                if failure is None:
                    return committed
            except KafkaException as raised:
                failure = raised
            _log.info("where the group left off is not known yet: %s", failure)
            if self._closing or time.monotonic() > deadline:
                return None
            time.sleep(_PAUSED_POLL)

    def _restart_partition(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Reads a partition from elsewhere. What is assigned to a member can only be changed as a whole."""
        if partition_of(partition) in self.lag.starts:
            others = [other for other in self._positions(consumer) if partition_of(other) != partition_of(partition)]
            consumer.assign([*others, partition])

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining = False
        if self._closing:
            consumer.assign(partitions)
            return
        committed = self._fetch_committed(consumer, partitions)
        if committed is None:
            self._unresolved.update(map(partition_of, partitions))
            self._must_rejoin = True
            starts, fresh = partitions, []
        else:
            begin = {
                partition_of(p): max(
                    self._initial_offsets.start_offset(p), self._lost_positions.pop(partition_of(p), 0)
                )
                for p in committed
            }
            fresh = [(partition_of(p), begin[partition_of(p)]) for p in committed if p.offset != begin[partition_of(p)]]
            starts = _topic_partitions(begin.items())
        consumer.assign(starts)
        self.lag.add(starts)
        if self._paused:
            consumer.pause(starts)
        else:
            consumer.resume(starts)  # librdkafka has a partition stay paused that was when it was given up
        self._commit(consumer, fresh)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = set(map(partition_of, partitions))
        self._reclaim(consumer, keys)
        failure = self._commit(consumer, [(key, offset) for key, offset in self._received.items() if key in keys])
        if failure is not None:
            self._warn_uncommitted(len(keys), failure)
        self._unassign(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        _log.warning(
            "the consumer group took this member for dead (no heartbeat for session.timeout.ms); what it received since"
            " its last commit, another member may receive too"
        )
        self._unassign(consumer, partitions)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining = bool(self._subscribed)
        self._forget(set(map(partition_of, partitions)))
        self.lag.remove(partitions)
        consumer.unassign()

    def _forget(self, keys: set[Partition]) -> None:
        self._lost_positions.update((key, offset) for key, offset in self._received.items() if key in keys)
        self._pending = [message for message in self._pending if _partition_of(message) not in keys]
        self._received = {key: offset for key, offset in self._received.items() if key not in keys}
        self._unresolved -= keys


class GroupSource(TopicSource[GroupPollLoop]):
    """Reads its group's share of the topics."""

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Takes part in reading topics."""
        self._poll_loop.queue(
            lambda consumer: self._poll_loop.begin(
                consumer, [(subscription, ends) for subscription, ends in starts if not subscription.released]
            )
        )

    def halt(self, subscription: TopicSubscription) -> None:
        """Takes no part in reading a topic any more."""
        if not subscription.released:
            self.on_gone(subscription.topic)
        self._poll_loop.queue(lambda consumer: self._poll_loop.halt(consumer, subscription))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Takes no part in reading topics any more; see `RecordSource.release_for_rebalance`."""
        self._poll_loop.released_topics.update(topics)
        offsets = unused()
        self._poll_loop.queue(lambda consumer: self._poll_loop.release_for_rebalance(consumer, offsets))
        for topic in topics:
            self.release(topic)
