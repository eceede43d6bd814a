"""Exceptions of confluent_kafka leave the transport only as a TransportError."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka import KafkaTransport, presence, producer
from k2eg_rx.kafka.consumer import group, lag, poll_loop, source
from k2eg_rx.kafka.metadata import cluster

from .conftest import kafka_settings

PATIENCE = 100.0


def used(client: type, *modules: ModuleType) -> list[str]:
    """Returns the methods of a client that modules call."""
    sources = "".join(inspect.getsource(module) for module in modules)
    return sorted(name for name in dir(client) if not name.startswith("_") and f".{name}(" in sources)


def failing(base: type, broken: str) -> Callable[..., object]:
    """Returns a subclass of a client in which one method fails."""

    class Failing(base):
        def __getattribute__(self, name: str) -> object:
            if name == broken:
                return fail
            return super().__getattribute__(name)

    def fail(*arguments: object, **options: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FAIL, f"{broken} failed"))

    return Failing


@pytest.fixture
def uncaught(monkeypatch) -> list[BaseException]:
    """Collects exceptions that end a thread."""
    caught: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: caught.append(failure.exc_value))
    return caught


def use_everything(address: str, receiver) -> list[BaseException]:
    """Calls all methods of a transport and its parts; returns the errors raised and reported."""
    raised: list[BaseException] = []

    def attempt(call: Callable[..., object], *arguments: object, **options: object) -> Any:
        try:
            return call(*arguments, **options)
        except Exception as error:
            raised.append(error)
            return None

    transport = attempt(KafkaTransport, kafka_settings(address, {"fetch.wait.max.ms": "5"}))
    if not isinstance(transport, KafkaTransport):
        return raised
    attempt(transport.on_status, lambda status: None)
    reports: queue.SimpleQueue[TransportError | None] = queue.SimpleQueue()
    parts = [attempt(transport.presence, "topic", "app")]
    if (sink := attempt(transport.sink)) is not None:
        parts.append(sink)
        attempt(sink.send, "topic", b"value", on_delivery=reports.put)
    for events in (attempt(transport.events, receiver, None), attempt(transport.events, receiver, "sharing")):
        if events is None:
            continue
        parts.append(events)
        ready = attempt(events.read, "topic")
        attempt(ready.result, 0.3)
        attempt(events.wake)
        attempt(events.lag)
        attempt(events.release, "topic")
    for part in [*(part for part in parts if part is not None), transport]:
        attempt(part.close, 0.5)
    while not reports.empty():
        report = reports.get()
        raised.extend([report] if report is not None else [])
    return [
        error for error in raised if not (isinstance(error, TimeoutError) and not isinstance(error, TransportError))
    ]


@pytest.mark.parametrize(
    ("module", "name", "method"),
    [
        *((poll_loop, "Consumer", method) for method in used(confluent_kafka.Consumer, poll_loop, group, source, lag)),
        *((presence, "Consumer", method) for method in used(confluent_kafka.Consumer, presence)),
        *((producer, "Producer", method) for method in used(confluent_kafka.Producer, producer)),
        *((cluster, "AdminClient", method) for method in used(AdminClient, cluster)),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if inspect.ismodule(value) else value,
)
def test_a_failing_method_ends_no_thread_and_raises_a_transport_error(
    mock_bench, receiver, monkeypatch, uncaught, module, name, method
):
    monkeypatch.setattr(module, name, failing(getattr(module, name), method))
    errors = use_everything(mock_bench.backend.address, receiver)
    assert [error for error in errors if not isinstance(error, TransportError)] == []
    assert uncaught == []


@pytest.mark.parametrize(
    ("module", "name"),
    [(poll_loop, "Consumer"), (presence, "Consumer"), (producer, "Producer"), (cluster, "AdminClient")],
)
def test_a_client_that_cannot_be_made_raises_a_transport_error(
    mock_bench, receiver, monkeypatch, uncaught, module, name
):
    def fail(*arguments: object, **options: object) -> None:
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "cannot be made"))

    monkeypatch.setattr(module, name, fail)
    errors = use_everything(mock_bench.backend.address, receiver)
    assert [error for error in errors if not isinstance(error, TransportError)] == []
    assert uncaught == []
    if module is not presence:
        assert any("cannot be made" in str(error) for error in errors)
