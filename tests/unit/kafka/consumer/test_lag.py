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
        self.asked: list[int] = []
        self.broken = False

    def position(self, partitions):
        if self.broken:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.asked.append(len(partitions))
        return [
            TopicPartition(p.topic, p.partition, self.positions.get((p.topic, p.partition), -1001)) for p in partitions
        ]

    def get_watermark_offsets(self, partition, cached):
        assert cached
        return 0, self.ends.get((partition.topic, partition.partition), -1001)


class World:
    def __init__(self) -> None:
        self.now = 10.0
        self.consumer: Any = FakeConsumer()
        self.lag = Lag(clock=lambda: self.now)

    def refresh(self) -> int:
        self.now += 1.0
        self.lag.refresh(self.consumer)
        return self.lag.total


@pytest.fixture
def world() -> World:
    return World()


def test_the_lag_is_the_sum_over_partitions(world):
    world.lag.add([TopicPartition("t", 0, 5), TopicPartition("t", 1, 0)])
    world.consumer.ends = {("t", 0): 15, ("t", 1): 3}
    world.consumer.positions = {("t", 0): 12}
    assert world.refresh() == 3 + 3
    world.consumer.positions = {("t", 0): 15, ("t", 1): 3}
    assert world.refresh() == 0


def test_unfetched_partitions_have_no_lag(world):
    world.lag.add([TopicPartition("t", 0, 5)])
    assert world.refresh() == 0


def test_removed_partitions_do_not_count(world):
    world.lag.add([TopicPartition("t", 0, 0), TopicPartition("u", 0, 0)])
    world.consumer.ends = {("t", 0): 10, ("u", 0): 1}
    assert world.refresh() == 11
    world.lag.remove([TopicPartition("t", 0)])
    assert world.lag.total == 1
    assert world.refresh() == 1


def test_it_is_measured_once_a_second(world):
    world.lag.add([TopicPartition("t", 0, 0)])
    world.refresh()
    world.lag.refresh(world.consumer)
    world.now += 0.5
    world.lag.refresh(world.consumer)
    assert world.consumer.asked == [1]


def test_many_partitions_take_turns(world):
    world.lag.add([TopicPartition("t", n, 0) for n in range(600)])
    world.consumer.ends = {("t", n): 1 for n in range(600)}
    assert [world.refresh() for _ in range(4)] == [256, 512, 600, 600]


def test_a_failure_keeps_the_lag(world):
    world.lag.add([TopicPartition("t", 0, 0)])
    world.consumer.ends = {("t", 0): 4}
    world.refresh()
    world.consumer.broken = True
    assert world.refresh() == 4
