"""Reading topics: from where, in which order, and what a record carries."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

PATIENCE = 60.0


def test_old_records_are_not_received_and_new_ones_are(bench, inbox):
    topic = bench.topic()
    bench.send(topic, "old")
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "new")
    inbox.wait_for(b"new")
    assert inbox.values == [b"new"]


def test_every_record_after_the_future_is_received_while_a_producer_never_pauses(bench, make_inbox):
    """The exact start, under fire: whatever is acknowledged after `read` was done has to come, without a gap."""
    topic = bench.topic(partitions=3)
    sink = bench.sink()
    stop = threading.Event()
    written = iter(range(10**9))
    slots = threading.Semaphore(500)  # under way at most

    def produce() -> None:
        while not stop.is_set():
            slots.acquire()
            number = next(written)
            sink.send(topic, b"%d" % number, key=b"%d" % (number % 7), on_delivery=lambda error: slots.release())

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(20):
            inbox = make_inbox()
            source = bench.events(inbox)
            source.read(topic).result(PATIENCE)
            markers = [b"marker %d" % n for n in range(7)]
            for n, marker in enumerate(markers):
                bench.send(topic, marker, key=b"%d" % n)
            for marker in markers:
                inbox.wait_for(marker)
            source.close(5.0)
            assert inbox.in_order()
    finally:
        stop.set()
        producer.join()


def test_a_record_comes_as_it_was_sent(bench, inbox):
    topic = bench.topic()
    bench.events(inbox).read(topic).result(PATIENCE)
    bench.sink().send(
        topic, b"\x00\xff body", key="Größe:µ".encode(), headers=[("k2eg-ser-type", b"Msgpack"), ("two", b"2")]
    )
    (record,) = inbox.wait()
    assert record.topic == topic
    assert (record.partition, record.offset) == (0, 0)
    assert record.key == "Größe:µ".encode()
    assert record.value == b"\x00\xff body"
    assert list(record.headers) == [("k2eg-ser-type", b"Msgpack"), ("two", b"2")]
    assert record.timestamp_ms > 1_600_000_000_000


def test_a_record_without_key_and_headers(bench, inbox):
    topic = bench.topic()
    bench.events(inbox).read(topic).result(PATIENCE)
    bench.send(topic, b"")
    (record,) = inbox.wait()
    assert (record.key, record.value, list(record.headers)) == (None, b"", [])


def test_a_tombstone_comes_as_one(bench, inbox):
    topic = bench.topic()
    bench.events(inbox).read(topic).result(PATIENCE)
    bench.sink().send(topic, None, key=b"k")
    (record,) = inbox.wait()
    assert (record.key, record.value) == (b"k", None)


def test_a_record_of_a_megabyte(bench, inbox):
    topic = bench.topic()
    bench.events(inbox).read(topic).result(PATIENCE)
    big = bytes(range(256)) * 4096
    bench.send(topic, big)
    assert inbox.wait()[0].value == big


def test_records_of_a_partition_come_in_order(bench, inbox):
    topic = bench.topic(partitions=4)
    bench.events(inbox).read(topic).result(PATIENCE)
    for key in range(8):
        bench.send(topic, *(f"{key} {n}" for n in range(100)), key=b"key %d" % key)
    inbox.wait(800)
    assert inbox.in_order()
    for key in range(8):
        mine = [record for record in inbox.records if record.key == b"key %d" % key]
        assert [record.value for record in mine] == [b"%d %d" % (key, n) for n in range(100)]
        assert len({record.partition for record in mine}) == 1


def test_a_topic_that_appears_later_is_read_from_its_beginning(bench, inbox):
    topic = bench.topic(None)
    bench.events(inbox).read(topic).result(PATIENCE)
    bench.backend.create_topic(topic, 3)
    for key in (b"a", b"b", b"c", b"d"):
        bench.send(topic, b"first of " + key, key=key)
    inbox.wait(4)
    assert inbox.in_order()


def test_reading_while_records_flow_does_not_disturb_the_others(bench, inbox):
    topics = [bench.topic(partitions=2) for _ in range(10)]
    source = bench.events(inbox)
    source.read(topics[0]).result(PATIENCE)
    for topic in topics[1:]:
        bench.send(topics[0], *map(str, range(50)), key=b"k")
        source.read(topic).result(PATIENCE)
        bench.send(topic, "hello")
    inbox.wait(9 * 51)
    assert inbox.in_order()
    assert inbox.values.count(b"hello") == 9


def test_many_topics_at_once(bench, inbox):
    """More than are looked up one by one."""
    topics = [bench.topic(partitions=2) for _ in range(100)]
    source = bench.events(inbox)
    for ready in [source.read(topic) for topic in topics]:
        ready.result(PATIENCE)
    sink = bench.sink()
    for topic in topics:
        sink.send(topic, topic.encode())
    inbox.wait(100)
    assert set(inbox.values) == {topic.encode() for topic in topics}


def test_reading_again_changes_nothing(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    inbox.wait_for(b"one")
    source.read(topic).result(PATIENCE)
    bench.send(topic, "two")
    inbox.wait_for(b"two")
    assert inbox.values == [b"one", b"two"]


def test_a_released_topic_is_not_received_and_another_goes_on(bench, inbox):
    kept, released = bench.topic(), bench.topic()
    source = bench.events(inbox)
    source.read(kept).result(PATIENCE)
    source.read(released).result(PATIENCE)
    source.release(released)
    for n in range(20):  # a record read before the release took effect is allowed; one after another is not
        bench.send(released, f"released {n}")
        bench.send(kept, f"kept {n}")
        inbox.wait_for(b"kept %d" % n)
    assert inbox.values[-1] == b"kept 19"
    assert b"released 19" not in inbox.values


def test_reading_after_a_release_starts_afresh(bench, inbox):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "one")
    inbox.wait_for(b"one")
    source.release(topic)
    bench.send(topic, "in between")
    source.read(topic).result(PATIENCE)
    bench.send(topic, "two")
    inbox.wait_for(b"two")
    assert inbox.values == [b"one", b"two"]


def test_read_release_read_in_quick_succession(bench, inbox):
    topic, later = bench.topic(), bench.topic(None)
    source = bench.events(inbox)
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
    inbox.wait(2)
    assert sorted(inbox.values) == [b"one", b"other"]


def test_two_sources_on_one_topic_both_get_everything(bench, make_inbox):
    topic = bench.topic(partitions=2)
    inboxes = [make_inbox(), make_inbox()]
    for inbox in inboxes:
        bench.events(inbox).read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(200)))
    for inbox in inboxes:
        inbox.wait(200)
        assert inbox.in_order()
        assert sorted(inbox.values) == sorted(b"%d" % n for n in range(200))


def test_a_source_of_another_transport_on_the_same_broker(bench, inbox):
    topic = bench.topic()
    bench.events(inbox, transport=bench.another_transport()).read(topic).result(PATIENCE)
    bench.send(topic, "hello")
    inbox.wait_for(b"hello")


def test_a_missing_reply_topic_is_created(bench, inbox):
    topic = bench.topic(None, name="reply")
    _, ready = bench.replies(inbox, topic)
    ready.result(PATIENCE)
    bench.send(topic, "reply")
    inbox.wait_for(b"reply")


def test_a_reply_topic_is_read_from_its_end(bench, inbox):
    topic = bench.topic(name="reply")
    bench.send(topic, "old")
    _, ready = bench.replies(inbox, topic)
    ready.result(PATIENCE)
    bench.send(topic, "new")
    inbox.wait_for(b"new")
    assert inbox.values == [b"new"]


def test_records_come_on_one_thread_of_the_source(bench, inbox):
    topic = bench.topic(partitions=3)
    bench.events(inbox).read(topic).result(PATIENCE)
    bench.send(topic, *map(str, range(50)))
    inbox.wait(50)
    assert inbox.threads == bench.threads("k2eg-events")


def test_the_lag_is_what_waits(bench, make_inbox):
    topic = bench.topic()
    inbox = make_inbox()
    source = bench.events(inbox)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "first")
    inbox.wait_for(b"first")
    inbox.wait_until(lambda: source.lag() == 0, "no lag")
    inbox.shut(source)
    bench.send(topic, *map(str, range(30)))
    inbox.wait_until(lambda: source.lag() > 0, "a lag")
    inbox.open(source)
    inbox.wait(31)
    inbox.wait_until(lambda: source.lag() == 0, "no lag again")


@pytest.mark.parametrize("name", ["with blank", "ünïcode", "a" * 250])
def test_a_name_that_is_none_does_no_harm(bench, inbox, name):
    topic = bench.topic()
    source = bench.events(inbox)
    source.read(name)
    source.read(topic).result(PATIENCE)
    bench.send(topic, "hello")
    inbox.wait_for(b"hello")
