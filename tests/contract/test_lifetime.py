"""Closing: from anywhere, more than once, in bounded time."""

from __future__ import annotations

import threading
import time

import pytest

from k2eg_rx.errors import TransportError

PATIENCE = 60.0
BOUND = 5.0  # seconds: what is given to close, far more than it takes


def live_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("k2eg-")}


def test_closing_twice_and_in_any_order(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    replies, ready = bench.replies(inbox, bench.topic())
    sink = bench.sink()
    presence = bench.transport.presence(topic, "app")
    source.read(topic).result(PATIENCE)
    ready.result(PATIENCE)
    for _ in range(2):
        bench.transport.close(BOUND)
        presence.close(BOUND)
        sink.close(BOUND)
        source.close(BOUND)
        replies.close(BOUND)


def test_no_thread_is_left(bench, inbox):
    before = live_threads()
    transport = bench.another_transport()
    transport.on_status(lambda status: None)
    source, ready = transport.replies(inbox, bench.topic())
    events = bench.events(inbox, transport=transport)
    parts = [source, events, transport.sink(), transport.presence(bench.topic(), "app"), transport]
    ready.result(PATIENCE)
    assert live_threads() >= bench.threads("k2eg-replies", "k2eg-events", "k2eg-sink", "k2eg-status")
    for part in parts:
        part.close(BOUND)
    assert live_threads() == before


def test_closing_within_receive(bench, inbox):
    """On the source's own thread, which cannot wait for itself."""
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    closed = threading.Event()

    def close(records):
        source.close(BOUND)
        closed.set()

    inbox.on_receive = close
    bench.send(topic, "one")
    assert closed.wait(PATIENCE)
    source.close(BOUND)
    bench.send(topic, "two")
    assert inbox.values == [b"one"]


def test_nothing_is_received_after_closing(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    inbox.wait_for(b"one")
    source.close(BOUND)
    bench.send(topic, "two")
    assert inbox.values == [b"one"]


def test_a_receiver_that_blocks_does_not_block_closing(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    released = threading.Event()
    inbox.on_receive = lambda records: released.wait(PATIENCE)
    bench.send(topic, "one")
    inbox.wait_for(b"one")
    before = time.monotonic()
    source.close(0.1)
    assert time.monotonic() - before < PATIENCE / 2
    released.set()
    source.close(BOUND)


def test_reading_after_closing_fails(bench, inbox):
    source = bench.events(inbox)
    source.close(BOUND)
    with pytest.raises(TransportError, match="closed"):
        source.read(bench.topic()).result(PATIENCE)


def test_releasing_and_waking_after_closing_does_nothing(bench, inbox):
    source = bench.events(inbox)
    source.close(BOUND)
    source.release("anything")
    source.wake()
    assert source.lag() == 0


def test_reading_after_the_transport_was_closed_fails(kafka_bench, inbox):
    source = kafka_bench.events(inbox)
    kafka_bench.transport.close(BOUND)
    with pytest.raises(TransportError, match="closed"):
        source.read("anything").result(PATIENCE)


def test_who_waits_for_a_position_is_told_when_the_source_closes(bench, inbox):
    bench.backend.go_down()
    source = bench.events(inbox)
    ready = source.read("anything")
    source.close(BOUND)
    with pytest.raises(TransportError, match="closed"):
        ready.result(PATIENCE)


def test_constructing_and_closing_while_the_broker_is_away_takes_bounded_time(bench, inbox):
    bench.backend.go_down()
    transport = bench.another_transport()
    source, ready = transport.replies(inbox, "reply")
    events = transport.events(inbox, None)
    events.read("event")
    parts = [source, events, transport.sink(), transport.presence("reply", "app"), transport]
    assert not ready.done()
    before = time.monotonic()
    for part in parts:
        part.close(BOUND)
    assert time.monotonic() - before < len(parts) * BOUND + 1
