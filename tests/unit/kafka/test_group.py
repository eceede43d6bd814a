"""What a member of a group commits and subscribes to when a topic is deleted; by hand, on the test's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from confluent_kafka import OFFSET_INVALID, Message, TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.announcements import Announcements
from k2eg_rx.kafka.failures import Failures
from k2eg_rx.kafka.group import GroupPump
from k2eg_rx.kafka.health import Health
from k2eg_rx.kafka.reading import Reading
from k2eg_rx.transport import Receiver, Record

Offsets = dict[tuple[str, int], int]


def _offsets(partitions: Sequence[TopicPartition]) -> Offsets:
    return {(p.topic, p.partition): p.offset for p in partitions}


class FakeConsumer:
    """A member that is alone in its group."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.group: Offsets = {}
        self.stored: Offsets = {}
        self.subscriptions: list[list[str]] = []

    def subscribe(self, topics: list[str], **callbacks: object) -> None:
        self.subscriptions.append(topics)

    def unsubscribe(self) -> None:
        self.subscriptions.append([])

    def poll(self, timeout: float) -> Message | None:
        return self.messages.popleft() if self.messages else None

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        at = self.group
        return [
            TopicPartition(p.topic, p.partition, at.get((p.topic, p.partition), OFFSET_INVALID)) for p in partitions
        ]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.group.update(_offsets(offsets))

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored.update(_offsets(offsets))

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.started = _offsets(partitions)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        pass

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return partitions

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 0


class World(Receiver):
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.consumer = FakeConsumer()
        failures = Failures("broker:9092")
        self.pump = GroupPump(
            "test", {}, receiver=self, watcher=self, health=Health(Announcements(), failures), failures=failures
        )
        self.reading = Reading("t", self)

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        self.records.extend(records)

    def gone(self, topic: str) -> None: ...
    def changed(self, topic: str, partitions: int) -> None: ...
    def useless(self, error: TransportError) -> None: ...

    def queue_begin(self) -> None:
        self.pump.queue(lambda consumer: self.pump.begin(consumer, [(self.reading, {0: 0})]))

    def queue_halt(self) -> None:
        self.pump.queue(lambda consumer: self.pump.halt(consumer, self.reading))

    def turn(self, *offsets: int) -> None:
        self.consumer.messages.extend(Message(topic="t", partition=0, offset=n, value=b"x") for n in offsets)
        self.pump._turn(self.consumer)

    def assign(self) -> None:
        self.pump._on_assign(self.consumer, [TopicPartition("t", 0)])

    def revoke(self) -> None:
        self.pump._on_revoke(self.consumer, [TopicPartition("t", 0)])


@pytest.fixture
def world() -> World:
    world = World()
    world.queue_begin()
    world.turn()
    world.assign()
    world.turn(0, 1)
    assert [record.offset for record in world.records] == [0, 1]
    assert world.consumer.stored == {("t", 0): 2}
    return world


def test_what_was_received_of_a_released_topic_is_committed(world):
    world.reading.released = True
    world.queue_halt()
    world.turn()
    world.revoke()
    assert world.consumer.group == {("t", 0): 2}
    assert world.consumer.subscriptions == [["t"], []]


def test_nothing_is_committed_of_a_deleted_topic(world):
    world.consumer.group.clear()  # as the broker does
    world.queue_halt()
    world.turn()
    world.revoke()
    assert world.consumer.group == {}
    assert world.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_record_that_is_in_hand_when_its_topic_is_deleted_is_received_and_not_committed(world):
    world.consumer.group.clear()
    world.consumer.poll = lambda timeout, poll=world.consumer.poll: (world.queue_halt(), poll(timeout))[1]
    world.turn(2)
    assert [record.offset for record in world.records] == [0, 1, 2]
    world.revoke()
    assert world.consumer.group == {}
    assert world.consumer.stored == {("t", 0): OFFSET_INVALID}


def test_a_topic_that_is_made_again_at_once_is_subscribed_to_anew(world):
    """Else the member kept the partitions that were deleted, and where it was in them."""
    world.consumer.group.clear()
    world.queue_halt()
    world.queue_begin()
    world.turn()
    assert world.consumer.subscriptions == [["t"], [], ["t"]]
    world.revoke()
    assert world.consumer.group == {("t", 0): 0}
    world.assign()
    world.turn(0)
    world.revoke()
    assert world.consumer.group == {("t", 0): 1}


def test_what_still_comes_of_a_partition_that_was_taken_away_is_left_to_its_new_reader(world):
    poll = world.consumer.poll

    def revoke_and_poll(timeout: float) -> Message | None:
        world.consumer.poll = poll  # once: the next one would forget what this one gives
        world.revoke()
        return poll(timeout)

    world.consumer.poll = revoke_and_poll
    world.turn(2)
    assert [record.offset for record in world.records] == [0, 1]
    assert world.consumer.group == {("t", 0): 2}
    assert world.consumer.stored == {("t", 0): 2}
