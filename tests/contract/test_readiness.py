"""A receiver that is not ready: nothing is lost, nothing piles up, and the source does not die of anything."""

from __future__ import annotations

import logging
import os

PATIENCE = 60.0


def test_nothing_is_received_before_the_receiver_is_ready(bench, make_inbox):
    topic = bench.topic()
    inbox = make_inbox(ready=False)
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(100)))
    inbox.wait_until(lambda: inbox.asked > 0, "the source to ask")
    assert inbox.records == []
    inbox.open(source)
    inbox.wait(100)
    assert inbox.values == [b"%d" % n for n in range(100)]


def test_nothing_is_lost_by_pausing_again_and_again(bench, inbox):
    topic = bench.topic(partitions=3)
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    for n in range(20):
        inbox.shut(source)
        had = len(inbox.records)
        bench.send(topic, *(f"{n}-{k}" for k in range(50)), key=b"%d" % n)
        assert len(inbox.records) == had
        inbox.open(source)
        if n % 2:
            inbox.wait(had + 50)
    inbox.wait(1000)
    assert inbox.in_order()


def test_a_batch_is_bounded(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    inbox.shut(source)
    bench.send(topic, *map(str, range(2000)))
    inbox.open(source)
    inbox.wait(2000)
    assert max(inbox.batches) <= 500
    assert inbox.in_order()


def test_a_receiver_that_takes_a_batch_and_is_full_gets_no_other(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    inbox.shut(source)
    bench.send(topic, *map(str, range(2000)))
    inbox.on_receive = lambda records: setattr(inbox, "_ready", False)
    received = 0
    while received < 2000:
        batches = len(inbox.batches)
        inbox.open(source)
        inbox.wait_until(lambda count=batches: len(inbox.batches) > count, "a batch")
        inbox.shut(source)
        assert len(inbox.batches) == batches + 1
        received = len(inbox.records)
    assert inbox.in_order()


def test_a_topic_is_added_while_the_receiver_is_not_ready(bench, make_inbox):
    inbox = make_inbox(ready=False)
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "kept")
    inbox.open(source)
    inbox.wait_for(b"kept")


def test_a_receiver_that_raises_is_logged_and_gets_the_rest(bench, inbox, caplog):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)

    def fail(records):
        inbox.on_receive = lambda records: None
        raise RuntimeError("a fault of the receiver")

    inbox.on_receive = fail
    with caplog.at_level(logging.ERROR, logger="k2eg_rx"):
        bench.send(topic, "one")
        inbox.wait_for(b"one")
        bench.send(topic, "two")
        inbox.wait_for(b"two")
    assert "a fault of the receiver" in caplog.text
    assert inbox.values == [b"one", b"two"]


def test_a_receiver_that_raises_when_asked_is_logged_and_gets_its_records(bench, inbox, caplog, monkeypatch):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)

    def fail():
        raise RuntimeError("a fault of ready")

    with caplog.at_level(logging.ERROR, logger="k2eg_rx"):
        monkeypatch.setattr(inbox, "ready", fail)
        source.wake()
        bench.send(topic, "one")
        inbox.wait_for(b"one")
    assert "a fault of ready" in caplog.text


def test_memory_is_bounded_while_the_receiver_is_not_ready(kafka_bench, make_inbox):
    """What is not welcome stays in Kafka, but for librdkafka's prefetch, which is bounded in bytes."""
    inbox = make_inbox(ready=False)
    topic = kafka_bench.topic(partitions=4)  # the mock cluster keeps 5 MiB of each
    transport = kafka_bench.another_transport(**{"queued.max.messages.kbytes": "1024", "fetch.max.bytes": "1048576"})
    source = kafka_bench.events(inbox, transport=transport)
    source.read(topic).result(PATIENCE)
    for n in range(16):  # no partition gets a third of them
        kafka_bench.send(topic, *(os.urandom(100_000) for _ in range(10)), key=b"key %d" % n)
    inbox.open(source)
    inbox.wait(160)
    assert inbox.in_order()
    assert max(inbox.batches) <= 40  # 1 MiB of prefetch, and one answer over it, is 21 of them
