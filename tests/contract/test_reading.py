"""Reading of topics: start offsets, order and content of records."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from k2eg_rx.protocol import Notice, connection_key

PATIENCE = 100.0


def test_a_topic_is_read_from_its_end(bench, receiver):
    topic = bench.topic()
    bench.send(topic, "old")
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "new")
    receiver.wait_for(b"new")
    assert receiver.values == [b"new"]


def test_every_record_after_the_position_is_received_under_constant_load(bench, make_receiver):
    """Records acknowledged after the future of `read` is done are received without a gap."""
    topic = bench.topic(partitions=3)
    sink = bench.sink()
    stop = threading.Event()
    written = iter(range(10**9))
    slots = threading.Semaphore(500)  # records in flight

    def produce() -> None:
        while not stop.is_set():
            slots.acquire()
            number = next(written)
            sink.send(topic, b"%d" % number, key=b"%d" % (number % 7), on_delivery=lambda error: slots.release())

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(20):
            receiver = make_receiver()
            source = bench.events(receiver)
            source.read(topic).result(PATIENCE)
            markers = [b"marker %d" % n for n in range(7)]
            for n, marker in enumerate(markers):
                bench.send(topic, marker, key=b"%d" % n)
            for marker in markers:
                receiver.wait_for(marker)
            source.close(5.0)
            assert receiver.in_order()
    finally:
        stop.set()
        producer.join()


def test_a_record_arrives_as_it_was_sent(bench, receiver):
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    bench.sink().send(
        topic, b"\x00\xff body", key="Größe:µ".encode(), headers=[("k2eg-ser-type", b"Msgpack"), ("two", b"2")]
    )
    (record,) = receiver.wait()
    assert record.topic == topic
    assert (record.partition, record.offset) == (0, 0)
    assert record.key == "Größe:µ".encode()
    assert record.value == b"\x00\xff body"
    assert list(record.headers) == [("k2eg-ser-type", b"Msgpack"), ("two", b"2")]
    assert record.timestamp_ms > 1_600_000_000_000


def test_records_about_a_pv_lie_in_the_partition_of_its_events(bench, receiver):
    topic = bench.topic(partitions=3)
    bench.events(receiver).read(topic).result(PATIENCE)
    sink = bench.sink()
    names = [f"pv:{n}" for n in range(12)]
    for name in names:
        for key in (name.encode(), connection_key(name), Notice(name, 1, "").key):
            sink.send(topic, name.encode(), key=key)
    receiver.wait(36)
    partitions = {name: {each.partition for each in receiver.records if each.value == name.encode()} for name in names}
    assert {len(found) for found in partitions.values()} == {1}
    assert set.union(*partitions.values()) == {0, 1, 2}


def test_a_record_needs_no_key_and_no_headers(bench, receiver):
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    bench.send(topic, b"")
    (record,) = receiver.wait()
    assert (record.key, record.value, list(record.headers)) == (None, b"", [])


def test_a_tombstone_has_no_value(bench, receiver):
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    bench.sink().send(topic, None, key=b"k")
    (record,) = receiver.wait()
    assert (record.key, record.value) == (b"k", None)


def test_a_record_may_have_a_megabyte(bench, receiver):
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    big = bytes(range(256)) * 4096
    bench.send(topic, big)
    assert receiver.wait()[0].value == big


def test_records_of_a_partition_arrive_in_order(bench, receiver):
    topic = bench.topic(partitions=4)
    bench.events(receiver).read(topic).result(PATIENCE)
    for key in range(8):
        bench.send(topic, *(f"{key} {n}" for n in range(100)), key=b"key %d" % key)
    receiver.wait(800)
    assert receiver.in_order()
    for key in range(8):
        of_key = [record for record in receiver.records if record.key == b"key %d" % key]
        assert [record.value for record in of_key] == [b"%d %d" % (key, n) for n in range(100)]
        assert len({record.partition for record in of_key}) == 1


def test_a_topic_that_is_created_later_is_read_from_its_beginning(bench, receiver):
    topic = bench.topic(None)
    bench.events(receiver).read(topic).result(PATIENCE)
    bench.backend.create_topic(topic, 3)
    for key in (b"a", b"b", b"c", b"d"):
        bench.send(topic, b"first of " + key, key=key)
    receiver.wait(4)
    assert receiver.in_order()


def test_adding_a_topic_does_not_interrupt_the_others(bench, receiver):
    topics = [bench.topic(partitions=2) for _ in range(10)]
    source = bench.events(receiver)
    source.read(topics[0]).result(PATIENCE)
    for topic in topics[1:]:
        bench.send(topics[0], *map(str, range(50)), key=b"k")
        source.read(topic).result(PATIENCE)
        bench.send(topic, "hello")
    receiver.wait(9 * 51)
    assert receiver.in_order()
    assert receiver.values.count(b"hello") == 9


def test_many_topics_can_be_added_at_once(bench, receiver):
    """More topics than are looked up one by one."""
    topics = [bench.topic(partitions=2) for _ in range(100)]
    source = bench.events(receiver)
    for ready in [source.read(topic) for topic in topics]:
        ready.result(PATIENCE)
    sink = bench.sink()
    for topic in topics:
        sink.send(topic, topic.encode())
    receiver.wait(100)
    assert set(receiver.values) == {topic.encode() for topic in topics}


def test_reading_a_topic_again_changes_nothing(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    receiver.wait_for(b"one")
    source.read(topic).result(PATIENCE)
    bench.send(topic, "two")
    receiver.wait_for(b"two")
    assert receiver.values == [b"one", b"two"]


def test_a_released_topic_is_not_received_any_more(bench, receiver):
    kept, released = bench.topic(), bench.topic()
    source = bench.events(receiver)
    source.read(kept).result(PATIENCE)
    source.read(released).result(PATIENCE)
    source.release(released)
    for n in range(20):  # the first ones may have been read before the release took effect
        bench.send(released, f"released {n}")
        bench.send(kept, f"kept {n}")
        receiver.wait_for(b"kept %d" % n)
    assert receiver.values[-1] == b"kept 19"
    assert b"released 19" not in receiver.values


def test_reading_after_a_release_starts_at_the_end(bench, receiver):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    receiver.wait_for(b"one")
    source.release(topic)
    bench.send(topic, "in between")
    source.read(topic).result(PATIENCE)
    bench.send(topic, "two")
    receiver.wait_for(b"two")
    assert receiver.values == [b"one", b"two"]


def test_read_and_release_in_quick_succession(bench, receiver):
    topic, later = bench.topic(), bench.topic(None)
    source = bench.events(receiver)
    for _ in range(30):
        source.read(topic)
        source.read(later)
        source.release(topic)
        source.release(later)
    ready: list[Future[None]] = [source.read(topic), source.read(later)]
    for future in ready:
        future.result(PATIENCE)
    bench.backend.create_topic(later)
    bench.send(topic, "one")
    bench.send(later, "other")
    receiver.wait(2)
    assert sorted(receiver.values) == [b"one", b"other"]


def test_two_sources_of_a_topic_both_get_all_records(bench, make_receiver):
    topic = bench.topic(partitions=2)
    receivers = [make_receiver(), make_receiver()]
    for receiver in receivers:
        bench.events(receiver).read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(200)))
    for receiver in receivers:
        receiver.wait(200)
        assert receiver.in_order()
        assert sorted(receiver.values) == sorted(b"%d" % n for n in range(200))


def test_transports_of_a_broker_share_its_topics(bench, receiver):
    topic = bench.topic()
    bench.events(receiver, transport=bench.another_transport()).read(topic).result(PATIENCE)
    bench.send(topic, "hello")
    receiver.wait_for(b"hello")


def test_a_missing_reply_topic_is_created(bench, receiver):
    topic = bench.topic(None, name="reply")
    _, ready = bench.replies(receiver, topic)
    ready.result(PATIENCE)
    bench.send(topic, "reply")
    receiver.wait_for(b"reply")


def test_a_reply_topic_is_read_from_its_end(bench, receiver):
    topic = bench.topic(name="reply")
    bench.send(topic, "old")
    _, ready = bench.replies(receiver, topic)
    ready.result(PATIENCE)
    bench.send(topic, "new")
    receiver.wait_for(b"new")
    assert receiver.values == [b"new"]


def test_receive_is_called_on_the_sources_thread(bench, receiver):
    topic = bench.topic(partitions=3)
    bench.events(receiver).read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(50)))
    receiver.wait(50)
    assert receiver.threads == bench.threads("k2eg-events")


def test_lag_counts_records_that_are_not_received_yet(bench, make_receiver):
    topic = bench.topic()
    receiver = make_receiver()
    source = bench.events(receiver)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "first")
    receiver.wait_for(b"first")
    receiver.wait_until(lambda: source.lag() == 0, "no lag")
    receiver.shut(source)
    bench.send(topic, *map(str, range(30)))
    receiver.wait_until(lambda: source.lag() > 0, "a lag")
    receiver.open(source)
    receiver.wait(31)
    receiver.wait_until(lambda: source.lag() == 0, "no lag again")


@pytest.mark.parametrize("name", ["with blank", "ünïcode", "a" * 250])
def test_an_invalid_name_does_not_affect_other_topics(bench, receiver, name):
    topic = bench.topic()
    source = bench.events(receiver)
    source.read(name)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "hello")
    receiver.wait_for(b"hello")
