"""Classification of librdkafka errors: refusals fail operations, an absent broker does not."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_refusal
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

AT = "ssl://broker:9093/bootstrap: "
VERIFY = AT + "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"
ALERT = AT + "Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46"
ENDED = AT + "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT listener?"


@pytest.mark.parametrize(
    ("code", "text", "refused"),
    [
        (KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed", True),
        (KafkaError.UNSUPPORTED_SASL_MECHANISM, "no such mechanism", True),
        (KafkaError._SSL, VERIFY, True),
        (KafkaError._TRANSPORT, VERIFY, True),
        (KafkaError._TRANSPORT, ALERT, True),
        (KafkaError._TRANSPORT, ENDED, False),
        (KafkaError._SSL, "SSL handshake failed: connection reset by peer", False),
        (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:9092 failed: Connection refused", False),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", False),
    ],
)
def test_only_credential_and_certificate_errors_are_refusals(code: int, text: str, refused: bool) -> None:
    error = KafkaError(code, text)
    assert is_refusal(error) is refused
    health, events = _health()
    health.on_error(error)
    health.on_no_answer()
    assert events.status.connection is ConnectionState.DOWN
    assert events.status.refused is refused
    health.on_answer()
    assert events.status == TransportStatus(ConnectionState.UP)


def _health(tls_diagnosis: str = "") -> tuple[Health, StatusEvents]:
    events = StatusEvents()
    return Health(
        events, ErrorTranslator("broker:9093"), tls_diagnosis=lambda _: tls_diagnosis, required_topics=["replies"]
    ), events


def test_a_tls_diagnosis_replaces_the_general_text() -> None:
    health, events = _health("it has expired")
    health.on_error(KafkaError(KafkaError._SSL, VERIFY))
    health.on_no_answer()
    assert events.status.reason == "it has expired"
    health, events = _health()
    health.on_error(KafkaError(KafkaError._SSL, VERIFY))
    health.on_no_answer()
    assert "check that ssl.ca.location in [kafka] holds the authority" in events.status.reason


def test_missing_permissions_are_reported_required_ones_first() -> None:
    health, events = _health()
    health.on_answer()
    health.forbid(Permission("replies"), "no replies")
    health.forbid(Permission("a-pv"), "no PV")
    assert events.status == TransportStatus(ConnectionState.UP, "no replies", refused=True)
    health.on_answer()
    assert events.status.reason == "no replies"
    assert health.suspicious, "permissions would not be checked again"
    health.allow(Permission("replies"))
    health.on_answer()
    assert events.status == TransportStatus(ConnectionState.UP, "no PV")
    health.allow(Permission("a-pv"))
    health.on_answer()
    assert events.status == TransportStatus(ConnectionState.UP)
    assert not health.suspicious


@pytest.mark.parametrize(
    "text", [ENDED, AT + "Disconnected: connection reset by peer (after 0ms in state SSL_HANDSHAKE)"]
)
def test_an_interrupted_handshake_gives_tls_advice(text: str) -> None:
    reason = ErrorTranslator("broker:9093").reason(KafkaError(KafkaError._TRANSPORT, text))
    assert "check in [kafka] that security.protocol is what this port speaks" in reason
