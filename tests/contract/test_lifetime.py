"""Closing the parts of a transport: on any thread, repeatedly, in bounded time."""

from __future__ import annotations

import threading
import time

import pytest

from k2eg_rx.errors import TransportError

PATIENCE = 100.0
CLOSE_TIMEOUT = 5.0  # seconds, far more than it takes


def live_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("k2eg-")}


def test_close_is_idempotent_in_any_order(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    replies, ready = bench.replies(receiver, bench.topic())
    sink = bench.sink()
    presence = bench.transport.presence(topic, "app")
    source.read(topic).result(PATIENCE)
    ready.result(PATIENCE)
    for _ in range(2):
        bench.transport.close(CLOSE_TIMEOUT)
        presence.close(CLOSE_TIMEOUT)
        sink.close(CLOSE_TIMEOUT)
        source.close(CLOSE_TIMEOUT)
        replies.close(CLOSE_TIMEOUT)


def test_close_ends_all_threads(bench, receiver):
    before = live_threads()
    transport = bench.another_transport()
    transport.on_status(lambda status: None)
    source, ready = transport.replies(receiver, bench.topic())
    events = bench.events(receiver, transport=transport)
    parts = [source, events, transport.sink(), transport.presence(bench.topic(), "app"), transport]
    ready.result(PATIENCE)
    assert live_threads() >= bench.threads("k2eg-replies", "k2eg-events", "k2eg-sink", "k2eg-status")
    for part in parts:
        part.close(CLOSE_TIMEOUT)
    assert live_threads() == before


def test_a_source_can_be_closed_in_receive(bench, receiver):
    """The call is made on the source's own thread, which cannot join itself."""
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    closed = threading.Event()

    def close(records):
        source.close(CLOSE_TIMEOUT)
        closed.set()

    receiver.on_receive = close
    bench.send(topic, "one")
    assert closed.wait(PATIENCE)
    source.close(CLOSE_TIMEOUT)
    bench.send(topic, "two")
    assert receiver.values == [b"one"]


def test_nothing_is_received_after_close(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    receiver.wait_for(b"one")
    source.close(CLOSE_TIMEOUT)
    bench.send(topic, "two")
    assert receiver.values == [b"one"]


def test_a_blocked_receiver_does_not_block_close(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    released = threading.Event()
    receiver.on_receive = lambda records: released.wait(PATIENCE)
    bench.send(topic, "one")
    receiver.wait_for(b"one")
    before = time.monotonic()
    source.close(0.1)
    assert time.monotonic() - before < PATIENCE / 2
    released.set()
    source.close(CLOSE_TIMEOUT)


def test_read_after_close_fails(bench, receiver):
    source = bench.events(receiver)
    source.close(CLOSE_TIMEOUT)
    with pytest.raises(TransportError, match="closed"):
        source.read(bench.topic()).result(PATIENCE)


def test_release_and_wake_after_close_do_nothing(bench, receiver):
    source = bench.events(receiver)
    source.close(CLOSE_TIMEOUT)
    source.release("anything")
    source.wake()
    assert source.lag() == 0


def test_read_fails_after_the_transport_is_closed(kafka_bench, receiver):
    source = kafka_bench.events(receiver)
    kafka_bench.transport.close(CLOSE_TIMEOUT)
    with pytest.raises(TransportError, match="closed"):
        source.read("anything").result(PATIENCE)


def test_close_fails_pending_reads(bench, receiver):
    bench.backend.go_down()
    source = bench.events(receiver)
    ready = source.read("anything")
    source.close(CLOSE_TIMEOUT)
    with pytest.raises(TransportError, match="closed"):
        ready.result(PATIENCE)


def test_creation_and_close_take_bounded_time_while_the_broker_is_down(bench, receiver):
    bench.backend.go_down()
    transport = bench.another_transport()
    source, ready = transport.replies(receiver, "reply")
    events = transport.events(receiver, None)
    events.read("event")
    parts = [source, events, transport.sink(), transport.presence("reply", "app"), transport]
    assert not ready.done()
    before = time.monotonic()
    for part in parts:
        part.close(CLOSE_TIMEOUT)
    assert time.monotonic() - before < len(parts) * CLOSE_TIMEOUT + 1
