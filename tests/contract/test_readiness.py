"""Backpressure: a receiver that is not ready loses no record; the source's memory is bounded."""

from __future__ import annotations

import logging
import os

PATIENCE = 100.0


def test_nothing_is_received_before_the_receiver_is_ready(bench, make_receiver):
    topic = bench.topic()
    receiver = make_receiver(ready=False)
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(100)))
    receiver.wait_until(lambda: receiver.asked > 0, "a call of ready")
    assert receiver.records == []
    receiver.open(source)
    receiver.wait(100)
    assert receiver.values == [b"%d" % n for n in range(100)]


def test_repeated_pauses_lose_no_record(bench, receiver):
    topic = bench.topic(partitions=3)
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    for n in range(20):
        receiver.shut(source)
        before = len(receiver.records)
        bench.send(topic, *(f"{n}-{k}" for k in range(50)), key=b"%d" % n)
        assert len(receiver.records) == before
        receiver.open(source)
        if n % 2:
            receiver.wait(before + 50)
    receiver.wait(1000)
    assert receiver.in_order()


def test_a_batch_is_bounded(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    receiver.shut(source)
    bench.send(topic, *map(str, range(2000)))
    receiver.open(source)
    receiver.wait(2000)
    assert max(receiver.batches) <= 500
    assert receiver.in_order()


def test_a_receiver_that_is_not_ready_after_a_batch_gets_no_further_one(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    receiver.shut(source)
    bench.send(topic, *map(str, range(2000)))
    receiver.on_receive = lambda records: setattr(receiver, "_ready", False)
    received = 0
    while received < 2000:
        batches = len(receiver.batches)
        receiver.open(source)
        receiver.wait_until(lambda count=batches: len(receiver.batches) > count, "a batch")
        receiver.shut(source)
        assert len(receiver.batches) == batches + 1
        received = len(receiver.records)
    assert receiver.in_order()


def test_a_topic_can_be_added_while_the_receiver_is_not_ready(bench, make_receiver):
    receiver = make_receiver(ready=False)
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "kept")
    receiver.open(source)
    receiver.wait_for(b"kept")


def test_an_error_in_receive_is_logged_and_reading_continues(bench, receiver, caplog):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)

    def fail(records):
        receiver.on_receive = lambda records: None
        raise RuntimeError("an error of the receiver")

    receiver.on_receive = fail
    with caplog.at_level(logging.ERROR, logger="k2eg_rx"):
        bench.send(topic, "one")
        receiver.wait_for(b"one")
        bench.send(topic, "two")
        receiver.wait_for(b"two")
    assert "an error of the receiver" in caplog.text
    assert receiver.values == [b"one", b"two"]


def test_an_error_in_ready_is_logged_and_reading_continues(bench, receiver, caplog, monkeypatch):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)

    def fail():
        raise RuntimeError("an error of ready")

    with caplog.at_level(logging.ERROR, logger="k2eg_rx"):
        monkeypatch.setattr(receiver, "ready", fail)
        source.wake()
        bench.send(topic, "one")
        receiver.wait_for(b"one")
    assert "an error of ready" in caplog.text


def test_memory_is_bounded_while_the_receiver_is_not_ready(kafka_bench, make_receiver):
    """Records stay in Kafka, except for librdkafka's prefetch, which is bounded in bytes."""
    receiver = make_receiver(ready=False)
    topic = kafka_bench.topic(partitions=4)  # the mock cluster keeps 5 MiB of each partition
    transport = kafka_bench.another_transport(**{"queued.max.messages.kbytes": "1024", "fetch.max.bytes": "1048576"})
    source = kafka_bench.events(receiver, transport=transport)
    source.read(topic).result(PATIENCE)
    for n in range(16):  # no partition gets a third of the records
        kafka_bench.send(topic, *(os.urandom(100_000) for _ in range(10)), key=b"key %d" % n)
    receiver.open(source)
    receiver.wait(160)
    assert receiver.in_order()
    assert max(receiver.batches) <= 40  # 1 MiB of prefetch and one response beyond it are 21 records
