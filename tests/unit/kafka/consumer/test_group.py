"""Commits, assignments and subscriptions of a group member, on the test's thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer import group, group_offsets
from k2eg_rx.kafka.consumer.group import GroupPollLoop
from k2eg_rx.kafka.metadata.topic_subscription import TopicSubscription
from k2eg_rx.transport.interfaces import Receiver, Record

Offsets = dict[tuple[str, int], int]


def _offsets(partitions: Sequence[TopicPartition]) -> Offsets:
    return {(p.topic, p.partition): p.offset for p in partitions}


class Unfetched(TopicPartition):
    """A partition of which the coordinator does not say where the group left off."""

    @property
    def error(self) -> KafkaError:
        return KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


class FakeConsumer:
    """A member that is alone in its group."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.group: Offsets = {}
        self.metadata: dict[tuple[str, int], str | None] = {}
        self.stored: Offsets = {}
        self.subscriptions: list[list[str]] = []
        self.assigned: list[TopicPartition] = []
        self.refusals: list[int] = []  # of commits, by Kafka's number
        self.failed_fetches = 0
        self.knows_positions = True  # it does not where it has not given a record yet
        self.paused: set[tuple[str, int]] = set()  # also of what is not assigned any more, as librdkafka has it

    def subscribe(self, topics: list[str], **callbacks: object) -> None:
        self.subscriptions.append(topics)

    def unsubscribe(self) -> None:
        self.subscriptions.append([])

    def poll(self, timeout: float) -> Message | None:
        return self.messages.popleft() if self.messages else None

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.failed_fetches:
            self.failed_fetches -= 1
            return [Unfetched(p.topic, p.partition) for p in partitions]
        keys = [(p.topic, p.partition) for p in partitions]
        return [TopicPartition(*key, self.group.get(key, OFFSET_INVALID), self.metadata.get(key, "")) for key in keys]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        if self.refusals:
            raise KafkaException(KafkaError(self.refusals.pop()))
        self.group.update(_offsets(offsets))
        self.metadata.update({(p.topic, p.partition): p.metadata for p in offsets})

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored.update(_offsets(offsets))

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions

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
        at = _offsets(self.assigned) if self.knows_positions else {}
        keys = [(p.topic, p.partition) for p in partitions]
        return [TopicPartition(*key, at.get(key, OFFSET_INVALID)) for key in keys]

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 0


class World(Receiver):
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_ready = True
        self.unused: Offsets = {}
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
        self.records.extend(records)

    def reclaim_undelivered(self, partitions: Collection[tuple[str, int]]) -> Offsets:
        self.reclaimed.append(set(partitions))
        return self.unused

    def begin(self, starts: object) -> None: ...
    def halt(self, subscription: TopicSubscription) -> None: ...
    def on_topic_missing(self, topic: str) -> None: ...
    def on_partition_count(self, topic: str, partitions: int) -> None: ...
    def on_failed(self, error: TransportError) -> None: ...

    def queue_begin(self) -> None:
        self.poll_loop.queue(lambda consumer: self.poll_loop.begin(consumer, [(self.subscription, {0: 0})]))

    def queue_halt(self) -> None:
        self.poll_loop.queue(lambda consumer: self.poll_loop.halt(consumer, self.subscription))

    def queue_begin_another(self, start: int) -> None:
        group_offsets = [(TopicSubscription("another", self), {0: start})]
        self.poll_loop.queue(lambda consumer: self.poll_loop.begin(consumer, group_offsets))

    def step(self, *offsets: int) -> None:
        self.consumer.messages.extend(Message(topic="t", partition=0, offset=n, value=b"x") for n in offsets)
        self.poll_loop._step(self.consumer)

    def assign(self) -> None:
        self.poll_loop._on_assign(self.consumer, [TopicPartition("t", 0)])

    def revoke(self) -> None:
        self.poll_loop._on_revoke(self.consumer, [TopicPartition("t", 0)])


@pytest.fixture
def world() -> World:
    world = World()
    world.queue_begin()
    world.step()
    world.assign()
    world.step(0, 1)
    assert [record.offset for record in world.records] == [0, 1]
    assert world.consumer.stored == {("t", 0): 2}
    return world


def test_what_was_received_of_a_released_topic_is_committed(world):
    world.subscription.released = True
    world.queue_halt()
    world.step()
    world.revoke()
    assert world.consumer.group == {("t", 0): 2}
    assert world.consumer.subscriptions == [["t"], []]


def test_nothing_is_committed_of_a_deleted_topic(world):
    world.consumer.group.clear()  # as the broker does
    world.queue_halt()
    world.step()
    world.revoke()
    assert world.consumer.group == {}
    assert world.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_record_that_is_in_hand_when_its_topic_is_deleted_is_received_and_not_committed(world):
    world.consumer.group.clear()
    world.consumer.poll = lambda timeout, poll=world.consumer.poll: (world.queue_halt(), poll(timeout))[1]
    world.step(2)
    assert [record.offset for record in world.records] == [0, 1, 2]
    world.revoke()
    assert world.consumer.group == {}
    assert world.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_topic_that_is_made_again_at_once_is_subscribed_to_anew(world):
    """Else the member kept the partitions that were deleted, and where it was in them."""
    world.consumer.group.clear()
    world.queue_halt()
    world.queue_begin()
    world.step()
    assert world.consumer.subscriptions == [["t"], [], ["t"]]
    world.revoke()
    assert world.consumer.group == {("t", 0): 0}
    world.assign()
    world.step(0)
    world.revoke()
    assert world.consumer.group == {("t", 0): 1}


def test_what_still_comes_of_a_partition_that_was_taken_away_is_left_to_its_new_reader(world):
    poll = world.consumer.poll

    def revoke_and_poll(timeout: float) -> Message | None:
        world.consumer.poll = poll  # once: the next one would forget what this one gives
        world.revoke()
        return poll(timeout)

    world.consumer.poll = revoke_and_poll
    world.step(2)
    assert [record.offset for record in world.records] == [0, 1]
    assert world.consumer.group == {("t", 0): 2}
    assert world.consumer.stored == {("t", 0): 2}


def test_undelivered_records_go_to_the_next_owner_of_the_partition(world):
    world.unused = {("t", 0): 1}
    world.revoke()
    assert world.reclaimed == [{("t", 0)}]
    assert world.consumer.group == {("t", 0): 1}
    assert world.consumer.stored == {("t", 0): 1}
    world.assign()
    assert _offsets(world.consumer.assigned) == {("t", 0): 1}


def test_a_member_that_leaves_recalls_what_it_has_not_used(world):
    world.unused = {("t", 0): 1}
    world.poll_loop._leave(world.consumer)
    assert world.consumer.group == {("t", 0): 1}


def test_more_than_was_received_is_not_given_back(world):
    world.unused = {("t", 0): 7, ("other", 0): 0}
    world.revoke()
    assert world.consumer.group == {("t", 0): 2}


def test_a_receiver_that_raises_has_used_it_all(world, caplog):
    world.reclaim_undelivered = world.poll_loop._receiver.reclaim_undelivered = lambda partitions: 1 / 0
    world.revoke()
    assert world.consumer.group == {("t", 0): 2}
    assert "raised" in caplog.text


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(group_offsets, "time", clock)
    return clock


def test_a_start_is_committed_before_its_topic_is_subscribed_to(world, clock):
    world.queue_begin_another(0)
    world.step()
    assert world.consumer.group["another", 0] == 0
    assert world.consumer.subscriptions[-1] == ["another", "t"]


def test_a_start_within_a_topic_waits_for_one_at_its_beginning(world, clock):
    """By a member that saw that the topic was missing, and finds it later."""
    world.queue_begin_another(2)
    world.step()
    assert ("another", 0) not in world.consumer.group
    world.consumer.group["another", 0] = 0
    clock.now += group_offsets.RETRY
    world.step()
    assert world.consumer.group["another", 0] == 0
    assert world.consumer.subscriptions[-1] == ["another", "t"]


def test_a_start_within_a_topic_is_committed_if_no_other_one_is(world, clock):
    world.queue_begin_another(2)
    world.step()
    clock.now += group_offsets.GRACE + group_offsets.RETRY
    world.step()
    assert world.consumer.group["another", 0] == 2
    assert world.consumer.subscriptions[-1] == ["another", "t"]


@pytest.mark.parametrize(("metadata", "start"), [("start", 2), ("", 7)])
def test_the_lowest_start_counts_until_a_member_has_read_on(world, clock, metadata, start):
    world.consumer.group["another", 0] = 7
    world.consumer.metadata["another", 0] = metadata
    world.queue_begin_another(2)
    world.step()
    assert world.consumer.group["another", 0] == start
    world.consumer.group["another", 0] = 7
    world.consumer.metadata["another", 0] = metadata
    world.poll_loop._on_assign(world.consumer, [TopicPartition("another", 0)])
    assert _offsets(world.consumer.assigned) == {("another", 0): start}
    assert world.consumer.group["another", 0] == start


def test_a_start_that_a_rebalance_is_in_the_way_of_is_committed_after_it(world, clock):
    world.revoke()
    world.queue_begin_another(0)
    world.step()
    assert world.consumer.subscriptions == [["t"]]
    world.assign()
    world.consumer.refusals = [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS]
    for _ in range(2):
        world.step()
        world.step()
        assert ("another", 0) not in world.consumer.group
        clock.now += group_offsets.RETRY
    world.step()
    assert world.consumer.group["another", 0] == 0
    assert world.consumer.subscriptions == [["t"], ["another", "t"]]


def test_a_start_that_cannot_be_committed_is_waited_for_no_longer_than_ten_seconds(world, clock):
    world.revoke()
    for _ in range(2):  # as long each time
        world.queue_begin_another(0)
        world.step()
        assert world.consumer.subscriptions[-1] == ["t"]
        clock.now += group_offsets.PATIENCE
        world.step()
        assert world.consumer.subscriptions[-1] == ["another", "t"]
        world.poll_loop._topics = world.poll_loop._subscribed = frozenset("t")
        world.consumer.subscriptions.append(["t"])


def test_only_a_member_may_commit_so_one_that_is_none_yet_joins(world, clock):
    world.consumer.refusals = [KafkaError.UNKNOWN_MEMBER_ID]
    world.queue_begin_another(0)
    world.step()
    assert world.consumer.subscriptions == [["t"], ["another", "t"]]


def test_where_the_group_left_off_is_asked_for_until_the_coordinator_says_so(world):
    world.revoke()
    world.consumer.failed_fetches = 2
    world.assign()
    assert world.consumer.failed_fetches == 0
    assert _offsets(world.consumer.assigned) == {("t", 0): 2}


@pytest.mark.parametrize("knows_positions", [True, False])
def test_a_partition_that_is_read_from_elsewhere_leaves_the_others_where_they_are(world, knows_positions):
    world.consumer.knows_positions = knows_positions
    world.revoke()
    world.poll_loop._on_assign(world.consumer, [TopicPartition("t", 0), TopicPartition("t", 1)])
    world.poll_loop._restart_partition(world.consumer, TopicPartition("t", 1, 9))
    assert _offsets(world.consumer.assigned) == {("t", 0): 2, ("t", 1): 9}
    world.poll_loop._restart_partition(world.consumer, TopicPartition("t", 5, 9))
    assert _offsets(world.consumer.assigned) == {("t", 0): 2, ("t", 1): 9}


def test_a_partition_that_is_paused_when_it_is_given_up_is_read_when_it_comes_back(world, monkeypatch):
    monkeypatch.setattr(group, "_PAUSE_AFTER", 0.0)
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    world.is_ready = False
    world.step()
    assert world.consumer.paused == {("t", 0)}
    world.revoke()
    world.is_ready = True
    world.step()
    world.assign()
    assert world.consumer.paused == set()


def test_a_partition_that_comes_while_nothing_more_is_welcome_waits(world, monkeypatch):
    monkeypatch.setattr(group, "_PAUSE_AFTER", 0.0)
    monkeypatch.setattr(group, "_PAUSED_POLL", 0.0)
    world.revoke()
    world.is_ready = False
    world.step()
    world.assign()
    assert world.consumer.paused == {("t", 0)}
