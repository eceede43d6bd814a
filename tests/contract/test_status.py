"""The connection's status: reported once, then at each change."""

from __future__ import annotations

import itertools
import queue
import threading

import pytest

from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

from .conftest import kafka_settings

PATIENCE = 100.0


class Listener:
    """A status listener that records its calls."""

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


def test_a_listener_gets_the_current_status_and_each_change(bench, listener):
    bench.transport.on_status(listener)
    assert listener.wait_for(ConnectionState.UP) == TransportStatus(ConnectionState.UP)
    assert listener.threads == bench.threads("k2eg-status")


def test_a_second_listener_gets_the_current_status(bench, listener):
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    second = Listener()
    bench.transport.on_status(second)
    assert second.next().connection is ConnectionState.UP


def test_an_outage_is_reported_with_a_reason_and_its_end_once(bench, listener, receiver):
    topic = bench.topic()
    bench.transport.on_status(listener)
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    listener.wait_for(ConnectionState.UP)
    bench.backend.go_down()
    assert listener.wait_for(ConnectionState.DOWN).reason
    bench.backend.come_up()
    states = [listener.wait_for(ConnectionState.UP)]
    bench.send(topic, "after the outage")
    receiver.wait_for(b"after the outage")
    while not listener.states.empty():  # on a busy machine, a broker that has just started may time out again
        states.append(listener.next())
    assert all(one != other for one, other in itertools.pairwise(states)), "a status was reported twice"


def test_an_error_of_a_listener_is_logged_and_does_not_affect_others(bench, listener, caplog):
    def fail(status):
        raise RuntimeError("an error of the listener")

    bench.transport.on_status(fail)
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    assert "an error of the listener" in caplog.text


def test_pending_reads_and_sends_continue_after_an_outage(bench, receiver, listener):
    topic = bench.topic()
    bench.send(topic, "old")
    bench.transport.on_status(listener)
    listener.wait_for(ConnectionState.UP)
    bench.backend.go_down()
    listener.wait_for(ConnectionState.DOWN)
    ready = bench.events(receiver).read(topic)
    bench.sink().send(topic, b"during the outage")
    assert not ready.done()
    bench.backend.come_up()
    ready.result(PATIENCE)
    bench.send(topic, "new")
    receiver.wait_for(b"new")
    assert b"old" not in receiver.values


def test_the_reason_names_an_unreachable_broker(listener):
    transport = KafkaTransport(kafka_settings("127.0.0.1:1", {}))
    try:
        transport.on_status(listener)
        reason = listener.wait_for(ConnectionState.DOWN).reason
        assert "127.0.0.1:1" in reason
        assert "kafka_broker_url" in reason
        assert "refused" in reason
    finally:
        transport.close(5.0)


def test_the_reason_names_an_unknown_host(listener):
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
                "sasl.username": "user",
                "sasl.password": "correct horse battery staple",
            },
            "sasl.mechanism",
        ),
    ],
)
def test_the_reason_names_wrong_security_settings_without_secrets(mock_bench, listener, kafka, advice):
    transport = mock_bench.another_transport(**kafka)
    transport.on_status(listener)
    reason = listener.wait_for(ConnectionState.DOWN).reason
    assert advice in reason
    assert "battery" not in reason
