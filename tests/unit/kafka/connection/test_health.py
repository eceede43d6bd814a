"""From answers and errors to the state of the connection."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.states: list[TransportStatus] = []
        self.suspicions = 0
        self.health = Health(
            self, ErrorTranslator("broker:9092"), clock=lambda: self.now
        )  # the world hears the announcements
        self.health.on_suspicion = self._suspect

    def announce(self, status: TransportStatus) -> None:
        if not self.states or self.states[-1] != status:
            self.states.append(status)

    def _suspect(self) -> None:
        self.suspicions += 1

    def trouble(self, code: int, words: str | None = None) -> None:
        self.health.on_error(KafkaError(code, words))


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_known_until_a_broker_answered(world):
    assert world.health.suspicious
    assert world.states == []
    world.health.on_answer()
    assert not world.health.suspicious
    assert world.states == [TransportStatus(ConnectionState.UP)]


def test_an_error_raises_a_suspicion_and_no_more(world):
    world.health.on_answer()
    world.trouble(KafkaError._TRANSPORT)
    world.trouble(KafkaError._ALL_BROKERS_DOWN)
    assert world.health.suspicious
    assert world.suspicions == 1
    assert world.states == [TransportStatus(ConnectionState.UP)]
    world.health.on_answer()
    assert not world.health.suspicious
    assert world.states == [TransportStatus(ConnectionState.UP)]


def test_silence_after_an_error_is_down_with_the_most_telling_reason(world):
    world.health.on_answer()
    world.trouble(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    world.trouble(KafkaError._AUTHENTICATION, "bad credentials")
    world.trouble(KafkaError._TRANSPORT, "disconnected")
    world.health.on_no_answer()
    assert world.states[-1].connection is ConnectionState.DOWN
    assert "bad credentials" in world.states[-1].reason


def test_silence_without_an_error_is_slow_at_first_and_down_after_a_while(world):
    world.health.on_no_answer()
    assert world.states == []
    world.now = 5.0
    world.health.on_no_answer()
    assert world.states[-1].connection is ConnectionState.DOWN
    assert "broker:9092" in world.states[-1].reason


def test_an_answer_is_up_again_and_forgets_the_reason(world):
    world.trouble(KafkaError._AUTHENTICATION, "bad credentials")
    world.health.on_no_answer()
    world.health.on_answer()
    assert world.states[-1] == TransportStatus(ConnectionState.UP)
    world.trouble(KafkaError._TRANSPORT, "refused")
    world.health.on_no_answer()
    assert "refused" in world.states[-1].reason
    assert "credentials" not in world.states[-1].reason


def test_errors_that_are_not_about_the_connection_are_none(world):
    world.health.on_answer()
    world.trouble(KafkaError._MAX_POLL_EXCEEDED)
    world.trouble(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert not world.health.suspicious
    assert world.suspicions == 0
