"""Subscriptions of a source, with a fake poll loop and resolver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.consumer.lag import Lag
from k2eg_rx.kafka.consumer.leveling import Leveling
from k2eg_rx.kafka.consumer.source import ExactSource
from k2eg_rx.kafka.metadata.topic_subscription import TopicSubscription
from k2eg_rx.kafka.presence import _read_nothing
from k2eg_rx.transport import Span


class FakeConsumer:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[str, int, int]]]] = []

    def __getattr__(self, name: str) -> Callable[[list[Any]], None]:
        def record_call(partitions: list[Any]) -> None:
            self.calls.append((name, [(p.topic, p.partition, p.offset) for p in partitions]))

        return record_call


class FakePollLoop:
    def __init__(self) -> None:
        self.actions: list[Callable[[Any], None]] = []
        self.lag = Lag()
        self.leveling = Leveling()
        self.refreshed: list[list[str]] = []

    def start(self) -> None:
        pass

    def queue(self, action: Callable[[Any], None]) -> None:
        self.actions.append(action)

    def forget(self, partitions: list[Any]) -> None:
        self.lag.remove(partitions)

    def relocate(self, consumer: Any, partition: tuple[str, int], held: Span) -> None:
        consumer.relocate([TopicPartition(*partition, held.begin)])

    def refresh_metadata(self, consumer: object, topics: list[str]) -> None:
        self.refreshed.append(list(topics))

    def released(self, topic: str) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass


class FakeResolver:
    def __init__(self) -> None:
        self.added: list[TopicSubscription] = []
        self.missing: list[tuple[str, bool]] = []
        self.lost: list[tuple[str, int]] = []

    def add(self, subscription: TopicSubscription) -> None:
        self.added.append(subscription)

    def on_missing(self, subscription: TopicSubscription, *, deleted: bool = False) -> None:
        self.missing.append((subscription.topic, deleted))

    def on_position_lost(self, subscription: TopicSubscription, partition: int) -> None:
        self.lost.append((subscription.topic, partition))


class Harness:
    def __init__(self) -> None:
        self.resolver = FakeResolver()
        self.poll_loop = FakePollLoop()
        self.consumer = FakeConsumer()
        self.source = ExactSource(cast(Any, self.resolver), lambda listener: cast(Any, self.poll_loop))

    def run(self) -> list[tuple[str, list[tuple[str, int, int]]]]:
        """Runs the queued actions; returns the calls of the consumer."""
        while self.poll_loop.actions:
            self.poll_loop.actions.pop(0)(self.consumer)
        return self.consumer.calls


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_initial_offsets_are_assigned_unchanged(harness):
    harness.source.read("t")
    harness.source.begin([(harness.resolver.added[0], {0: 4, 1: 0})])
    assert harness.run() == [("incremental_assign", [("t", 0, 4), ("t", 1, 0)])]
    assert harness.poll_loop.refreshed == [["t"]]
    assert harness.poll_loop.lag.starts == {("t", 0): 4, ("t", 1): 0}


def test_initial_offsets_found_after_the_release_are_not_assigned(harness):
    harness.source.read("t")
    harness.source.release("t")
    harness.source.begin([(harness.resolver.added[0], {0: 4})])
    assert harness.run() == []
    assert harness.poll_loop.lag.starts == {}


def test_a_release_unassigns_partitions(harness):
    harness.source.read("t")
    harness.source.begin([(harness.resolver.added[0], {0: 4})])
    harness.run()
    harness.source.release("t")
    assert harness.run()[1:] == [("incremental_unassign", [("t", 0, 4)])]
    assert harness.poll_loop.lag.starts == {}


def test_reading_twice_is_one_subscription(harness):
    assert harness.source.read("t") is harness.source.read("t")
    assert len(harness.resolver.added) == 1


def test_reading_after_a_release_or_failure_is_a_new_subscription(harness):
    first = harness.source.read("t")
    harness.source.release("t")
    second = harness.source.read("t")
    harness.resolver.added[1].fail(TransportError("forbidden"))
    third = harness.source.read("t")
    assert len({id(first), id(second), id(third)}) == 3
    assert not third.done()


def test_a_release_fails_a_pending_read(harness):
    ready = harness.source.read("t")
    harness.source.release("t")
    with pytest.raises(TransportError, match="released"):
        ready.result(0)


def test_releasing_an_unread_topic_does_nothing(harness):
    harness.source.release("t")
    assert harness.poll_loop.actions == []


def test_missing_topics_are_reported_to_the_resolver_while_subscribed(harness):
    harness.source.read("t")
    for topic in ("t", "another"):
        harness.source.on_topic_missing(topic)
        harness.source.on_partition_count(topic, 0)
        harness.source.on_partition_count(topic, 5)
    assert harness.resolver.missing == [("t", False), ("t", True), ("t", False)]


def test_lost_positions_are_looked_up_while_subscribed_and_relocated_on_the_poll_thread(harness):
    harness.source.read("t")
    for topic in ("t", "another"):
        harness.source.on_position_lost(topic, 1)
    assert harness.resolver.lost == [("t", 1)]
    harness.source.relocate(harness.resolver.added[0], 1, Span(3, 8))
    assert harness.consumer.calls == []
    assert harness.run() == [("relocate", [("t", 1, 3)])]


def test_a_missing_consumer_fails_pending_and_later_reads(harness):
    waiting = harness.source.read("t")
    harness.source.on_failed(TransportError("no consumer"))
    for ready in (waiting, harness.source.read("u")):
        with pytest.raises(TransportError, match="no consumer"):
            ready.result(0)


def test_presence_assigns_no_partition():
    consumer = FakeConsumer()
    _read_nothing(cast(Any, consumer), [cast(Any, object())])
    assert consumer.calls == [("assign", [])]
