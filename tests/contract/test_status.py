"""The state of the connection: told once, and again when it changes."""

from __future__ import annotations

import itertools
import queue
import threading

import pytest

from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

from .conftest import kafka_settings

PATIENCE = 60.0


class Listener:
    def __init__(self) -> None:
        self.states: queue.SimpleQueue[TransportStatus] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def __call__(self, status: TransportStatus) -> None:
        self.threads.add(threading.current_thread().name)
        self.states.put(status)

    def next(self) -> TransportStatus:
        return self.states.get(timeout=PATIENCE)

    def wait_for(self, connection: ConnectionState) -> TransportStatus:
        while True:
            status = self.next()
            if status.connection is connection:
                return status


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_a_listener_is_told_the_present_state_and_that_the_broker_is_there(bench, listener):
    bench.transport.on_status(listener)
    assert listener.wait_for(ConnectionState.UP) == TransportStatus(ConnectionState.UP)
    assert listener.threads == bench.threads("k2eg-status")


def test_a_second_listener_is_told_the_present_state(bench, listener):
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    second = Listener()
    bench.transport.on_status(second)
    assert second.next().connection is ConnectionState.UP


def test_down_with_a_reason_and_up_again(bench, listener, inbox):
    topic = bench.topic()
    bench.transport.on_status(listener)
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    listener.wait_for(ConnectionState.UP)
    bench.backend.go_down()
    assert listener.wait_for(ConnectionState.DOWN).reason
    bench.backend.come_up()
    states = [listener.wait_for(ConnectionState.UP)]
    bench.send(topic, "after it")
    inbox.wait_for(b"after it")
    while not listener.states.empty():  # a broker that has only just started may be slow again on a busy machine
        states.append(listener.next())
    assert all(one != other for one, other in itertools.pairwise(states)), "what is no news is not told"


def test_a_listener_that_raises_is_logged_and_harms_no_other(bench, listener, caplog):
    def fail(status):
        raise RuntimeError("a fault of the listener")

    bench.transport.on_status(fail)
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    assert "a fault of the listener" in caplog.text


def test_what_waits_while_the_broker_is_away_goes_on_when_it_is_back(bench, inbox, listener):
    topic = bench.topic()
    bench.send(topic, "old")
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    bench.backend.go_down()
    listener.wait_for(ConnectionState.DOWN)
    ready = bench.events(inbox).read(topic)
    bench.sink().send(topic, b"while it is away")
    assert not ready.done()
    bench.backend.come_up()
    ready.result(PATIENCE)
    bench.send(topic, "new")
    inbox.wait_for(b"new")
    assert b"old" not in inbox.values


def test_a_broker_that_is_not_there_is_named(listener):
    transport = KafkaTransport(kafka_settings("127.0.0.1:1", {}))
    try:
        transport.on_status(listener)
        reason = listener.wait_for(ConnectionState.DOWN).reason
        assert "127.0.0.1:1" in reason
        assert "kafka_broker_url" in reason
        assert "refused" in reason
    finally:
        transport.close(5.0)


def test_a_host_that_is_unknown_is_named(listener):
    transport = KafkaTransport(kafka_settings("no-such-host.invalid:9092", {}))
    try:
        transport.on_status(listener)
        assert "no-such-host.invalid" in listener.wait_for(ConnectionState.DOWN).reason
    finally:
        transport.close(5.0)


@pytest.mark.parametrize(
    ("kafka", "advice"),
    [
        ({"security.protocol": "ssl"}, "ssl.ca.location"),
        (
            {
                "security.protocol": "sasl_plaintext",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "someone",
                "sasl.password": "correct horse battery staple",
            },
            "sasl.mechanism",
        ),
    ],
)
def test_wrong_security_settings_are_named_without_secrets(mock_bench, listener, kafka, advice):
    transport = mock_bench.another_transport(**kafka)
    transport.on_status(listener)
    reason = listener.wait_for(ConnectionState.DOWN).reason
    assert advice in reason
    assert "battery" not in reason
