"""Consumer lag."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from k2eg_rx.kafka.consumer.lag import Lag


class FakeConsumer:
    def __init__(self) -> None:
        self.positions: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.requests: list[int] = []
        self.broken = False

    def position(self, partitions):
        if self.broken:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.requests.append(len(partitions))
        return [
            TopicPartition(p.topic, p.partition, self.positions.get((p.topic, p.partition), -1001)) for p in partitions
        ]

    def get_watermark_offsets(self, partition, cached):
        assert cached
        return 0, self.ends.get((partition.topic, partition.partition), -1001)


class Harness:
    def __init__(self) -> None:
        self.now = 10.0
        self.consumer: Any = FakeConsumer()
        self.lag = Lag(clock=lambda: self.now)

    def refresh(self) -> int:
        self.now += 1.0
        self.lag.refresh(self.consumer)
        return self.lag.total


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_the_lag_is_the_sum_over_partitions(harness):
    harness.lag.add([TopicPartition("t", 0, 5), TopicPartition("t", 1, 0)])
    harness.consumer.ends = {("t", 0): 15, ("t", 1): 3}
    harness.consumer.positions = {("t", 0): 12}
    assert harness.refresh() == 3 + 3
    harness.consumer.positions = {("t", 0): 15, ("t", 1): 3}
    assert harness.refresh() == 0


def test_a_consumer_is_far_behind_until_it_is_near_the_end(harness):
    harness.lag.add([TopicPartition("t", 0, 0)])
    far: list[bool] = []
    for end in (9_999, 10_000, 1_000, 999, 9_999):
        harness.consumer.ends = {("t", 0): end}
        harness.refresh()
        far.append(harness.lag.is_far)
    assert far == [False, True, True, False, False]


def test_unfetched_partitions_have_no_lag(harness):
    harness.lag.add([TopicPartition("t", 0, 5)])
    assert harness.refresh() == 0


def test_removed_partitions_do_not_count(harness):
    harness.lag.add([TopicPartition("t", 0, 0), TopicPartition("u", 0, 0)])
    harness.consumer.ends = {("t", 0): 10, ("u", 0): 1}
    assert harness.refresh() == 11
    harness.lag.remove([TopicPartition("t", 0)])
    assert harness.lag.total == 1
    assert harness.refresh() == 1


def test_the_lag_is_measured_once_a_second(harness):
    harness.lag.add([TopicPartition("t", 0, 0)])
    harness.refresh()
    harness.lag.refresh(harness.consumer)
    harness.now += 0.5
    harness.lag.refresh(harness.consumer)
    assert harness.consumer.requests == [1]


def test_many_partitions_take_turns(harness):
    harness.lag.add([TopicPartition("t", n, 0) for n in range(600)])
    harness.consumer.ends = {("t", n): 1 for n in range(600)}
    assert [harness.refresh() for _ in range(4)] == [256, 512, 600, 600]


def test_a_failure_keeps_the_lag(harness):
    harness.lag.add([TopicPartition("t", 0, 0)])
    harness.consumer.ends = {("t", 0): 4}
    harness.refresh()
    harness.consumer.broken = True
    assert harness.refresh() == 4
