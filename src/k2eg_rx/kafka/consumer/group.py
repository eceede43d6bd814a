"""Poll loop of a consumer group member: each record of the topics goes to one member of the group.

A partition is read from the group's committed offset. If the group has never read it, it is read from the end offset at
the time of `read`, or from its beginning if the topic did not exist then.

In a rebalance every member gives up all its partitions, commits what was delivered of them, and is assigned new ones.
Records that were fetched or received but not delivered are dropped and not committed: the next owner of the partition
reads them. Nothing is committed of a deleted topic, since the offset would apply to a new topic of that name.

Records that must not be received twice (`Receiver.commit_first`) are received after their offsets were committed. While
the coordinator does not accept the commit, they are held back, with all records after them.

Kafka refuses commits of a member whose session has expired; librdkafka's mock cluster refuses them as soon as the next
rebalance has begun. Either is logged, and another member receives again what was received since the last commit (one
second): nothing is lost, but events may repeat.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.concurrency import elapsed
from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.reconnect import close_in_background, has_broker, leave_group
from k2eg_rx.kafka.consumer.arrivals import Arrivals
from k2eg_rx.kafka.consumer.group_offsets import (
    REBALANCE_ERRORS,
    Committer,
    InitialOffsets,
    commit,
    fetch_committed,
    partition_of,
    topic_partitions,
)
from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.kafka.consumer.lost_positions import LostPosition, assign_validated
from k2eg_rx.kafka.consumer.ownership import Ownership
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, PollLoopListener
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets
from k2eg_rx.kafka.metadata.topic_subscription import TopicSubscription
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Offsets, Receiver

_log = get_logger(__name__)

# Seconds of a receiver that is not ready, after which the partitions are paused. Pausing discards the prefetch, but
# allows polling, which keeps the member in the group.
_PAUSE_AFTER = 1.0
_PAUSED_POLL = 0.1  # seconds between polls of paused partitions: the delay of this member in a rebalance

_Rebalance = Callable[[Consumer, list[TopicPartition]], None]


def _partition_of(message: Message) -> Partition:
    partition = message.partition()
    return message.topic() or "", -1 if partition is None else partition


class GroupPollLoop(PollLoop):
    """Reads the partitions that the group assigns to this member. Arguments as for `PollLoop`."""

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
        self.arrivals = Arrivals()
        if receiver.judges_age:
            properties = {**properties, **self.arrivals.properties}
        super().__init__(name, properties, receiver=receiver, listener=listener, health=health, translator=translator)
        self._topics: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._blocked_since: float | None = None
        self._paused = False
        self._initial_offsets = InitialOffsets(self._commit)
        self._joining = False  # subscribed, but not assigned partitions yet
        self.assignments = 0  # how often partitions were assigned; any thread
        self._received: dict[Partition, int] = {}  # the offset after the latest received record, per assigned partition
        self._deleted: set[str] = set()  # deleted topics, until they exist again
        # Offsets reached in partitions that were given up. If they are assigned again and no other member has read
        # further, reading continues there, so that a member whose session expired receives nothing twice.
        self._lost_positions: dict[Partition, int] = {}
        # The leader epochs of the latest records. By them librdkafka notices that other records have their offsets now
        # (KIP-320), also if the log was truncated while no member read it.
        self._epochs: dict[Partition, int] = {}
        self._unresolved: set[Partition] = set()  # assigned, but the committed offset is unknown
        self._pending: list[Message] = []
        self._held: list[Message] = []  # to be received once their offsets are committed
        self._unconfirmed: deque[Callable[[], None]] = deque()  # any thread adds, the poll thread takes
        self._committer = Committer()  # of the present consumer
        self._has_failed = False  # whether the latest proof was not accepted
        self._proves = False  # whether its session is to be proven by commits
        self.ownership = Ownership(self._properties)
        # Released topics: their records count as not received. Any thread adds, the poll thread removes; each access is
        # one atomic operation.
        self.released_topics: set[str] = set()
        self._member: Consumer | None = None  # the consumer that has subscribed; one that was replaced is none
        # Set when the committed offsets were not found out in time. librdkafka may then read nothing, so a new consumer
        # joins the group.
        self._must_rejoin = False

    @property
    def is_assigned(self) -> bool:
        """Whether the group has assigned partitions, perhaps none, and no rebalance is under way. Any thread."""
        return bool(self._subscribed) and not self._joining

    def begin(self, consumer: Consumer, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Subscribes to topics, once their initial offsets are committed."""
        offsets = {(subscription.topic, n): offset for subscription, ends in starts for n, offset in ends.items()}
        topics = {subscription.topic for subscription, _ in starts}
        if topics & self._deleted & self._subscribed:
            self._subscribe(consumer)  # drops the deleted partitions and the offsets in them
        self._deleted -= topics
        self.released_topics -= topics
        self._initial_offsets.add(offsets)
        self._topics |= topics

    def halt(self, consumer: Consumer, subscription: TopicSubscription) -> None:
        """Unsubscribes from a topic."""
        self._topics -= {subscription.topic}
        self._initial_offsets.drop(subscription.topic)
        for values in (self._lost_positions, self._epochs):
            for key in [key for key in values if key[0] == subscription.topic]:
                del values[key]
        if not subscription.released:
            self._deleted.add(subscription.topic)
            self._discard_offsets(consumer, subscription.topic)

    def release_for_rebalance(self, consumer: Consumer, unused: Offsets) -> None:
        """Lowers the offsets to commit to the first undelivered record."""
        self._lower(consumer, unused)
        self._lost_positions = {key: offset for key, offset in self._lost_positions.items() if key not in unused}

    def _reclaim(self, consumer: Consumer, partitions: Collection[Partition]) -> None:
        """Takes undelivered records back from the receiver, so that they are not committed."""
        try:
            unused = self._receiver.reclaim_undelivered(partitions)
        except Exception:
            _log.exception("reclaiming undelivered records raised: partitions=%d", len(partitions))
            return
        self._lower(consumer, unused)

    def _lower(self, consumer: Consumer, unused: Offsets) -> None:
        lower = {key: offset for key, offset in unused.items() if offset < self._received.get(key, -1)}
        self._received.update(lower)
        with contextlib.suppress(KafkaException):  # the partitions are no longer assigned
            consumer.store_offsets(offsets=self._with_epochs(lower.items()))

    def _discard_offsets(self, consumer: Consumer, topic: str) -> None:
        """Prevents commits for a deleted topic."""
        received = {key for key in self._received if key[0] == topic}
        self._received = {key: offset for key, offset in self._received.items() if key not in received}
        with contextlib.suppress(KafkaException):  # the partitions are no longer assigned
            consumer.store_offsets(offsets=topic_partitions((key, OFFSET_INVALID) for key in received))

    def _commit(
        self, consumer: Consumer, offsets: Iterable[tuple[Partition, int]], metadata: str = ""
    ) -> KafkaError | None:
        if self._committer.is_stuck:
            return KafkaError(KafkaError._TIMED_OUT)
        return commit(consumer, self._with_epochs(offsets, metadata))

    def confirm_soon(self, done: Callable[[], None]) -> None:
        """Commits the offsets of received records on the poll thread, and calls `done` there. Any thread.

        One commit is for all calls before it. With one for each, more would be waiting after one that has blocked.
        """
        self._proves = True
        self._unconfirmed.append(done)
        self.queue(self._confirm_all)

    def _confirm_all(self, consumer: Consumer) -> None:
        waiting = [self._unconfirmed.popleft() for _ in range(len(self._unconfirmed))]
        if waiting:
            self.confirm(consumer)
        for done in waiting:
            done()

    def confirm(self, consumer: Consumer) -> None:
        """Commits the offsets of received records, as proof that they are this member's.

        Where none were received, the offset at which reading has begun proves the session.
        """
        self._commit_as_proof(consumer, self._starts | self._received, dict(self._received))

    @property
    def _starts(self) -> dict[Partition, int]:
        """The offsets at which reading has begun, but of deleted topics."""
        starts = self.lag.starts.items()
        return {key: offset for key, offset in starts if offset >= 0 and key[0] not in self._deleted}

    def _commit_as_proof(
        self, consumer: Consumer, offsets: Mapping[Partition, int], received: Mapping[Partition, int] | None = None
    ) -> bool:
        """Commits offsets, by default those after received records; returns whether the coordinator accepted them.

        Without a coordinator a commit blocks for a session, and this thread with it, which has to replace the consumer.
        So after one that was not accepted none is sent until the consumer has a broker. Not for rebalance callbacks: a
        request for metadata in one aborts the process (confluent_kafka's `CallState_get`).
        """
        topic = next((topic for topic, _ in offsets), "")
        if not topic or (self._has_failed and not has_broker(consumer, topic)):
            return False
        sent_at = elapsed()
        self._has_failed = self._committer.commit(consumer, self._with_epochs(offsets.items())) is not None
        if not self._has_failed:
            self.ownership.extend(sent_at, offsets if received is None else received)
        return not self._has_failed

    def _on_given_up(self, keys: Collection[Partition], *, handed_over: bool) -> None:
        """Tells the receiver that other members may read partitions from now on."""
        try:
            self._receiver.on_revoked(keys, handed_over=handed_over)
        except Exception:
            _log.exception("receiver raised when partitions were revoked: partitions=%d", len(keys))

    def _with_epochs(self, offsets: Iterable[tuple[Partition, int]], metadata: str = "") -> list[TopicPartition]:
        return [TopicPartition(*key, offset, metadata, self._epochs.get(key, -1)) for key, offset in offsets]

    def _leave(self, consumer: Consumer) -> None:
        """Commits what was delivered, after a rebalance in progress, and leaves the group."""
        if not self._joining:
            self._initial_offsets.commit(consumer)
        self._reclaim(consumer, self._received.keys())
        keys = self._received.keys() | self.lag.starts.keys()
        failure = self._commit_given_up(consumer, keys)
        while failure is not None and failure.code() in REBALANCE_ERRORS and time.monotonic() < self._deadline:
            consumer.pause(consumer.assignment())
            consumer.poll(_PAUSED_POLL)
            failure = self._commit_given_up(consumer, keys)
        if failure is not None:
            self._warn_uncommitted(len(self._received), failure)
        self._on_given_up(list(self.lag.starts), handed_over=failure is None)
        self._received.clear()  # librdkafka commits nothing while it closes; it would wait in vain
        if self._committer.is_stuck:
            self._abandon(consumer)
            return
        leave_group(consumer)
        super()._leave(consumer)
        self._committer.close()

    def _commit_given_up(self, consumer: Consumer, keys: Collection[Partition]) -> KafkaError | None:
        """Commits what was received of partitions that are given up.

        Where nothing was, the offsets at which reading has begun prove that they were this member's until now, if its
        session is to be proven.
        """
        received = {key: offset for key, offset in self._received.items() if key in keys}
        starts = {key: offset for key, offset in self._starts.items() if key in keys} if self._proves else {}
        return self._commit(consumer, (received or starts).items())

    def _warn_uncommitted(self, count: int, failure: KafkaError) -> None:
        _log.warning(
            "commit before a rebalance failed, other members of the group may receive records again:"
            " partitions=%d error=%s",
            count,
            failure.str(),
        )

    def _topics_read(self) -> Iterable[str]:
        return self._topics

    def _is_disconnected(self, consumer: Consumer) -> bool:
        return self._must_rejoin or self._committer.is_stuck or super()._is_disconnected(consumer)

    def _abandon(self, consumer: Consumer) -> None:
        """Closes a consumer in the background, after a commit that has not returned."""
        committer, self._committer = self._committer, Committer()
        committer.close()
        close_in_background(consumer, committer.join)

    def _resume_on(self, new: Consumer, old: Consumer) -> None:  # noqa: ARG002
        """Joins the group with a new consumer, which is another member to the group."""
        self._must_rejoin = False
        self.arrivals.reset()
        lost = list(self.lag.starts)
        self._on_given_up(lost, handed_over=False)
        self._subscribed, self._joining = frozenset(), False  # first, since other threads look at these and the next
        self._forget(set(lost))
        self.forget(topic_partitions((key, 0) for key in lost))
        self._blocked_since, self._paused = None, False
        self._subscribe(new)

    def _do_actions(self, consumer: Consumer) -> None:
        super()._do_actions(consumer)
        if self._initial_offsets.ready_to_join(consumer, joining=self._joining):
            self._subscribe(consumer)

    def _subscribe(self, consumer: Consumer) -> None:
        if self._topics == self._subscribed:
            return
        topics = self._topics
        self._member = consumer
        if topics:
            consumer.subscribe(
                sorted(topics),
                on_assign=self._of_member(self._on_assign),
                on_revoke=self._of_member(self._on_revoke),
                on_lost=self._of_member(self._on_lost),
            )
        else:
            consumer.unsubscribe()
        self._subscribed, self._joining = topics, bool(topics)  # last: a failed attempt is repeated

    def _of_member(self, callback: _Rebalance) -> _Rebalance:
        """Returns a callback that has no effect for a consumer that was replaced: it is closed on another thread."""

        def call(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            if consumer is self._member:
                callback(consumer, partitions)
            else:
                consumer.unassign()

        return call

    def _wait_until_ready(self, consumer: Consumer) -> None:
        now = time.monotonic()
        self.arrivals.reset()
        self._blocked_since = self._blocked_since or now
        if not self._paused and now - self._blocked_since >= _PAUSE_AFTER:
            self._paused = True
            consumer.pause(consumer.assignment())
        if self._paused:
            message = consumer.poll(0)
            if message is not None:  # it was fetched before its partition was paused
                self._pending.append(message)
        self._signal.wait(_PAUSED_POLL)

    def _fetch(self, consumer: Consumer) -> list[Message]:
        """Fetches messages one by one, because each poll may run a rebalance.

        A message of a partition that was revoked just before is dropped: its new owner reads it.
        """
        if self._held:
            return self._poll_while_held(consumer)
        self.arrivals.on_poll()
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

    def _poll_while_held(self, consumer: Consumer) -> list[Message]:
        """Takes part in a rebalance, perhaps; returns the held messages that are still this member's."""
        self.arrivals.reset()
        if not self._paused:
            self._paused = True
            consumer.pause(consumer.assignment())
        message = consumer.poll(0)
        if message is not None:
            self._pending.append(message)
        self._signal.wait(_PAUSED_POLL)
        held, self._held = self._held, []
        return held

    def _is_read(self, message: Message) -> bool:  # noqa: ARG002
        return True  # no other member receives it

    def _process(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        latest = {
            _partition_of(message): message
            for message in messages
            if message.error() is None
            and message.topic() not in self._deleted
            and message.topic() not in self.released_topics
        }
        received = {key: (message.offset() or 0) + 1 for key, message in latest.items()}
        self._epochs.update(
            (key, epoch) for key, message in latest.items() if (epoch := message.leader_epoch()) is not None
        )
        values = [message.value() for message in messages if message.error() is None]
        first = bool(received) and self._receiver.commit_first(values)
        if first and not self._commit_before_delivery(consumer, received):
            self._held = list(messages)
            return
        super()._process(consumer, messages)
        self._received.update(received)
        if received and not first:
            consumer.store_offsets(offsets=self._with_epochs(received.items()))  # librdkafka commits them every second

    def _commit_before_delivery(self, consumer: Consumer, offsets: Mapping[Partition, int]) -> bool:
        """Commits the offsets after a batch; returns whether the coordinator accepted them."""
        # Stored first: otherwise librdkafka might commit an older stored offset right after this commit.
        consumer.store_offsets(offsets=self._with_epochs(offsets.items()))
        if self._commit_as_proof(consumer, offsets):
            return True
        reached = {key: self._received.get(key, self.lag.starts.get(key, OFFSET_INVALID)) for key in offsets}
        consumer.store_offsets(offsets=self._with_epochs(reached.items()))
        return False

    def _on_position_lost(self, consumer: Consumer, partition: Partition, lost: LostPosition | None) -> None:
        if partition in self._unresolved and lost is None:  # the group has not read the partition
            self._unresolved.discard(partition)
            self._restart_partition(consumer, TopicPartition(*partition, self._initial_offsets.get(partition) or 0))
        elif lost is not None and lost.departure is None and partition in self._epochs:
            # The record was fetched before the leader epochs were compared, which shows where to continue.
            self._restart_partition(consumer, *self._with_epochs([(partition, lost.offset)]))
        else:
            super()._on_position_lost(consumer, partition, lost)

    def _restart_partition(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Restarts a partition at another offset. An assignment by the group can only be replaced as a whole."""
        key = partition_of(partition)
        if key in self.lag.starts:
            self._on_given_up({key}, handed_over=False)  # what is received from now on may have the same offsets
            self.ownership.drop({key})
            self.arrivals.reset()
            others = [other for other in self._positions(consumer) if partition_of(other) != key]
            self.lag.add([partition])
            assign_validated(consumer, [*others, partition], [partition])
            if not self._paused:
                consumer.resume([partition])
            self._received[key] = partition.offset
            self._epochs.pop(key, None)
            consumer.store_offsets(offsets=[partition])

    def _start_offset(self, committed: TopicPartition) -> int:
        """Returns where to start reading an assigned partition: no record is to be received twice."""
        key, offset = partition_of(committed), self._initial_offsets.start_offset(committed)
        epoch = committed.leader_epoch if offset == committed.offset else None
        own_offset, own_epoch = self._lost_positions.pop(key, -1), self._epochs.pop(key, None)
        has_other_log = epoch is not None and own_epoch is not None and epoch > own_epoch  # truncated since, perhaps
        if own_offset >= offset and not has_other_log:
            offset, epoch = own_offset, own_epoch
        if epoch is not None:
            self._epochs[key] = epoch
        return offset

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.arrivals.reset()
        try:
            if self._closing:
                consumer.assign(partitions)
            else:
                self._read_assigned(consumer, partitions)
        finally:  # last, since other threads look at these and the partitions
            self.assignments += 1
            self._joining = False

    def _read_assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = fetch_committed(consumer, partitions, lambda: self._closing)
        if committed is None:
            self._unresolved.update(map(partition_of, partitions))
            self._must_rejoin = True
            starts, fresh = partitions, []
        else:
            begin = {partition_of(p): self._start_offset(p) for p in committed}
            fresh = [(partition_of(p), begin[partition_of(p)]) for p in committed if p.offset != begin[partition_of(p)]]
            starts = self._with_epochs(begin.items())
        assign_validated(consumer, starts, starts)
        self.lag.add(starts)
        if self._paused:
            consumer.pause(starts)
        else:
            consumer.resume(starts)  # librdkafka keeps the paused state of a partition that was given up
        self._commit(consumer, fresh)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = set(map(partition_of, partitions))
        self._reclaim(consumer, keys)
        failure = self._commit_given_up(consumer, keys)
        if failure is not None:
            self._warn_uncommitted(len(keys), failure)
        self._on_given_up(keys, handed_over=failure is None)
        self._unassign(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        _log.warning(
            "consumer group session expired (session.timeout.ms without a heartbeat), other members may receive records"
            " since the last commit again"
        )
        self._on_given_up(set(map(partition_of, partitions)), handed_over=False)
        self._unassign(consumer, partitions)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining = bool(self._subscribed)
        self.arrivals.reset()
        self._forget(set(map(partition_of, partitions)))
        self.forget(partitions)
        consumer.unassign()

    def _forget(self, keys: set[Partition]) -> None:
        self._lost_positions.update((key, offset) for key, offset in self._received.items() if key in keys)
        self.ownership.drop(keys)
        self._pending = [message for message in self._pending if _partition_of(message) not in keys]
        self._held = [message for message in self._held if _partition_of(message) not in keys]
        self._received = {key: offset for key, offset in self._received.items() if key not in keys}
        self._unresolved -= keys
