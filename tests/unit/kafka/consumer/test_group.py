"""Commits, assignments and subscriptions of a group member, on the test's thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer import group, group_offsets, ownership
from k2eg_rx.kafka.consumer.group import GroupPollLoop
from k2eg_rx.kafka.consumer.source import GroupSource
from k2eg_rx.kafka.metadata.topic_subscription import TopicSubscription
from k2eg_rx.transport.interfaces import Assignment, Receiver, Record, Span

Offsets = dict[tuple[str, int], int]


def _offsets(partitions: Sequence[TopicPartition]) -> Offsets:
    return {(p.topic, p.partition): p.offset for p in partitions}


class Unfetched(TopicPartition):
    """A partition whose committed offset the coordinator does not return."""

    @property
    def error(self) -> KafkaError:
        return KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


class FakeConsumer:
    """The only member of a group."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.group: Offsets = {}
        self.metadata: dict[tuple[str, int], str | None] = {}
        self.stored: Offsets = {}
        self.epochs: dict[tuple[str, int], int | None] = {}  # with the committed offsets
        self.validated: list[int | None] = []
        self.stored_epochs: dict[tuple[str, int], int | None] = {}
        self.subscriptions: list[list[str]] = []
        self.assigned: list[TopicPartition] = []
        self.commit_errors: list[int] = []  # codes
        self.failed_fetches = 0
        self.fetch_errors: list[int] = []  # codes, raised by `committed`
        self.newest_only: set[tuple[str, int]] = set()  # partitions whose records are all new
        self.knows_positions = True  # librdkafka has no position before the first record
        self.paused: set[tuple[str, int]] = set()  # as in librdkafka, unassigned partitions stay paused

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, list[TopicPartition]], None]) -> None:
        self.subscriptions.append(topics)
        self.callbacks = callbacks

    def unsubscribe(self) -> None:
        self.subscriptions.append([])

    def list_topics(self, topic: str, timeout: float) -> None: ...

    def poll(self, timeout: float) -> Message | None:
        return self.messages.popleft() if self.messages else None

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.fetch_errors:
            raise KafkaException(KafkaError(self.fetch_errors.pop()))
        if self.failed_fetches:
            self.failed_fetches -= 1
            return [Unfetched(p.topic, p.partition) for p in partitions]
        keys = [(p.topic, p.partition) for p in partitions]
        return [
            TopicPartition(*key, self.group.get(key, OFFSET_INVALID), self.metadata.get(key, ""), self.epoch_of(key))
            for key in keys
        ]

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        keys = [(p.topic, p.partition) for p in partitions]
        return [TopicPartition(*key, 0 if key in self.newest_only else OFFSET_END) for key in keys]

    def epoch_of(self, key: tuple[str, int]) -> int:
        epoch = self.epochs.get(key)
        return -1 if epoch is None else epoch

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        if self.commit_errors:
            raise KafkaException(KafkaError(self.commit_errors.pop()))
        self.group.update(_offsets(offsets))
        self.metadata.update({(p.topic, p.partition): p.metadata for p in offsets})
        self.epochs.update({(p.topic, p.partition): p.leader_epoch for p in offsets})

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored.update(_offsets(offsets))
        self.stored_epochs.update({(p.topic, p.partition): p.leader_epoch for p in offsets})

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions

    def seek(self, partition: TopicPartition) -> None:
        self.validated.append(partition.leader_epoch)

    def unassign(self) -> None:
        self.assigned = []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition) for p in self.assigned]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= set(_offsets(partitions))

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= set(_offsets(partitions))

    def close(self) -> None:
        pass

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        positions = _offsets(self.assigned) if self.knows_positions else {}
        keys = [(p.topic, p.partition) for p in partitions]
        return [TopicPartition(*key, positions.get(key, OFFSET_INVALID)) for key in keys]

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 0


class Harness(Receiver):
    """A poll loop of a group with a fake consumer."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_ready = True
        self.commits_first = False
        self.on_receive: Callable[[], None] = lambda: None
        self.revoked: list[tuple[Collection[tuple[str, int]], bool]] = []
        self.undelivered: Offsets = {}
        self.reclaimed: list[Collection[tuple[str, int]]] = []
        self.consumer: Any = FakeConsumer()
        translator = ErrorTranslator("broker:9092")
        self.poll_loop = GroupPollLoop(
            "test", {}, receiver=self, listener=self, health=Health(StatusEvents(), translator), translator=translator
        )
        self.subscription = TopicSubscription("t", self)

    def ready(self) -> bool:
        return self.is_ready

    def receive(self, records: Sequence[Record]) -> None:
        self.on_receive()
        self.records.extend(records)

    def commit_first(self, values: Sequence[bytes | None]) -> bool:
        return self.commits_first and values != []

    def on_revoked(self, partitions: Collection[tuple[str, int]], *, handed_over: bool) -> None:
        self.revoked.append((set(partitions), handed_over))

    def reclaim_undelivered(self, partitions: Collection[tuple[str, int]]) -> Offsets:
        self.reclaimed.append(set(partitions))
        return self.undelivered

    def begin(self, starts: object) -> None: ...
    def halt(self, subscription: TopicSubscription) -> None: ...
    def on_topic_missing(self, topic: str) -> None: ...
    def on_partition_count(self, topic: str, partitions: int) -> None: ...
    def on_position_lost(self, topic: str, partition: int) -> None: ...
    def relocate(self, subscription: TopicSubscription, partition: int, held: Span) -> None: ...
    def on_failed(self, error: TransportError) -> None: ...

    def queue_begin(self) -> None:
        self.poll_loop.queue(lambda consumer: self.poll_loop.begin(consumer, [(self.subscription, {0: 0})]))

    def queue_halt(self) -> None:
        self.poll_loop.queue(lambda consumer: self.poll_loop.halt(consumer, self.subscription))

    def queue_begin_another(self, start: int) -> None:
        initial_offsets = [(TopicSubscription("another", self), {0: start})]
        self.poll_loop.queue(lambda consumer: self.poll_loop.begin(consumer, initial_offsets))

    def step(self, *offsets: int, epoch: int = -1) -> None:
        self.consumer.messages.extend(
            Message(topic="t", partition=0, offset=n, value=b"x", leader_epoch=epoch) for n in offsets
        )
        self.poll_loop._step(self.consumer)

    def lose(self, offset: int, held: Span) -> None:
        error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "Broker: Offset out of range")
        self.consumer.messages.append(Message(topic="t", partition=0, offset=offset, error=error))
        self.poll_loop._step(self.consumer)
        self.poll_loop.queue(lambda consumer: self.poll_loop.relocate(consumer, ("t", 0), held))
        self.step()

    def commit_by_another(self, offset: int, epoch: int | None) -> None:
        self.consumer.group["t", 0], self.consumer.epochs["t", 0] = offset, epoch

    @property
    def start(self) -> tuple[int, int | None]:
        (partition,) = self.consumer.assigned
        return partition.offset, partition.leader_epoch

    def assign(self) -> None:
        self.poll_loop._on_assign(self.consumer, [TopicPartition("t", 0)])

    def revoke(self) -> None:
        self.poll_loop._on_revoke(self.consumer, [TopicPartition("t", 0)])


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.queue_begin()
    harness.step()
    harness.assign()
    harness.step(0, 1)
    assert [record.offset for record in harness.records] == [0, 1]
    assert harness.consumer.stored == {("t", 0): 2}
    return harness


def test_records_are_committed_before_they_are_received_if_the_receiver_asks_for_it(harness):
    seen: list[Offsets] = []
    harness.on_receive = lambda: seen.append(dict(harness.consumer.group))
    harness.step(2)
    assert seen == [{("t", 0): 0}], "only the initial offset"
    assert not harness.poll_loop.ownership.covers(("t", 0), 2)
    harness.commits_first = True
    harness.step(3, 4)
    assert seen[1:] == [{("t", 0): 5}]
    assert harness.poll_loop.ownership.covers(("t", 0), 4)
    assert not harness.poll_loop.ownership.covers(("t", 0), 5)
    assert not harness.poll_loop.ownership.covers(("t", 1), 0)


def test_records_wait_until_the_coordinator_accepts_their_offsets(harness, monkeypatch):
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    harness.commits_first = True
    harness.consumer.commit_errors = [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.REBALANCE_IN_PROGRESS]
    harness.step(2)
    assert harness.consumer.stored == {("t", 0): 2}, "librdkafka must not commit them either"
    harness.step(3)
    assert [record.offset for record in harness.records] == [0, 1]
    assert harness.consumer.paused == {("t", 0)}
    harness.step()
    harness.step()
    assert [record.offset for record in harness.records] == [0, 1, 2, 3]
    assert harness.consumer.paused == set()
    assert harness.consumer.group == {("t", 0): 4}


def test_records_that_wait_for_their_commit_are_left_to_the_next_owner(harness, monkeypatch):
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    harness.commits_first = True
    harness.consumer.commit_errors = [KafkaError.REBALANCE_IN_PROGRESS]
    harness.step(2)
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 2}
    harness.step()
    assert [record.offset for record in harness.records] == [0, 1]
    assert not harness.poll_loop.ownership.covers(("t", 0), 1)


def test_the_ownership_of_records_ends_with_time_and_is_confirmed_by_a_commit(harness, monkeypatch):
    now = 100.0
    monkeypatch.setattr(ownership, "elapsed", lambda: now)
    monkeypatch.setattr(group, "elapsed", lambda: now)
    owned = partial(harness.poll_loop.ownership.covers, ("t", 0), 1)
    assert not owned(), "nothing was committed yet"
    harness.poll_loop.confirm(harness.consumer)
    assert owned()
    now += 22.0  # a session lasts 45 s
    assert owned()
    now += 1.0
    assert not owned()
    harness.consumer.commit_errors = [KafkaError.ILLEGAL_GENERATION]
    harness.poll_loop.confirm(harness.consumer)
    assert not owned()
    harness.poll_loop.confirm(harness.consumer)
    assert owned()
    harness.revoke()
    assert not owned()
    harness.assign()
    harness.poll_loop.confirm(harness.consumer)
    assert not owned(), "no record was received since the assignment"


def test_confirmations_that_wait_are_one_commit(harness, monkeypatch):
    """While there is no coordinator each commit blocks; meanwhile others are asked for."""
    commits: list[Offsets] = []
    confirmed: list[str] = []
    commit = harness.consumer.commit

    def slow_commit(offsets: list[TopicPartition], asynchronous: bool) -> None:
        commits.append(_offsets(offsets))
        if len(commits) == 1:
            for name in ("b", "c"):
                harness.poll_loop.confirm_soon(partial(confirmed.append, name))
        commit(offsets, asynchronous)

    monkeypatch.setattr(harness.consumer, "commit", slow_commit)
    harness.poll_loop.confirm_soon(partial(confirmed.append, "a"))
    harness.poll_loop.confirm_soon(partial(confirmed.append, "b"))
    harness.step()
    assert commits == [{("t", 0): 2}] * 2
    assert confirmed == ["a", "b", "b", "c"]


def test_a_consumer_without_a_broker_sends_no_commit_after_one_that_failed(harness, monkeypatch):
    """It would block the thread that has to replace the consumer."""
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    commits = 0
    is_connected = False

    def list_topics(topic: str, timeout: float) -> None:
        assert (topic, timeout) == ("t", 0)
        if not is_connected:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def commit(offsets: list[TopicPartition], asynchronous: bool) -> None:
        nonlocal commits
        commits += 1
        if not is_connected:
            raise KafkaException(KafkaError(KafkaError._WAIT_COORD))

    harness.consumer.commit, harness.consumer.list_topics = commit, list_topics
    for _ in range(3):
        harness.poll_loop.confirm(harness.consumer)
    harness.commits_first = True
    harness.step(2)
    harness.step()
    assert commits == 1
    assert [record.offset for record in harness.records] == [0, 1], "the record waits"
    harness.consumer.list_topics = None  # in a rebalance callback it would abort the process
    harness.revoke()
    harness.assign()
    harness.consumer.list_topics = list_topics
    assert commits == 3
    harness.step(2)
    is_connected = True
    harness.step()
    for _ in range(3):
        harness.poll_loop.confirm(harness.consumer)
    assert commits == 7
    assert [record.offset for record in harness.records] == [0, 1, 2]
    assert harness.poll_loop.ownership.is_proven()


def test_a_commit_that_does_not_return_ends_with_its_consumer(harness, monkeypatch):
    """librdkafka's waits without limit; the thread that polls must go on, with another consumer."""
    monkeypatch.setattr(group_offsets, "COMMIT_TIMEOUT", 0.05)
    returns, closed = threading.Event(), threading.Event()
    old, new = harness.consumer, FakeConsumer()
    old.commit = lambda offsets, asynchronous: (returns.wait(), None)[1]
    old.close = closed.set
    monkeypatch.setattr(harness.poll_loop, "_make", lambda: new)
    harness.poll_loop.confirm(old)
    harness.poll_loop.confirm(old)
    assert not harness.poll_loop.ownership.is_proven()
    assert harness.poll_loop._is_disconnected(old)
    assert harness.poll_loop._replace(old) is new
    harness.consumer = new
    harness.assign()
    assert not harness.poll_loop._is_disconnected(new)
    harness.step(2)
    harness.poll_loop.confirm(new)
    assert harness.poll_loop.ownership.is_proven()
    assert not closed.is_set(), "another thread uses it still"
    returns.set()
    assert closed.wait(10.0)


def test_a_member_is_closed_while_its_commit_does_not_return(harness, monkeypatch):
    monkeypatch.setattr(group_offsets, "COMMIT_TIMEOUT", 0.05)
    returns, closed = threading.Event(), threading.Event()
    harness.consumer.commit = lambda offsets, asynchronous: (returns.wait(), None)[1]
    harness.consumer.close = closed.set
    harness.poll_loop.confirm(harness.consumer)
    harness.poll_loop._leave(harness.consumer)
    assert not closed.is_set()
    returns.set()
    assert closed.wait(10.0)


def test_a_commit_that_fails_for_a_partition_confirms_nothing(harness):
    class Refused(TopicPartition):
        error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    harness.consumer.commit = lambda offsets, asynchronous: [Refused("t", 0)]
    harness.poll_loop.confirm(harness.consumer)
    assert not harness.poll_loop.ownership.covers(("t", 0), 1)


def test_the_receiver_is_notified_of_partitions_that_other_members_may_read(harness):
    harness.revoke()
    assert harness.revoked == [({("t", 0)}, True)]
    harness.assign()
    harness.step(2)
    harness.consumer.commit_errors = [KafkaError.REBALANCE_IN_PROGRESS]
    harness.revoke()
    assert harness.revoked[1:] == [({("t", 0)}, False)]
    harness.assign()
    harness.poll_loop._on_lost(harness.consumer, [TopicPartition("t", 0)])
    assert harness.revoked[2:] == [({("t", 0)}, False)]
    assert len(harness.reclaimed) == 2, "without a session there is no handover"
    harness.assign()
    harness.poll_loop._resume_on(FakeConsumer(), harness.consumer)
    assert harness.revoked[3:] == [({("t", 0)}, False)]
    harness.assign()
    harness.poll_loop._leave(harness.consumer)
    assert harness.revoked[4:] == [({("t", 0)}, True)]


@pytest.mark.parametrize("late", ["on_revoke", "on_lost", "on_assign"])
def test_a_replaced_consumer_changes_nothing_when_it_is_closed(harness, late):
    old, new = harness.consumer, FakeConsumer()
    harness.poll_loop._resume_on(new, old)
    new.callbacks["on_assign"](new, [TopicPartition("t", 0)])
    harness.revoked.clear()
    old.callbacks[late](old, [TopicPartition("t", 0)])  # by the thread that closes it, after the new assignment
    assert harness.poll_loop.is_assigned
    assert (old.assigned, harness.revoked) == ([], [])
    harness.consumer = new
    harness.step(2)
    assert harness.records[-1].offset == 2


def test_received_records_of_a_released_topic_are_committed(harness):
    harness.subscription.released = True
    harness.queue_halt()
    harness.step()
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 2}
    assert harness.consumer.subscriptions == [["t"], []]


def test_no_offset_of_a_deleted_topic_is_committed(harness):
    harness.consumer.group.clear()  # as the broker does
    harness.queue_halt()
    harness.step()
    harness.revoke()
    assert harness.consumer.group == {}
    assert harness.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_record_polled_during_the_deletion_of_its_topic_is_received_and_not_committed(harness):
    harness.consumer.group.clear()
    harness.consumer.poll = lambda timeout, poll=harness.consumer.poll: (harness.queue_halt(), poll(timeout))[1]
    harness.step(2)
    assert [record.offset for record in harness.records] == [0, 1, 2]
    harness.revoke()
    assert harness.consumer.group == {}
    assert harness.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_topic_created_again_at_once_is_subscribed_again(harness):
    """Otherwise the member would keep the deleted partitions and their positions."""
    harness.consumer.group.clear()
    harness.queue_halt()
    harness.queue_begin()
    harness.step()
    assert harness.consumer.subscriptions == [["t"], [], ["t"]]
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 0}
    harness.assign()
    harness.step(0)
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 1}


def test_records_of_a_revoked_partition_are_left_to_its_new_owner(harness):
    poll = harness.consumer.poll

    def revoke_and_poll(timeout: float) -> Message | None:
        harness.consumer.poll = poll  # revoked once only
        harness.revoke()
        return poll(timeout)

    harness.consumer.poll = revoke_and_poll
    harness.step(2)
    assert [record.offset for record in harness.records] == [0, 1]
    assert harness.consumer.group == {("t", 0): 2}
    assert harness.consumer.stored == {("t", 0): 2}


def test_undelivered_records_go_to_the_next_owner_of_the_partition(harness):
    harness.undelivered = {("t", 0): 1}
    harness.revoke()
    assert harness.reclaimed == [{("t", 0)}]
    assert harness.consumer.group == {("t", 0): 1}
    assert harness.consumer.stored == {("t", 0): 1}
    harness.assign()
    assert _offsets(harness.consumer.assigned) == {("t", 0): 1}


def test_a_leaving_member_commits_only_delivered_records(harness):
    harness.undelivered = {("t", 0): 1}
    harness.poll_loop._leave(harness.consumer)
    assert harness.consumer.group == {("t", 0): 1}


def test_reclaimed_offsets_do_not_exceed_the_received_ones(harness):
    harness.undelivered = {("t", 0): 7, ("other", 0): 0}
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 2}


def test_if_reclaiming_raises_all_received_records_count_as_delivered(harness, caplog):
    harness.reclaim_undelivered = harness.poll_loop._receiver.reclaim_undelivered = lambda partitions: 1 / 0
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 2}
    assert "raised" in caplog.text


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(group_offsets, "time", clock)
    return clock


def test_an_initial_offset_is_committed_before_the_subscription(harness, clock):
    harness.queue_begin_another(0)
    harness.step()
    assert harness.consumer.group["another", 0] == 0
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


def test_a_later_initial_offset_waits_for_an_offset_at_the_beginning(harness, clock):
    """A member that found the topic missing commits its beginning once it discovers the topic."""
    harness.queue_begin_another(2)
    harness.step()
    assert ("another", 0) not in harness.consumer.group
    harness.consumer.group["another", 0] = 0
    clock.now += group_offsets.RETRY
    harness.step()
    assert harness.consumer.group["another", 0] == 0
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


def test_a_later_initial_offset_is_committed_if_there_is_no_other(harness, clock):
    harness.queue_begin_another(2)
    harness.step()
    clock.now += group_offsets.GRACE + group_offsets.RETRY
    harness.step()
    assert harness.consumer.group["another", 0] == 2
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


def test_a_later_initial_offset_of_a_new_topic_waits_for_a_slow_member(harness, clock):
    """A member on a busy machine may look for the topic, and join, later than once a second."""
    harness.consumer.newest_only = {("another", 0)}
    harness.queue_begin_another(2)
    harness.step()
    clock.now += group_offsets.GRACE + group_offsets.RETRY
    harness.step()
    assert ("another", 0) not in harness.consumer.group
    assert harness.consumer.subscriptions[-1] == ["t"]
    clock.now += group_offsets.GRACE_OF_NEW
    harness.step()
    assert harness.consumer.group["another", 0] == 2
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


def test_an_initial_offset_is_committed_once_the_coordinator_answers(harness, clock):
    harness.consumer.fetch_errors = [KafkaError._TIMED_OUT]
    harness.consumer.failed_fetches = 1
    harness.queue_begin_another(0)
    for _ in range(2):
        harness.step()
        assert harness.consumer.subscriptions[-1] == ["t"]
        clock.now += group_offsets.RETRY
    harness.step()
    assert harness.consumer.group["another", 0] == 0
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


def test_a_member_that_may_not_read_the_group_joins_and_learns_why(harness, clock):
    harness.consumer.fetch_errors = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    harness.queue_begin_another(0)
    harness.step()
    assert harness.consumer.subscriptions[-1] == ["another", "t"]


@pytest.mark.parametrize(("metadata", "start"), [("start", 2), ("", 7)])
def test_the_lowest_initial_offset_applies_until_a_member_has_read_records(harness, clock, metadata, start):
    harness.consumer.group["another", 0] = 7
    harness.consumer.metadata["another", 0] = metadata
    harness.queue_begin_another(2)
    harness.step()
    assert harness.consumer.group["another", 0] == start
    harness.consumer.group["another", 0] = 7
    harness.consumer.metadata["another", 0] = metadata
    harness.poll_loop._on_assign(harness.consumer, [TopicPartition("another", 0)])
    assert _offsets(harness.consumer.assigned) == {("another", 0): start}
    assert harness.consumer.group["another", 0] == start


def test_an_initial_offset_is_committed_after_a_rebalance(harness, clock):
    harness.revoke()
    harness.queue_begin_another(0)
    harness.step()
    assert harness.consumer.subscriptions == [["t"]]
    harness.assign()
    harness.consumer.commit_errors = [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS]
    for _ in range(2):
        harness.step()
        harness.step()
        assert ("another", 0) not in harness.consumer.group
        clock.now += group_offsets.RETRY
    harness.step()
    assert harness.consumer.group["another", 0] == 0
    assert harness.consumer.subscriptions == [["t"], ["another", "t"]]


def test_committing_an_initial_offset_times_out(harness, clock):
    harness.revoke()
    for _ in range(2):  # the second time for as long
        harness.queue_begin_another(0)
        harness.step()
        assert harness.consumer.subscriptions[-1] == ["t"]
        clock.now += group_offsets.PATIENCE
        harness.step()
        assert harness.consumer.subscriptions[-1] == ["another", "t"]
        harness.poll_loop._topics = harness.poll_loop._subscribed = frozenset("t")
        harness.consumer.subscriptions.append(["t"])


def test_a_consumer_that_is_not_yet_a_member_joins_without_a_commit(harness, clock):
    harness.consumer.commit_errors = [KafkaError.UNKNOWN_MEMBER_ID]
    harness.queue_begin_another(0)
    harness.step()
    assert harness.consumer.subscriptions == [["t"], ["another", "t"]]


def test_committed_offsets_are_requested_until_the_coordinator_returns_them(harness):
    harness.revoke()
    harness.consumer.failed_fetches = 2
    harness.assign()
    assert harness.consumer.failed_fetches == 0
    assert _offsets(harness.consumer.assigned) == {("t", 0): 2}


@pytest.mark.parametrize("knows_positions", [True, False])
def test_restarting_a_partition_keeps_the_positions_of_others(harness, knows_positions):
    harness.consumer.knows_positions = knows_positions
    harness.revoke()
    harness.poll_loop._on_assign(harness.consumer, [TopicPartition("t", 0), TopicPartition("t", 1)])
    harness.poll_loop._restart_partition(harness.consumer, TopicPartition("t", 1, 9))
    assert _offsets(harness.consumer.assigned) == {("t", 0): 2, ("t", 1): 9}
    harness.poll_loop._restart_partition(harness.consumer, TopicPartition("t", 5, 9))
    assert _offsets(harness.consumer.assigned) == {("t", 0): 2, ("t", 1): 9}


def test_a_partition_revoked_while_paused_is_resumed_when_assigned_again(harness, monkeypatch):
    monkeypatch.setattr(group, "_PAUSE_AFTER", 0.0)
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    harness.is_ready = False
    harness.step()
    assert harness.consumer.paused == {("t", 0)}
    harness.revoke()
    harness.is_ready = True
    harness.step()
    harness.assign()
    assert harness.consumer.paused == set()


def test_a_partition_assigned_while_the_receiver_is_not_ready_is_paused(harness, monkeypatch):
    monkeypatch.setattr(group, "_PAUSE_AFTER", 0.0)
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    harness.revoke()
    harness.is_ready = False
    harness.step()
    harness.assign()
    assert harness.consumer.paused == {("t", 0)}


def test_offsets_are_stored_committed_and_assigned_with_the_leader_epoch_of_their_records(harness):
    """By it librdkafka notices that the log was truncated, and that other records have the same offsets now."""
    harness.step(2, 3, epoch=0)
    harness.step(4, epoch=3)
    assert harness.consumer.stored_epochs == {("t", 0): 3}
    harness.revoke()
    assert harness.consumer.epochs == {("t", 0): 3}
    harness.assign()
    assert harness.start == (5, 3)
    assert harness.consumer.validated == [3]


@pytest.mark.parametrize(
    ("committed", "start"),
    [
        pytest.param((9, 4), (9, 4), id="another member has read on"),
        pytest.param((9, None), (9, None), id="another member has read on, and commits no epochs"),
        pytest.param((3, 3), (5, 3), id="own records that were not committed"),
        pytest.param((3, None), (5, 3), id="own records, committed in part without an epoch"),
        pytest.param((3, 4), (3, 4), id="another member has read a truncated log"),
    ],
)
def test_a_start_offset_has_the_epoch_of_its_own_record(harness, committed, start):
    """With an older epoch, librdkafka would take the log for truncated, and repeat records."""
    harness.step(2, 3, 4, epoch=3)
    harness.revoke()
    harness.commit_by_another(*committed)
    harness.assign()
    assert harness.start == start


def test_a_position_out_of_range_is_assigned_again_with_its_leader_epoch_to_learn_where_to_continue(harness):
    harness.step(2, 3, 4, epoch=7)
    harness.lose(5, Span(0, 3))
    assert harness.start == (5, 7)
    assert harness.consumer.validated == [7]
    assert harness.consumer.paused == set()
    harness.lose(5, Span(0, 3))  # once only
    assert harness.start == (3, None)


def test_after_a_truncated_log_the_offset_of_the_continuation_is_committed(harness):
    harness.step(2, 3, 4)
    harness.revoked.clear()
    harness.lose(5, Span(0, 3))
    assert harness.start == (3, None)
    assert harness.consumer.stored == {("t", 0): 3}
    assert harness.revoked == [({("t", 0)}, False)], "other commands have the same offsets now"
    harness.revoke()
    assert harness.consumer.group == {("t", 0): 3}
    harness.assign()
    assert harness.start == (3, None)


def test_a_committed_offset_that_was_unknown_and_is_out_of_range_is_relocated(harness):
    """Not at the initial offset, where records would be received again."""
    harness.revoke()
    harness.poll_loop._unresolved.add(("t", 0))
    harness.assign()
    harness.poll_loop._unresolved.add(("t", 0))
    harness.lose(5, Span(0, 3))
    assert harness.start == (3, None)


def test_a_commit_proves_the_session_even_if_no_record_was_received(harness, monkeypatch):
    now = 100.0
    monkeypatch.setattr(ownership, "elapsed", lambda: now)
    monkeypatch.setattr(group, "elapsed", lambda: now)
    harness.revoke()
    harness.assign()
    proven = harness.poll_loop.ownership.is_proven
    assert not proven()
    harness.poll_loop.confirm(harness.consumer)
    assert proven()
    assert not harness.poll_loop.ownership.covers(("t", 0), 1)
    now += 22.0  # a session lasts 45 s
    assert proven()
    now += 1.0
    assert not proven()
    harness.consumer.commit_errors = [KafkaError.UNKNOWN_MEMBER_ID]
    harness.poll_loop.confirm(harness.consumer)
    assert not proven()


@pytest.mark.parametrize("is_proven", [False, True])
def test_a_member_that_gives_up_partitions_shows_that_they_were_its_own(harness, is_proven):
    """It has received nothing of them, and the time for its next proof has not come."""
    harness.revoke()
    harness.assign()
    harness.consumer.group.clear()
    if is_proven:
        harness.poll_loop.confirm_soon(lambda: None)  # not carried out yet
    harness.revoke()
    assert harness.consumer.group == ({("t", 0): 2} if is_proven else {}), "no commit unless it is asked for"
    assert harness.revoked[1:] == [({("t", 0)}, True)]


def test_a_member_whose_last_proof_is_refused_hands_nothing_over(harness):
    harness.revoke()
    harness.assign()
    harness.poll_loop.confirm_soon(lambda: None)
    harness.consumer.commit_errors = [KafkaError.UNKNOWN_MEMBER_ID]
    harness.revoke()
    assert harness.revoked[1:] == [({("t", 0)}, False)]


def test_an_assignment_is_seen_with_its_partitions_or_not_at_all(harness, monkeypatch):
    """Other threads look at it while the consumer waits for the coordinator."""
    monkeypatch.setattr(harness.poll_loop, "start", lambda: None)
    source = GroupSource(cast("Any", None), lambda _: harness.poll_loop)
    seen: list[Assignment | None] = []
    for name in ("committed", "assign", "unassign", "commit", "resume", "subscribe"):
        method = getattr(harness.consumer, name)

        def watched(*args, method=method, **kwargs):
            seen.append(source.assignment())
            return method(*args, **kwargs)

        monkeypatch.setattr(harness.consumer, name, watched)
    forget = harness.poll_loop.forget

    def watched_forget(partitions):
        forget(partitions)
        seen.append(source.assignment())

    monkeypatch.setattr(harness.poll_loop, "forget", watched_forget)
    first = source.assignment()
    harness.revoke()
    harness.assign()
    second = source.assignment()
    harness.poll_loop._resume_on(harness.consumer, harness.consumer)
    owned = frozenset({("t", 0)})
    assert (first, second) == (Assignment(1, 1, owned), Assignment(1, 2, owned))
    assert None in seen
    assert {*seen} <= {None, first, second}


def test_a_member_whose_assignment_raised_is_not_joining_for_ever(harness, monkeypatch):
    harness.revoke()
    monkeypatch.setattr(group, "assign_validated", Mock(side_effect=KafkaException(KafkaError(KafkaError._STATE))))
    with pytest.raises(KafkaException):
        harness.assign()
    assert harness.poll_loop.is_assigned


def test_a_proof_commits_no_offset_of_a_deleted_topic(harness):
    """It would apply to a new topic of that name."""
    harness.queue_halt()
    harness.step()
    harness.consumer.group.clear()
    harness.poll_loop.confirm(harness.consumer)
    assert harness.consumer.group == {}
