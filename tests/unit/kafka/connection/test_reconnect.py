"""Replacement of clients that have lost their brokers while the cluster answers others."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog
from k2eg_rx.kafka.connection.status_events import StatusEvents


class World:
    """A client, seconds that pass, and a cluster that answers to others when it is doubted, or does not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.code = KafkaError._TIMED_OUT  # asked, and no time to wait for the answer
        self.asked = 0
        self.answers = True
        self.health = Health(StatusEvents(), ErrorTranslator("broker:9092"), clock=lambda: self.now)
        self.health.on_answer()
        self.health.on_suspicion = self._answer
        self.watchdog = ConnectionWatchdog(self.health, clock=lambda: self.now)

    def _answer(self) -> None:
        if self.answers:
            self.now += 0.01
            self.health.on_answer()

    def list_topics(self, topic: str, timeout: float) -> None:
        assert (topic, timeout) == ("t", 0)
        self.asked += 1
        raise KafkaException(KafkaError(self.code))

    def checks(self, seconds: int) -> list[bool]:
        results: list[bool] = []
        for _ in range(seconds):
            self.now += 1.0
            results.append(self.watchdog.is_disconnected(self, "t"))
        return results


@pytest.fixture
def world() -> World:
    return World()


def test_a_connected_client_is_checked_every_five_seconds(world):
    assert not any(world.checks(60))
    assert world.asked == 12


def test_a_client_without_a_broker_is_replaced_while_others_get_answers(world):
    world.code = KafkaError._TRANSPORT
    assert world.checks(10).index(True) == 7, "five seconds until the first look, and three more looks"


def test_a_client_is_kept_while_the_cluster_does_not_answer(world):
    world.code, world.answers = KafkaError._TRANSPORT, False
    assert not any(world.checks(60))
    world.answers = True
    assert world.checks(5).index(True) == 3, "from the first answer on"


def test_a_reconnected_client_is_kept(world):
    world.code = KafkaError._TRANSPORT
    assert not any(world.checks(7))
    world.code = KafkaError._TIMED_OUT
    assert not any(world.checks(20))
    world.code = KafkaError._TRANSPORT
    assert world.checks(9).index(True) >= 3


def test_an_error_triggers_a_check_at_once(world):
    world.checks(6)
    assert world.asked == 1
    world.health.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    world.checks(1)
    assert world.asked == 2


def test_the_new_client_is_checked_as_long(world):
    world.code = KafkaError._TRANSPORT
    results = world.checks(30)
    assert [second for second, cut in enumerate(results) if cut] == [7, 15, 23]
