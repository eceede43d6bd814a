"""The in-process broker: its listener, its end, its output."""

from __future__ import annotations

import socket

import pytest

from k2eg_rx.embedded.broker import EmbeddedBroker
from k2eg_rx.errors import TransportError
from k2eg_rx.kafka import KafkaTopicAdmin
from k2eg_rx.kafka.metadata import topic_admin
from k2eg_rx.settings import Settings


def _connect(address: str) -> None:
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def test_the_broker_listens_on_loopback_until_it_is_closed() -> None:
    with EmbeddedBroker() as broker:
        assert broker.address.startswith("127.0.0.1:")
        _connect(broker.address)
    with pytest.raises(ConnectionRefusedError):
        _connect(broker.address)


def test_close_is_idempotent() -> None:
    broker = EmbeddedBroker()
    broker.close()
    broker.close()


def test_two_brokers_have_different_addresses() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.address != other.address


def test_the_broker_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker() as broker:
        _connect(broker.address)
    assert capfd.readouterr() == ("", "")


def test_a_refusal_to_create_topics_is_not_reported_as_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_admin, "_REQUEST_TIMEOUT", 1.0)
    monkeypatch.setattr(topic_admin, "_ELECTION", 0.1)
    with EmbeddedBroker() as broker:
        admin = KafkaTopicAdmin(Settings("demo", broker.address, "commands", "replies"))
        with pytest.raises(TransportError, match="does not create topics on request: it has no controller"):
            admin.create({"new": 1})
        admin.close()


def test_topics_whose_ends_kafka_does_not_tell_do_not_count_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_admin, "_REQUEST_TIMEOUT", 1.0)
    with EmbeddedBroker() as broker:
        admin = KafkaTopicAdmin(Settings("demo", broker.address, "commands", "replies"))
        with pytest.raises(TransportError, match="cannot look up the ends of topics"):
            admin.end_offsets(["a"])  # there is no controller
        admin.close()
