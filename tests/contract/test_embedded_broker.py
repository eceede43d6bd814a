"""The in-process broker: its listener, its end, its output."""

from __future__ import annotations

import socket

import pytest

from k2eg_rx.embedded.broker import EmbeddedBroker


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
