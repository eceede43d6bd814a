"""When a client is given up: it has no broker time and again, while the cluster answers to others."""

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

    def verdicts(self, seconds: int) -> list[bool]:
        verdicts: list[bool] = []
        for _ in range(seconds):
            self.now += 1.0
            verdicts.append(self.watchdog.is_disconnected(self, "t"))
        return verdicts


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_has_a_broker_is_looked_at_once_in_a_while(world):
    assert not any(world.verdicts(60))
    assert world.asked == 12


def test_one_without_while_others_have_one_is_given_up(world):
    world.code = KafkaError._TRANSPORT
    assert world.verdicts(10).index(True) == 7, "five seconds until the first look, and three more looks"


def test_while_nobody_is_answered_it_may_be_the_cluster(world):
    world.code, world.answers = KafkaError._TRANSPORT, False
    assert not any(world.verdicts(60))
    world.answers = True
    assert world.verdicts(5).index(True) == 3, "from the first answer on"


def test_one_that_connects_again_is_kept(world):
    world.code = KafkaError._TRANSPORT
    assert not any(world.verdicts(7))
    world.code = KafkaError._TIMED_OUT
    assert not any(world.verdicts(20))
    world.code = KafkaError._TRANSPORT
    assert world.verdicts(9).index(True) >= 3


def test_after_trouble_it_looks_at_once(world):
    world.verdicts(6)
    assert world.asked == 1
    world.health.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    world.verdicts(1)
    assert world.asked == 2


def test_the_one_that_takes_its_place_has_its_time(world):
    world.code = KafkaError._TRANSPORT
    verdicts = world.verdicts(30)
    assert [second for second, cut in enumerate(verdicts) if cut] == [7, 15, 23]
