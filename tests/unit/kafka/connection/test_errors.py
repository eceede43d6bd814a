"""Translation of Kafka errors."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.errors import (
    ErrorTranslator,
    is_final,
    is_gone,
    kafka_error,
    secrets_in,
    weight_of_trouble,
)
from k2eg_rx.transport.interfaces import MissingTopicError, RecordTooLargeError, TransientError

CODES = {name: code for name, code in vars(KafkaError).items() if isinstance(code, int)}


@pytest.fixture
def translator() -> ErrorTranslator:
    return ErrorTranslator("kafka.example.org:9092", ["hunter2!"])


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_every_code_has_a_text(translator, code):
    error = translator.error(KafkaException(KafkaError(code)), "doing something", "the-topic")
    gone = is_gone(kafka_error(KafkaException(KafkaError(code))))
    assert isinstance(error, MissingTopicError) == gone
    too_large = code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
    assert isinstance(error, RecordTooLargeError) == too_large
    text = str(error)
    assert text.startswith("doing something: ")
    assert len(text) > len("doing something: ") + 5
    assert "KafkaError{" not in text
    assert "{" not in text


def test_the_command_topic_is_created_with_kafkas_time_stamps():
    translator = ErrorTranslator("broker:9092", command_topics=["commands"])
    option = "--config message.timestamp.type=LogAppendTime"
    assert option in translator.create_command("commands")
    assert option in translator.reason(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "commands")
    assert option not in translator.create_command("commands-reply")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._MSG_TIMED_OUT, TransientError),
        (KafkaError._ALL_BROKERS_DOWN, TransientError),
        (KafkaError._QUEUE_FULL, TransientError),
        (KafkaError.NOT_ENOUGH_REPLICAS, TransientError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, TransportError),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordTooLargeError),
        (KafkaError._AUTHENTICATION, TransportError),
    ],
)
def test_an_error_that_passes_by_itself_is_transient(translator, code, kind):
    assert type(translator.error(KafkaError(code), "doing something", "the-topic")) is kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (KafkaError._ALL_BROKERS_DOWN, ["kafka.example.org:9092", "kafka_broker_url"]),
        (KafkaError._RESOLVE, ["host name", "kafka_broker_url"]),
        (KafkaError._AUTHENTICATION, ["sasl.username", "sasl.password"]),
        (KafkaError._SSL, ["ssl.ca.location"]),
        (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            ["'the-topic' does not exist", "--bootstrap-server kafka.example.org:9092 --create --topic the-topic"],
        ),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ["'the-topic'", "ACLs"]),
        (KafkaError.MSG_SIZE_TOO_LARGE, ["larger", "max.message.bytes"]),
        (KafkaError._MSG_TIMED_OUT, ["message.timeout.ms", "'the-topic'"]),
        (KafkaError.TOPIC_EXCEPTION, ["name", "'the-topic'"]),
        (KafkaError._QUEUE_FULL, ["too many records wait"]),
    ],
)
def test_the_text_has_advice(translator, code, words):
    text = translator.reason(KafkaError(code), "the-topic")
    assert [word for word in words if word not in text] == []


def test_librdkafkas_text_is_kept_without_durations(translator):
    error = KafkaError(
        KafkaError._TRANSPORT, "b:9/1: Connect failed: refused (after 3ms in state CONNECT, 2 suppressed)"
    )
    assert translator.reason(error).endswith("(b:9/1: Connect failed: refused)")


def test_a_failed_handshake_gives_tls_advice(translator):
    error = KafkaError(KafkaError._TRANSPORT, "SSL handshake failed: connecting to a PLAINTEXT broker listener?")
    assert "ssl.ca.location" in translator.reason(error)


def test_secrets_are_masked(translator):
    assert "hunter2!" not in translator.reason(KafkaError(KafkaError._FAIL, "user bob, password hunter2!, refused"))


@pytest.mark.parametrize(
    "words",
    [
        'Invalid value "hunter3" for configuration property "security.protocol"',
        'Configuration property "session.timeout.ms" value hunter3 is outside allowed range 1..3600000',
    ],
)
def test_the_value_of_an_invalid_property_is_not_shown(translator, words):
    text = translator.reason(KafkaError(KafkaError._INVALID_ARG, words))
    assert "hunter3" not in text
    assert "security.protocol" in text or "session.timeout.ms" in text


def test_secrets_are_recognised_by_property_name():
    properties = {
        "sasl.password": "1",
        "ssl.key.password": "2",
        "ssl.key.pem": "3",
        "sasl.oauthbearer.client.secret": "4",
        "sasl.username": "bob",
        "client.id": "me",
    }
    assert set(secrets_in(properties)) == {"1", "2", "3", "4"}


def test_an_exception_without_a_kafka_error_has_a_text(translator):
    assert "unexpected" in translator.reason(KafkaException("unexpected"))
    assert kafka_error(KafkaException()).code() == KafkaError._FAIL


def test_errors_are_classified():
    assert is_gone(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert not is_gone(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    assert is_final(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert not is_final(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    weights = [
        weight_of_trouble(KafkaError(code))
        for code in (KafkaError._MAX_POLL_EXCEEDED, KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION)
    ]
    assert weights == sorted(set(weights))
    assert weights[0] == 0


@pytest.mark.parametrize("code", [KafkaError._RESOLVE, KafkaError._TRANSPORT])
def test_an_unreachable_broker_that_the_cluster_named_is_named(translator, code):
    text = translator.reason(KafkaError(code, "sasl_ssl://inside:9092/3: Failed to resolve 'inside:9092'"))
    assert text.startswith("broker 3 is advertised as inside:9092, which cannot be reached from here: check advertised")
    assert "kafka_broker_url" not in text


@pytest.mark.parametrize("name", ["kafka.example.org:9092/1", "kafka.example.org:9092/bootstrap"])
def test_an_unreachable_broker_of_the_environment_is_not_called_advertised(translator, name):
    text = translator.reason(KafkaError(KafkaError._TRANSPORT, f"{name}: Connect to ipv4#10.0.0.1:9092 failed"))
    assert "kafka_broker_url" in text
    assert "advertised" not in text
