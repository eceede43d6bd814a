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
from k2eg_rx.kafka.connection.errors import Failures, error_of
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.consumer.group_offsets import COMMITTED_TIMEOUT, OF_A_REBALANCE, InitialOffsets, key_of
from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, Watcher
from k2eg_rx.kafka.consumer.source import TopicSource
from k2eg_rx.kafka.metadata.cluster import Ends
from k2eg_rx.kafka.metadata.topic_subscription import Reading
from k2eg_rx.transport import Offsets, Receiver

_log = logging.getLogger(__name__)

_COORDINATOR_PATIENCE = 10.0  # seconds that a coordinator has to come about when a partition is taken over
_PATIENCE = 1.0  # seconds of not being ready, after which the prefetch is given up to go on taking part in the group
_HELD_POLL = 0.1  # seconds between polls then: how late this member may be at a rebalance


def _key_of(message: Message) -> Partition:
    partition = message.partition()
    return message.topic() or "", -1 if partition is None else partition


def _at(offsets: Iterable[tuple[Partition, int]], metadata: str = "") -> list[TopicPartition]:
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
        watcher: Watcher,
        health: Health,
        failures: Failures,
    ) -> None:
        super().__init__(name, properties, receiver=receiver, watcher=watcher, health=health, failures=failures)
        self._topics: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._held_since: float | None = None
        self._paused = False
        self._starts = InitialOffsets(self._commit)
        self._joining = False  # subscribed to something, and not assigned anything yet
        self._received: dict[Partition, int] = {}  # of the partitions that are ours: the offset after what was received
        self._gone: set[str] = set()  # topics that were deleted, until they are read again
        # What was received of partitions that were lost: if nobody else has gone further, they go on there, and nothing
        # is received twice by one that only lost touch with the group.
        self._reached: dict[Partition, int] = {}
        self._unknown: set[Partition] = set()  # ours, but where the group left off could not be found out
        self._in_hand: list[Message] = []
        # Topics that nobody here wants any more: what comes of them counts as not received. Anybody adds, the pump's
        # thread removes; each access is one atomic operation.
        self.left: set[str] = set()
        # librdkafka was left to find out where the group left off. If it fails as well, it reads nothing and says so
        # once: rather a new consumer that joins the group.
        self._astray = False

    def begin(self, consumer: Consumer, starts: Sequence[tuple[Reading, Ends]]) -> None:
        """Takes part in reading topics."""
        pins = {(reading.topic, n): offset for reading, ends in starts for n, offset in ends.items()}
        topics = {reading.topic for reading, _ in starts}
        if topics & self._gone & self._subscribed:
            self._subscribe(consumer)  # lets go of the partitions that were deleted, and of where it was in them
        self._gone -= topics
        self.left -= topics
        self._starts.add(pins)
        self._topics |= topics

    def halt(self, consumer: Consumer, reading: Reading) -> None:
        """Takes no part in reading a topic any more."""
        self._topics -= {reading.topic}
        self._starts.drop(reading.topic)
        self._reached = {key: offset for key, offset in self._reached.items() if key[0] != reading.topic}
        if not reading.released:
            self._gone.add(reading.topic)
            self._disown(consumer, reading.topic)

    def release_for_rebalance(self, consumer: Consumer, unused: Offsets) -> None:
        """Has the next member begin with what was received here and was of no use."""
        self._lower(consumer, unused)
        self._reached = {key: offset for key, offset in self._reached.items() if key not in unused}

    def _recall(self, consumer: Consumer, partitions: Collection[Partition]) -> None:
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
            consumer.store_offsets(offsets=_at(lower.items()))

    def _disown(self, consumer: Consumer, topic: str) -> None:
        """Has nothing committed of a topic that was deleted."""
        received = {key for key in self._received if key[0] == topic}
        self._received = {key: offset for key, offset in self._received.items() if key not in received}
        with contextlib.suppress(KafkaException):  # its partitions are not this member's any more
            consumer.store_offsets(offsets=_at((key, OFFSET_INVALID) for key in received))

    def _commit(
        self, consumer: Consumer, offsets: Iterable[tuple[Partition, int]], metadata: str = ""
    ) -> KafkaError | None:
        """Commits; what was in the way, if something was."""
        partitions = _at(offsets, metadata)
        if not partitions:
            return None
        try:
            consumer.commit(offsets=partitions, asynchronous=False)
        except KafkaException as failure:
            _log.info("not committed now: %s", failure)
            return error_of(failure)
        return None

    def _leave(self, consumer: Consumer) -> None:
        """Commits what was used, once a rebalance under way lets it, and leaves the group."""
        if not self._joining:
            self._starts.tell(consumer)
        self._recall(consumer, self._received.keys())
        failure = self._commit(consumer, self._received.items())
        while failure is not None and failure.code() in OF_A_REBALANCE and time.monotonic() < self._deadline:
            consumer.pause(consumer.assignment())
            consumer.poll(_HELD_POLL)
            failure = self._commit(consumer, self._received.items())
        if failure is not None:
            self._tell_uncommitted(len(self._received), failure)
        self._received.clear()  # while it closes, librdkafka answers no more requests: it would be waited for in vain
        super()._leave(consumer)

    def _tell_uncommitted(self, count: int, failure: KafkaError) -> None:
        _log.warning(
            "what this member received of %d partitions could not be committed before they went to others of its group,"
            " which may receive it too: %s",
            count,
            failure.str(),
        )

    def _topics_read(self) -> Iterable[str]:
        return self._topics

    def _is_cut(self, consumer: Consumer) -> bool:
        return self._astray or super()._is_cut(consumer)

    def _take_over(self, new: Consumer, old: Consumer) -> None:  # noqa: ARG002
        """Joins the group once more; for the other members it is another one that does."""
        self._astray = False
        lost = list(self.lag.starts)
        self._forget(set(lost))
        self.lag.remove(_at((key, 0) for key in lost))
        self._subscribed, self._joining = frozenset(), False
        self._held_since, self._paused = None, False
        self._subscribe(new)

    def _do_actions(self, consumer: Consumer) -> None:
        super()._do_actions(consumer)
        if self._starts.are_told(consumer, joining=self._joining):
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

    def _hold(self, consumer: Consumer) -> None:
        now = time.monotonic()
        self._held_since = self._held_since or now
        if not self._paused and now - self._held_since >= _PATIENCE:
            self._paused = True
            consumer.pause(consumer.assignment())
        if self._paused:
            message = consumer.poll(0)
            if message is not None:  # it was on its way when its partition was paused
                self._in_hand.append(message)
        self._signal.wait(_HELD_POLL)

    def _gather(self, consumer: Consumer) -> list[Message]:
        """Takes what there is, one by one: a partition may be taken away at any poll, but not within one.

        What librdkafka still gives of a partition just after it was taken away is left to whoever has it now.
        """
        self._held_since = None
        if self._paused:
            self._paused = False
            consumer.resume(consumer.assignment())
        batch = self._batch()
        message = consumer.poll(0 if self._in_hand else self._patience())
        while message is not None:
            self._in_hand.append(message)
            message = consumer.poll(0) if len(self._in_hand) < batch else None
        ours = self.lag.starts
        messages = [message for message in self._in_hand if message.error() is not None or _key_of(message) in ours]
        self._in_hand = []
        return messages

    def _is_read(self, message: Message) -> bool:  # noqa: ARG002
        return True  # the group has given it to this member, and another would get it if this one did not take it

    def _hand_over(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        super()._hand_over(consumer, messages)
        received = {
            _key_of(message): (message.offset() or 0) + 1
            for message in messages
            if message.error() is None and message.topic() not in self._gone and message.topic() not in self.left
        }
        self._received.update(received)
        if received:
            consumer.store_offsets(offsets=_at(received.items()))  # librdkafka commits them once a second

    def _restart(self, topic: str, partition: int) -> int:
        if (topic, partition) not in self._unknown:
            return super()._restart(topic, partition)
        self._unknown.discard((topic, partition))  # the group has not read it before
        return self._starts.of((topic, partition)) or 0

    def _committed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition] | None:
        """Where the group left off; None if the coordinator does not say so. One that moves, or loads, does soon."""
        deadline = time.monotonic() + _COORDINATOR_PATIENCE
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
            time.sleep(_HELD_POLL)

    def _start_again(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Reads a partition from elsewhere. What is assigned to a member can only be changed as a whole."""
        if key_of(partition) in self.lag.starts:
            others = [other for other in self._positions(consumer) if key_of(other) != key_of(partition)]
            consumer.assign([*others, partition])

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining = False
        if self._closing:
            consumer.assign(partitions)
            return
        committed = self._committed(consumer, partitions)
        if committed is None:
            self._unknown.update(map(key_of, partitions))
            self._astray = True
            starts, fresh = partitions, []
        else:
            begin = {key_of(p): max(self._starts.left_off(p), self._reached.pop(key_of(p), 0)) for p in committed}
            fresh = [(key_of(p), begin[key_of(p)]) for p in committed if p.offset != begin[key_of(p)]]
            starts = _at(begin.items())
        consumer.assign(starts)
        self.lag.add(starts)
        if self._paused:
            consumer.pause(starts)
        else:
            consumer.resume(starts)  # librdkafka has a partition stay paused that was when it was given up
        self._commit(consumer, fresh)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = set(map(key_of, partitions))
        self._recall(consumer, keys)
        failure = self._commit(consumer, [(key, offset) for key, offset in self._received.items() if key in keys])
        if failure is not None:
            self._tell_uncommitted(len(keys), failure)
        self._give_up(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        _log.warning(
            "the consumer group took this member for dead (no heartbeat for session.timeout.ms); what it received since"
            " its last commit, another member may receive too"
        )
        self._give_up(consumer, partitions)

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining = bool(self._subscribed)
        self._forget(set(map(key_of, partitions)))
        self.lag.remove(partitions)
        consumer.unassign()

    def _forget(self, keys: set[Partition]) -> None:
        self._reached.update((key, offset) for key, offset in self._received.items() if key in keys)
        self._in_hand = [message for message in self._in_hand if _key_of(message) not in keys]
        self._received = {key: offset for key, offset in self._received.items() if key not in keys}
        self._unknown -= keys


class GroupSource(TopicSource[GroupPollLoop]):
    """Reads its group's share of the topics."""

    def begin(self, starts: Sequence[tuple[Reading, Ends]]) -> None:
        """Takes part in reading topics."""
        self._pump.queue(
            lambda consumer: self._pump.begin(
                consumer, [(reading, ends) for reading, ends in starts if not reading.released]
            )
        )

    def halt(self, reading: Reading) -> None:
        """Takes no part in reading a topic any more."""
        if not reading.released:
            self.on_gone(reading.topic)
        self._pump.queue(lambda consumer: self._pump.halt(consumer, reading))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Takes no part in reading topics any more; see `RecordSource.release_for_rebalance`."""
        self._pump.left.update(topics)
        offsets = unused()
        self._pump.queue(lambda consumer: self._pump.release_for_rebalance(consumer, offsets))
        for topic in topics:
            self.release(topic)
