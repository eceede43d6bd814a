"""The start of a gateway while Kafka is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.options import GatewayOptions


class AbsentKafka:
    """A transport without a broker, and its parts."""

    def __init__(self) -> None:
        self.reading: Future[None] = Future()
        self.asked = threading.Event()

    def sink(self, **_: Any) -> AbsentKafka:
        return self

    events = lambda self, *_: self  # noqa: E731

    def read(self, topic: str) -> Future[None]:
        self.asked.set()
        return self.reading

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def kafka() -> AbsentKafka:
    return AbsentKafka()


@pytest.fixture
def gateway(kafka: Any) -> Iterator[Gateway]:
    gateway = Gateway(kafka, {}, GatewayOptions(), "commands")
    yield gateway
    gateway.close(1.0)


def test_without_a_timeout_a_gateway_starts_when_kafka_is_there(kafka, gateway):
    threading.Thread(target=lambda: (kafka.asked.wait(10), kafka.reading.set_result(None))).start()
    gateway.start(None)


def test_the_start_fails_after_a_timeout(gateway):
    with pytest.raises(
        TransportError, match=r"the command topic 'commands' must be readable within 0.01 s, got no ans"
    ):
        gateway.start(0.01)


def test_a_refusal_fails_the_start_at_once(kafka, gateway):
    kafka.reading.set_exception(TransportError("no permission"))
    with pytest.raises(TransportError, match="no permission"):
        gateway.start(None)


def test_the_wait_for_kafka_can_be_stopped(gateway):
    stop = threading.Event()
    stop.set()
    with pytest.raises(TransportError, match="stopped while waiting for Kafka"):
        gateway.start(None, stop)
