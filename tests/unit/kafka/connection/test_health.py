"""Connection state derived from answers and errors."""

from __future__ import annotations

from typing import Any, cast

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
            cast(Any, self), ErrorTranslator("broker:9092"), clock=lambda: self.now
        )  # the world receives the status
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


def test_the_state_is_unknown_until_a_broker_answers(world):
    assert world.health.suspicious
    assert world.states == []
    world.health.on_answer()
    assert not world.health.suspicious
    assert world.states == [TransportStatus(ConnectionState.UP)]


def test_an_error_makes_the_state_suspicious_only(world):
    world.health.on_answer()
    world.trouble(KafkaError._TRANSPORT)
    world.trouble(KafkaError._ALL_BROKERS_DOWN)
    assert world.health.suspicious
    assert world.suspicions == 1
    assert world.states == [TransportStatus(ConnectionState.UP)]
    world.health.on_answer()
    assert not world.health.suspicious
    assert world.states == [TransportStatus(ConnectionState.UP)]


def test_no_answer_after_errors_is_down_with_the_most_specific_reason(world):
    world.health.on_answer()
    world.trouble(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    world.trouble(KafkaError._AUTHENTICATION, "bad credentials")
    world.trouble(KafkaError._TRANSPORT, "disconnected")
    world.health.on_no_answer()
    assert world.states[-1].connection is ConnectionState.DOWN
    assert "bad credentials" in world.states[-1].reason


def test_no_answer_without_an_error_is_down_after_five_seconds(world):
    world.health.on_no_answer()
    assert world.states == []
    world.now = 5.0
    world.health.on_no_answer()
    assert world.states[-1].connection is ConnectionState.DOWN
    assert "broker:9092" in world.states[-1].reason


def test_an_answer_clears_the_reason(world):
    world.trouble(KafkaError._AUTHENTICATION, "bad credentials")
    world.health.on_no_answer()
    world.health.on_answer()
    assert world.states[-1] == TransportStatus(ConnectionState.UP)
    world.trouble(KafkaError._TRANSPORT, "refused")
    world.health.on_no_answer()
    assert "refused" in world.states[-1].reason
    assert "credentials" not in world.states[-1].reason


def test_other_errors_do_not_affect_the_state(world):
    world.health.on_answer()
    world.trouble(KafkaError._MAX_POLL_EXCEEDED)
    world.trouble(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert not world.health.suspicious
    assert world.suspicions == 0
