"""Connection state derived from answers and errors."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, ThrottleEvent

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus


class Harness:
    """A `Health` with a clock; receives the statuses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.states: list[TransportStatus] = []
        self.suspicions = 0
        self.connection_failures: dict[str, str] = {}
        self.health = Health(
            cast(Any, self),
            ErrorTranslator("broker:9092"),
            clock=lambda: self.now,
            connection_failure=lambda address: self.connection_failures.get(address, ""),
        )
        self.health.on_suspicion = self._suspect

    def announce(self, status: TransportStatus) -> None:
        if not self.states or self.states[-1] != status:
            self.states.append(status)

    def _suspect(self) -> None:
        self.suspicions += 1

    def on_error(self, code: int, text: str | None = None) -> None:
        self.health.on_error(KafkaError(code, text))


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_the_state_is_unknown_until_a_broker_answers(harness):
    assert harness.health.suspicious
    assert harness.states == []
    harness.health.on_answer()
    assert not harness.health.suspicious
    assert harness.states == [TransportStatus(ConnectionState.UP)]


def test_an_error_makes_the_state_suspicious_only(harness):
    harness.health.on_answer()
    harness.on_error(KafkaError._TRANSPORT)
    harness.on_error(KafkaError._ALL_BROKERS_DOWN)
    assert harness.health.suspicious
    assert harness.suspicions == 1
    assert harness.states == [TransportStatus(ConnectionState.UP)]
    harness.health.on_answer()
    assert not harness.health.suspicious
    assert harness.states == [TransportStatus(ConnectionState.UP)]


def test_no_answer_after_errors_is_down_with_the_most_specific_reason(harness):
    harness.health.on_answer()
    harness.on_error(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    harness.on_error(KafkaError._AUTHENTICATION, "bad credentials")
    harness.on_error(KafkaError._TRANSPORT, "disconnected")
    harness.health.on_no_answer()
    assert harness.states[-1].connection is ConnectionState.DOWN
    assert "bad credentials" in harness.states[-1].reason


def test_no_answer_without_an_error_is_down_after_five_seconds(harness):
    harness.health.on_no_answer()
    assert harness.states == []
    harness.now = 5.0
    harness.health.on_no_answer()
    assert harness.states[-1].connection is ConnectionState.DOWN
    assert "broker:9092" in harness.states[-1].reason


def test_an_answer_clears_the_reason(harness):
    harness.on_error(KafkaError._AUTHENTICATION, "bad credentials")
    harness.health.on_no_answer()
    harness.health.on_answer()
    assert harness.states[-1] == TransportStatus(ConnectionState.UP)
    harness.on_error(KafkaError._TRANSPORT, "refused")
    harness.health.on_no_answer()
    assert "refused" in harness.states[-1].reason
    assert "credentials" not in harness.states[-1].reason


def test_other_errors_do_not_affect_the_state(harness):
    harness.health.on_answer()
    harness.on_error(KafkaError._MAX_POLL_EXCEEDED)
    harness.on_error(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert not harness.health.suspicious
    assert harness.suspicions == 0


def test_a_missing_command_topic_is_the_reason_once_no_command_has_created_it(harness):
    health = harness.health
    for harness.now in (1.0, 2.0):
        health.on_command_topic("the command topic is missing")
        health.on_answer()
    assert harness.states == [TransportStatus(ConnectionState.UP)]
    assert health.suspicious, "otherwise it is not looked for again"
    harness.now = 6.0
    health.on_command_topic("the command topic is missing")
    health.on_answer()
    assert harness.states[-1] == TransportStatus(ConnectionState.UP, "the command topic is missing")
    health.on_command_topic("")
    health.on_answer()
    assert harness.states[-1] == TransportStatus(ConnectionState.UP)
    assert not health.suspicious


def test_a_broker_that_cannot_be_reached_where_it_is_advertised_is_the_reason(harness):
    health = harness.health
    harness.connection_failures["inside:9092"] = "Name or service not known"
    harness.on_error(KafkaError._RESOLVE, "inside:9092/1: Failed to resolve 'inside:9092'")
    health.on_brokers({"inside:9092": 1})
    health.on_answer()
    status = harness.states[-1]
    assert status.connection is ConnectionState.UP
    assert status.reason.startswith("broker 1 is advertised as inside:9092, which cannot be reached from here: check")
    assert "Name or service not known" in status.reason
    assert health.needs_probe, "otherwise the end is not noticed"
    assert not health.suspicious, "the producer holds records back"
    health.on_brokers({"inside:9092": 1})
    health.on_answer()
    assert harness.states[-1] == status
    del harness.connection_failures["inside:9092"]
    health.on_brokers({"inside:9092": 1})
    health.on_answer()
    assert harness.states[-1] == TransportStatus(ConnectionState.UP)
    assert not health.needs_probe


@pytest.mark.parametrize("brokers", [{"b:9092": 1}, {"other:9092": 2}], ids=["answers", "is gone"])
def test_a_broker_that_answers_again_or_has_left_is_no_reason(harness, brokers):
    if "b:9092" not in brokers:
        harness.connection_failures["b:9092"] = "Connection refused"
    harness.on_error(KafkaError._TRANSPORT, "b:9092/1: Disconnected")
    harness.health.on_brokers(brokers)
    harness.health.on_answer()
    assert harness.states == [TransportStatus(ConnectionState.UP)]
    assert not harness.health.needs_probe


def test_a_broker_that_does_not_respond_is_tried_seldom(harness):
    tried: list[str] = []

    def fail(address):
        tried.append(address)
        harness.now += 1.0
        return "timed out"

    health = Health(cast(Any, harness), ErrorTranslator("broker:9092"), lambda: harness.now, connection_failure=fail)
    health.on_error(KafkaError(KafkaError._TRANSPORT, "sasl_ssl://10.1.2.3:9092/1: Connection setup timed out"))
    for _ in range(2):
        health.on_brokers({"10.1.2.3:9092": 1})
    assert tried == ["10.1.2.3:9092"]
    harness.now += 5.0
    health.on_brokers({"10.1.2.3:9092": 1})
    assert len(tried) == 2


def test_a_throttled_client_is_logged_once_a_minute(harness, caplog):
    for harness.now, delay in ((1.0, 0.0), (2.0, 1.5), (30.0, 2.0), (62.0, 2.5)):
        harness.health.on_throttle(ThrottleEvent("broker:9092/1", 1, delay))
    assert [line.split("delay=")[1] for line in caplog.messages] == ["1.5 s", "2.5 s"]
    assert "Kafka throttles this client" in caplog.text


def test_a_quota_is_the_reason_while_it_delays_answers(harness):
    health = harness.health
    health.on_answer()
    health.on_throttle(ThrottleEvent("broker:9092/1", 1, 1.5))
    assert harness.suspicions == 1
    assert health.needs_probe, "otherwise the end is not noticed"
    assert not health.suspicious
    health.on_answer()
    assert harness.states[-1].connection is ConnectionState.UP
    assert "check the quotas" in harness.states[-1].reason
    for harness.now in (20.0, 40.0):
        health.on_throttle(ThrottleEvent("broker:9092/1", 1, 2.5))
        health.on_answer()
    assert len(harness.states) == 2
    harness.now = 70.0
    health.on_answer()
    assert harness.states[-1] == TransportStatus(ConnectionState.UP)
    assert not health.needs_probe
