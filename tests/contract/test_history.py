"""The history of a transport: locating an interval of time, and reading partitions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from k2eg_rx.transport.interfaces import History, Partition, Record, Span

PATIENCE = 100.0


@pytest.fixture
def histories(bench) -> Iterator[list[History]]:
    opened: list[History] = []
    yield opened
    for history in opened:
        history.close()


@pytest.fixture
def open_history(bench, histories):
    """A function that opens the history of topics."""

    def open_topics(*topics: str) -> History:
        histories.append(bench.transport.history(topics))
        return histories[-1]

    return open_topics


def locate(history: History, start_ms: int = 0, stop_ms: int | None = None) -> dict[Partition, Span]:
    deadline = time.monotonic() + PATIENCE
    while (spans := history.locate(start_ms, stop_ms, 1.0)) is None:  # a broker that has just started may not know yet
        assert time.monotonic() < deadline
    return dict(spans)


def read(history: History, spans: dict[Partition, Span]) -> dict[Partition, list[Record]]:
    """Reads all records of spans; a read may return later records too."""
    got: dict[Partition, list[Record]] = defaultdict(list)
    positions = {partition: span.begin for partition, span in spans.items()}
    deadline = time.monotonic() + PATIENCE
    while wanted := {partition: at for partition, at in positions.items() if at < spans[partition].end}:
        records, ends = history.read(wanted, 0.1)
        for record in records:
            got[record[:2]].append(record)
            positions[record[:2]] = record.offset + 1
        assert time.monotonic() < deadline, (wanted, ends)
    return got


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def time_between_records() -> int:
    """Returns a time after the records that were sent and before those that will be."""
    time.sleep(0.005)  # Kafka's timestamps are in milliseconds
    at = now_ms()
    time.sleep(0.005)
    return at


def test_all_records_of_all_partitions_are_read_in_order(bench, open_history):
    topic = bench.topic(partitions=3)
    for key in range(6):
        bench.send(topic, *(f"{key} {n}" for n in range(300)), key=b"%d" % key)
    history = open_history(topic)
    spans = locate(history)
    assert sum(span.end - span.begin for span in spans.values()) == 1800
    got = read(history, spans)
    for partition, records in got.items():
        assert [record.offset for record in records] == list(range(spans[partition].end))
    values = {record.value for records in got.values() for record in records}
    assert values == {b"%d %d" % (key, n) for key in range(6) for n in range(300)}


def test_records_are_located_by_kafkas_timestamp(bench, open_history):
    """The mock cluster cannot look up times: it returns everything, and the reader filters."""
    topic = bench.topic()
    bench.send(topic, "a", "b")
    since = time_between_records()
    bench.send(topic, "c", "d", "e")
    until = time_between_records()
    bench.send(topic, "f")
    history = open_history(topic)
    span = locate(history, since, until)[topic, 0]
    assert (span.begin, span.end) in {(2, 5), (0, 6)}
    if (span.begin, span.end) != (2, 5):
        assert type(bench.backend).__name__ == "MockCluster"
    (records,) = read(history, {(topic, 0): span}).values()
    assert [record.value for record in records if since <= record.timestamp_ms < until] == [b"c", b"d", b"e"]


def test_a_time_after_the_last_record_is_the_end(bench, open_history):
    topic = bench.topic()
    bench.send(topic, "a")
    later = time_between_records()
    span = locate(open_history(topic), later)[topic, 0]
    assert span == Span(1, 1) or (span == Span(0, 1) and type(bench.backend).__name__ == "MockCluster")


def test_a_time_before_all_records_is_the_beginning(bench, open_history):
    topic = bench.topic()
    bench.send(topic, "a")
    assert locate(open_history(topic), now_ms() - 3_600_000)[topic, 0] == Span(0, 1)


def test_an_empty_partition_has_an_empty_span(bench, open_history):
    topic = bench.topic(partitions=2)
    bench.send(topic, "a", key=b"k")
    spans = locate(open_history(topic))
    assert sorted(spans.values()) == [Span(0, 0), Span(0, 1)]


def test_a_missing_topic_has_no_spans_and_is_not_created(bench, open_history):
    topic, missing = bench.topic(), bench.topic(None)
    bench.send(topic, "a")
    for _ in range(2):
        assert {partition[0] for partition in locate(open_history(topic, missing))} == {topic}


def test_many_topics_are_read_together(bench, open_history):
    topics = [bench.topic(partitions=2) for _ in range(40)]
    for topic in topics:
        bench.send(topic, topic, key=b"k")
    history = open_history(*topics)
    got = read(history, locate(history))
    values: list[Any] = [record.value for records in got.values() for record in records]
    assert sorted(values) == sorted(map(str.encode, topics))


def test_only_the_requested_partitions_are_read(bench, open_history):
    """Two partitions are read in turn; no record is lost or repeated."""
    one, two = bench.topic(), bench.topic()
    for topic in (one, two):
        bench.send(topic, *map(str, range(2000)))
    history = open_history(one, two)
    spans = locate(history)
    positions = {(one, 0): 0, (two, 0): 0}
    turn = 0
    deadline = time.monotonic() + PATIENCE
    while unfinished := [partition for partition in positions if positions[partition] < spans[partition].end]:
        wanted = unfinished[turn % len(unfinished)]
        records, _ = history.read({wanted: positions[wanted]}, 0.1)
        for record in records:
            if record[:2] == wanted:
                assert record.offset == positions[wanted]
                positions[wanted] += 1
        turn += bool(records)
        assert time.monotonic() < deadline


def test_a_partition_can_be_read_again_from_an_earlier_offset(bench, open_history):
    topic = bench.topic()
    bench.send(topic, *map(str, range(20)))
    history = open_history(topic)
    for begin in (0, 5, 0):
        (records,) = read(history, {(topic, 0): Span(begin, 20)}).values()
        assert [record.offset for record in records] == list(range(begin, 20))


def test_the_end_is_returned_and_later_records_are_read_too(bench, open_history):
    topic = bench.topic()
    bench.send(topic, "a")
    history = open_history(topic)
    position, ends = 0, {}
    deadline = time.monotonic() + PATIENCE
    while not ends:
        records, ends = history.read({(topic, 0): position}, 0.1)
        position += len(records)
        assert time.monotonic() < deadline
    assert (position, ends) == (1, {(topic, 0): 1})
    bench.send(topic, "b")
    (records,) = read(history, {(topic, 0): Span(1, 2)}).values()
    assert [record.value for record in records] == [b"b"]


def test_a_history_does_not_affect_sources(bench, open_history, receiver):
    topic = bench.topic()
    bench.send(topic, *map(str, range(500)))
    bench.events(receiver).read(topic).result(PATIENCE)
    history = open_history(topic)
    read(history, locate(history))
    bench.send(topic, "live")
    receiver.wait_for(b"live")
    assert receiver.values == [b"live"]


def test_a_time_in_a_long_topic_is_located_without_reading_all_of_it(bench, open_history):
    topic = bench.topic()
    bench.send(topic, *map(str, range(3000)))
    late_ms = time.time_ns() // 1_000_000 + 1
    while time.time_ns() // 1_000_000 <= late_ms:
        time.sleep(0.001)  # Kafka's timestamps are in milliseconds
    bench.send(topic, "late")
    history = open_history(topic)
    spans = locate(history, late_ms)
    assert sum(span.end - span.begin for span in spans.values()) <= 500 * len(spans)
    values = [record.value for records in read(history, spans).values() for record in records]
    assert values[-1] == b"late"


# The memory transport has no retention.
@pytest.mark.parametrize("bench", ["mock", pytest.param("apache", marks=pytest.mark.apache_kafka)], indirect=True)
def test_records_removed_by_retention_are_skipped(bench, open_history):
    topic = bench.topic()
    bench.send(topic, *map(str, range(20)))
    history = open_history(topic)
    spans = locate(history)
    bench.backend.lose_records(topic, 15)
    (records,) = read(history, spans).values()
    if type(bench.backend).__name__ == "ApacheBackend":
        assert [record.offset for record in records] == list(range(15, 20))


def test_locate_waits_for_an_unavailable_broker_until_the_timeout(bench, open_history):
    topic = bench.topic()
    bench.send(topic, "a")
    history = open_history(topic)
    locate(history)
    bench.backend.go_down()
    assert history.locate(0, None, 0.2) is None
    bench.backend.come_up()
    deadline = time.monotonic() + PATIENCE
    while history.locate(0, None, 1.0) is None:
        assert time.monotonic() < deadline
    (records,) = read(history, {(topic, 0): Span(0, 1)}).values()
    assert [record.value for record in records] == [b"a"]


def test_close_is_idempotent(bench, open_history):
    history = open_history(bench.topic())
    history.close()
    history.close()
