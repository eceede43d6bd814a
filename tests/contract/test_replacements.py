"""A librdkafka client that has lost its brokers for good is replaced: nothing is lost, doubled or put out of order.

Whether one has is decided elsewhere; here it is said to have, while records flow.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog

PATIENCE = 60.0


class Strikes:
    """Has every client that looks be replaced, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}
        self.done = threading.Event()
        monkeypatch.setattr(ConnectionWatchdog, "is_disconnected", lambda watchdog, client, topic: self._struck())

    def strike(self, thread: str, times: int = 1) -> None:
        """Has the client of a thread be replaced."""
        self.done.clear()
        with self._lock:
            self._left[thread] = times

    def _struck(self) -> bool:
        name = threading.current_thread().name
        with self._lock:
            left = self._left.get(name, 0)
            if left == 0:
                return False
            self._left[name] = left - 1
        if left == 1:
            self.done.set()
        return True


@pytest.fixture
def strikes(monkeypatch: pytest.MonkeyPatch) -> Strikes:
    return Strikes(monkeypatch)


def test_a_consumer_reads_on_where_the_last_one_was(kafka_bench: Any, inbox: Any, strikes: Strikes) -> None:
    bench = kafka_bench
    topics = [bench.topic(partitions=2) for _ in range(3)]
    bench.send(topics[0], "old")
    source = bench.events(inbox)
    for topic in topics:
        source.read(topic).result(PATIENCE)
    for n in range(300):
        bench.send(topics[n % 3], "before", key=b"%d" % (n % 7))
        if n % 100 == 50:
            strikes.strike("k2eg-events")
    assert strikes.done.wait(PATIENCE)
    for n in range(300):
        bench.send(topics[n % 3], "after", key=b"%d" % (n % 7))
    inbox.wait(600)
    assert len(inbox.records) == 600
    assert inbox.in_order()
    source.release(topics[0])
    bench.send(topics[1], "the last")
    inbox.wait_for(b"the last")


@pytest.mark.timeout(240)
def test_a_member_of_a_group_goes_on_without_repetition(kafka_bench: Any, inbox: Any, strikes: Strikes) -> None:
    bench = kafka_bench
    topic = bench.topic(partitions=2)
    source = bench.events(inbox, "replaced")
    source.read(topic).result(PATIENCE)
    for n in range(100):
        bench.send(topic, "before", key=b"%d" % (n % 7))
    inbox.wait(100)
    strikes.strike("k2eg-events")
    assert strikes.done.wait(PATIENCE)
    for n in range(100):
        bench.send(topic, "after", key=b"%d" % (n % 7))
    inbox.wait(200, timeout=90.0)  # the group waits until the session of the one before is over
    assert len(inbox.records) == 200
    assert inbox.in_order()


def test_what_a_producer_had_in_hand_is_sent_by_the_next_one(kafka_bench: Any, inbox: Any, strikes: Strikes) -> None:
    bench = kafka_bench
    topic = bench.topic()
    bench.events(inbox).read(topic).result(PATIENCE)
    reports: list[TransportError | None] = []
    # A broker takes its time to start: on a busy machine more than the ten seconds a record is kept for otherwise.
    sink = bench.sink(bench.another_transport(**{"message.timeout.ms": "300000"}))
    sink.send(topic, b"first", on_delivery=reports.append)
    inbox.wait_for(b"first")
    bench.backend.go_down()
    sent = [b"%03d" % n for n in range(100)]
    for value in sent[:50]:
        sink.send(topic, value, key=b"k", headers=[("h", b"x")], on_delivery=reports.append)
    strikes.strike("k2eg-sink", 2)
    assert strikes.done.wait(PATIENCE)
    for value in sent[50:]:
        sink.send(topic, value, key=b"k", headers=[("h", b"x")], on_delivery=reports.append)
    bench.backend.come_up()
    inbox.wait(101, timeout=PATIENCE)
    assert inbox.values == [b"first", *sent]
    assert {(record.key, *map(tuple, record.headers)) for record in inbox.records[1:]} == {(b"k", ("h", b"x"))}
    sink.close(5.0)
    assert reports == [None] * 101
