"""Partitions of a consumer that is far behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from k2eg_rx.kafka.consumer.lag import Lag, Partition
from k2eg_rx.kafka.consumer.leveling import Leveling
from k2eg_rx.protocol import Record

END = 100_000


class FakeConsumer:
    def __init__(self) -> None:
        self.paused: set[Partition] = set()
        self.ends: dict[Partition, int] = {}
        self.wakes = 0

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused -= {(p.topic, p.partition) for p in partitions}

    def get_watermark_offsets(self, partition: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self.ends.get((partition.topic, partition.partition), END)

    def list_topics(self, topic: str, timeout: float) -> None:
        assert timeout == 0
        self.wakes += 1


class Harness:
    """Topics a, b and c of one partition, which are far behind; a record each 100 ms."""

    def __init__(self) -> None:
        self.now = 10.0
        self.consumer: Any = FakeConsumer()
        self.leveling = Leveling(clock=lambda: self.now)
        self.lag = Lag()
        self.lag.by_partition = {(topic, 0): 20_000 for topic in "abc"}
        self.lag.is_far = True
        self.read = dict.fromkeys("abc", 0)
        self.leveling.update(self.consumer, self.lag)

    def add(self, topic: str, count: int, size: int = 500) -> None:
        """Reads records of a topic."""
        numbers = range(self.read[topic], self.read[topic] + count)
        self.read[topic] += count
        self.leveling.add(
            self.consumer, [Record(topic, 0, number, None, bytes(size), (), 1_000 + number * 100) for number in numbers]
        )

    @property
    def paused(self) -> str:
        return "".join(sorted(topic for topic, _ in self.consumer.paused))


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_partition_that_is_ahead_waits_for_the_slowest_one(harness: Harness) -> None:
    harness.add("a", 3_000)
    assert harness.paused == "a"
    harness.add("b", 2_995)
    assert harness.paused == "ab", "nothing of c yet"
    harness.add("c", 2_980)
    assert (harness.paused, harness.consumer.wakes) == ("ab", 0)
    harness.add("c", 5)
    assert harness.paused == "a", "b is a second ahead"
    harness.add("c", 5)
    assert harness.paused == ""
    assert harness.consumer.wakes == 2, "librdkafka fetches at once"


def test_partitions_read_a_fetch_before_they_wait(harness: Harness) -> None:
    harness.add("a", 2_000)
    assert harness.paused == ""
    harness.add("b", 100, size=20_000)
    assert harness.paused == "b", "it has read as many bytes"


def test_a_partition_without_further_records_is_not_waited_for(harness: Harness) -> None:
    harness.consumer.ends["c", 0] = 1
    harness.add("c", 1)
    harness.add("b", 3_000)
    harness.add("a", 2_990)
    assert harness.paused == "", "both are at the same time"
    harness.add("a", 1_000)
    assert harness.paused == "a"


def test_a_partition_of_which_nothing_comes_is_given_up(harness: Harness) -> None:
    harness.add("a", 5_000)
    harness.add("b", 5_000)
    harness.now += 1.9
    harness.leveling.update(harness.consumer, harness.lag)
    assert harness.paused == "ab"
    harness.now += 0.2
    harness.leveling.update(harness.consumer, harness.lag)
    assert harness.paused == ""
    harness.leveling.update(harness.consumer, harness.lag)
    harness.add("a", 5_000)
    assert harness.paused == "a", "b is waited for"
    harness.add("c", 1)
    harness.add("b", 5_000)
    assert harness.paused == "ab", "c has come, and is waited for again"


def test_all_go_on_when_the_consumer_has_come_up(harness: Harness) -> None:
    harness.add("a", 3_000)
    assert (harness.paused, harness.leveling.is_active) == ("a", True)
    harness.lag.is_far = False
    harness.leveling.update(harness.consumer, harness.lag)
    assert (harness.paused, harness.leveling.is_active) == ("", False)


def test_a_released_partition_is_resumed_and_waited_for_no_more(harness: Harness) -> None:
    harness.add("a", 3_000)
    harness.add("b", 3_000)
    harness.leveling.forget(harness.consumer, [TopicPartition("a", 0), TopicPartition("c", 0)])
    assert harness.paused == "b"
    harness.add("b", 1)
    assert harness.paused == "", "it is the only one"


def test_a_consumer_that_keeps_up_is_left_alone(harness: Harness) -> None:
    leveling, harness.lag.is_far = Leveling(), False
    leveling.update(harness.consumer, harness.lag)
    assert not leveling.is_active
