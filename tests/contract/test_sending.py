"""The sink: sending, delivery reports and failures."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.transport.interfaces import ConnectionState, UnconfirmedError

PATIENCE = 100.0


class Reports:
    """An `on_delivery` callback that records its calls."""

    def __init__(self) -> None:
        self.all: queue.SimpleQueue[TransportError | None] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def __call__(self, error: TransportError | None) -> None:
        self.threads.add(threading.current_thread().name)
        self.all.put(error)

    def next(self) -> TransportError | None:
        return self.all.get(timeout=PATIENCE)


@pytest.fixture
def reports() -> Reports:
    return Reports()


def test_a_delivery_is_reported_once_on_the_sinks_thread(bench, reports):
    sink = bench.sink()
    sink.send(bench.topic(), b"value", on_delivery=reports)
    assert reports.next() is None
    sink.close(5.0)
    assert reports.all.empty()
    assert reports.threads == bench.threads("k2eg-sink")


def test_close_sends_queued_records(bench, reports):
    topic = bench.topic()
    sink = bench.sink()
    for n in range(1000):
        sink.send(topic, b"%d" % n, on_delivery=reports)
    sink.close(PATIENCE)
    assert [reports.next() for _ in range(1000)] == [None] * 1000
    assert reports.all.empty()


def test_a_closed_sink_rejects_records(bench):
    sink = bench.sink()
    sink.close(5.0)
    with pytest.raises(TransportError, match="closed"):
        sink.send("topic", b"value")


def test_records_that_close_cannot_send_are_reported(bench, reports):
    topic = bench.topic()
    sink = bench.sink()
    sink.send(topic, b"before", on_delivery=reports)
    assert reports.next() is None
    bench.backend.go_down()
    for _ in range(3):
        sink.send(topic, b"never", on_delivery=reports)
    sink.close(0.2)
    for _ in range(3):
        assert "closed before" in str(reports.next())
    assert reports.all.empty()


def test_a_sink_can_be_closed_in_a_report(bench, reports):
    sink = bench.sink()
    closed = threading.Event()

    def close(error):
        sink.close(5.0)
        closed.set()

    sink.send(bench.topic(), b"value", on_delivery=close)
    assert closed.wait(PATIENCE)


def test_an_error_in_a_report_is_logged_and_reports_continue(bench, reports, caplog):
    topic = bench.topic()
    sink = bench.sink()

    def fail(error):
        raise RuntimeError("an error of the report")

    sink.send(topic, b"one", on_delivery=fail)
    sink.send(topic, b"two", on_delivery=reports)
    assert reports.next() is None
    assert "an error of the report" in caplog.text


def test_records_of_a_thread_keep_their_order(bench, receiver):
    topic = bench.topic(partitions=2)
    bench.events(receiver).read(topic).result(PATIENCE)
    sink = bench.sink()

    def send(sender: int) -> None:
        for n in range(100):
            sink.send(topic, b"%d/%d" % (sender, n), key=b"%d" % sender)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    receiver.wait(500)
    for sender in range(5):
        of_sender = [record.value for record in receiver.records if record.key == b"%d" % sender]
        assert of_sender == [b"%d/%d" % (sender, n) for n in range(100)]


def test_closing_presence_is_idempotent(bench):
    presence = bench.transport.presence(bench.topic(), "application")
    presence.close(5.0)
    presence.close(5.0)


def test_an_oversized_record_is_rejected_with_advice(kafka_bench, reports):
    sink = kafka_bench.sink(kafka_bench.another_transport(**{"message.max.bytes": "2000"}))
    with pytest.raises(TransportError, match=r"larger.*max\.message\.bytes"):
        sink.send("topic", bytes(3000))


def test_a_full_queue_rejects_records(mock_bench):
    sink = mock_bench.sink(mock_bench.another_transport(**{"queue.buffering.max.messages": "10"}))
    mock_bench.backend.go_down()

    def overfill() -> None:
        for _ in range(11):
            sink.send("topic", b"value")

    with pytest.raises(TransportError, match="too many records wait"):
        overfill()
    sink.close(0.1)


def test_a_delivery_timeout_is_reported_with_advice(mock_bench, reports):
    sink = mock_bench.sink(mock_bench.another_transport(**{"message.timeout.ms": "300"}))
    mock_bench.backend.go_down()
    sink.send("some-topic", b"value", on_delivery=reports)
    text = str(reports.next())
    assert "some-topic" in text
    assert "message.timeout.ms" in text


def test_a_failure_without_a_report_is_logged(mock_bench, caplog):
    sink = mock_bench.sink(mock_bench.another_transport(**{"message.timeout.ms": "300"}))
    mock_bench.backend.go_down()
    sink.send("some-topic", b"value")
    sink.close(PATIENCE)
    assert "'some-topic'" in caplog.text
    assert "message.timeout.ms" in caplog.text


def test_a_record_given_up_in_an_outage_is_not_sent(bench, receiver, reports):
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    # on a busy machine a broker may take longer to start than the default timeout of ten seconds
    transport = bench.another_transport(**{"message.timeout.ms": "300000"})
    sink = bench.sink(transport)
    sink.send(topic, b"first", on_delivery=reports)
    assert reports.next() is None
    down = threading.Event()
    transport.on_status(lambda status: down.set() if status.connection is ConnectionState.DOWN else None)
    bench.backend.go_down()
    assert down.wait(PATIENCE)
    sink.send(topic, b"given up", on_delivery=reports, still_wanted=lambda: False)
    sink.send(topic, b"last", on_delivery=reports, still_wanted=lambda: True)
    bench.backend.come_up()
    assert "given up" in str(reports.next())
    assert reports.next() is None
    receiver.wait_for(b"last")
    assert receiver.values == [b"first", b"last"]


def test_nothing_is_stored_twice_when_the_broker_answers_too_late(mock_bench, receiver, reports):
    """librdkafka would time a request out that the broker has stored, and send what follows it once more."""
    bench, topic = mock_bench, mock_bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    sink = bench.sink(bench.another_transport(**{"message.timeout.ms": "1000", "socket.timeout.ms": "2000"}))
    sink.send(topic, b"first", on_delivery=reports)
    assert reports.next() is None
    bench.backend.answer_after(4.0)
    outcomes = {}
    for n in range(200):
        sink.send(topic, b"%d" % n, key=b"k", on_delivery=lambda error, n=n: outcomes.setdefault(n, error))
    sink.send(topic, b"late", on_delivery=reports)
    assert reports.next() is not None
    bench.backend.answer_after(0.0)
    sink.send(topic, b"last", on_delivery=reports)
    assert reports.next() is None
    receiver.wait_for(b"last")
    numbers = [int(value) for value in receiver.values if value.isdigit()]
    assert numbers == sorted(set(numbers)), "in order, each once"
    certain = {n for n, error in outcomes.items() if error is not None and not isinstance(error, UnconfirmedError)}
    assert not certain & set(numbers), "reported as not sent, but stored"
    assert {n for n, error in outcomes.items() if error is None} <= set(numbers)
    assert len(outcomes) == 200


def test_a_record_goes_to_the_partition_that_is_named(bench, reports):
    topic = bench.topic(partitions=3)
    sink, history = bench.sink(), bench.transport.history([topic])
    for partition in (2, 0, 1):
        sink.send(topic, b"%d" % partition, key=b"same", partition=partition, on_delivery=reports)
    sink.send(topic, None, key=b"same", partition=2, on_delivery=reports)
    assert [reports.next() for _ in range(4)] == [None] * 4
    found: dict[int, list[bytes | None]] = {0: [], 1: [], 2: []}
    positions = {(topic, number): 0 for number in found}
    while sum(map(len, found.values())) < 4:
        for record in history.read(positions, PATIENCE).records:
            found[record.partition].append(record.value)
            positions[topic, record.partition] = record.offset + 1
    history.close()
    assert found == {0: [b"0"], 1: [b"1"], 2: [b"2", None]}


def stored(bench, topic: str) -> list[bytes | None]:
    """Returns the values in a topic of one partition."""
    history = bench.transport.history([topic])
    try:
        spans = None
        while spans is None:
            spans = history.locate(0, None, PATIENCE)
        values: list[bytes | None] = []
        ((partition, (position, end)),) = spans.items()
        while position < end:
            for record in history.read({partition: position}, 0.1).records:
                values.append(record.value)
                position = record.offset + 1
        return values
    finally:
        history.close()


def send_singly(sink, topic: str, values: Sequence[bytes], pause: float) -> list[TransportError | None]:
    """Sends records in several requests, of which the first ones are on the way at once; returns the reports."""
    reports = Reports()
    for value in values:
        sink.send(topic, value, key=b"pv", on_delivery=reports)
        time.sleep(pause)
    return [reports.next() for _ in values]


def test_the_first_records_of_a_topic_are_stored_while_its_partition_gets_a_leader(mock_bench):
    """The broker refuses the first request, and would store those behind it without what it has refused."""
    values = [b"%d" % n for n in range(60)]
    topic, sink = mock_bench.topic(), mock_bench.sink()
    mock_bench.backend.refuse_records(0.3)
    assert send_singly(sink, topic, values, 0.01) == [None] * len(values)
    assert stored(mock_bench, topic) == values


def test_what_is_sent_to_a_topic_as_soon_as_it_exists_is_stored(apache_bench):
    """Its partition may not have a leader yet."""
    values = [b"%d" % n for n in range(20)]
    sink = apache_bench.sink()
    topics: list[str] = []
    for _ in range(100):
        topics.append(apache_bench.topic(name="new"))
        assert send_singly(sink, topics[-1], values, 0.0003) == [None] * len(values)
    assert {topic: stored(apache_bench, topic) for topic in topics} == dict.fromkeys(topics, values)
