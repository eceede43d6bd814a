"""Replacing a disconnected librdkafka client: no record is lost silently, duplicated or reordered.

The tests make the watchdog report a disconnection while records flow.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog
from k2eg_rx.transport.interfaces import ConnectionState, UnconfirmedError

PATIENCE = 100.0


class Disconnections:
    """Makes the watchdog report clients as disconnected."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self._remaining: dict[str, int] = {}
        self.done = threading.Event()
        monkeypatch.setattr(
            ConnectionWatchdog, "is_disconnected", lambda watchdog, client, topic: self._is_disconnected()
        )

    def report(self, thread: str, times: int = 1) -> None:
        """Reports a thread's client as disconnected, and its replacements until `times` is reached."""
        self.done.clear()
        with self._lock:
            self._remaining[thread] = times

    def _is_disconnected(self) -> bool:
        name = threading.current_thread().name
        with self._lock:
            remaining = self._remaining.get(name, 0)
            if remaining == 0:
                return False
            self._remaining[name] = remaining - 1
        if remaining == 1:
            self.done.set()
        return True


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Disconnections:
    return Disconnections(monkeypatch)


def test_a_new_consumer_continues_at_the_old_ones_offsets(
    kafka_bench: Any, receiver: Any, faults: Disconnections
) -> None:
    bench = kafka_bench
    topics = [bench.topic(partitions=2) for _ in range(3)]
    bench.send(topics[0], "old")
    source = bench.events(receiver)
    for topic in topics:
        source.read(topic).result(PATIENCE)
    for n in range(300):
        bench.send(topics[n % 3], "before", key=b"%d" % (n % 7))
        if n % 100 == 50:
            faults.report("k2eg-events")
    assert faults.done.wait(PATIENCE)
    for n in range(300):
        bench.send(topics[n % 3], "after", key=b"%d" % (n % 7))
    receiver.wait(600)
    assert len(receiver.records) == 600
    assert receiver.in_order()
    source.release(topics[0])
    bench.send(topics[1], "the last")
    receiver.wait_for(b"the last")


@pytest.mark.timeout(240)
def test_a_new_group_member_continues_without_duplicates(
    kafka_bench: Any, receiver: Any, faults: Disconnections
) -> None:
    bench = kafka_bench
    topic = bench.topic(partitions=2)
    source = bench.events(receiver, "replaced")
    source.read(topic).result(PATIENCE)
    for n in range(100):
        bench.send(topic, "before", key=b"%d" % (n % 7))
    receiver.wait(100)
    faults.report("k2eg-events")
    assert faults.done.wait(PATIENCE)
    for n in range(100):
        bench.send(topic, "after", key=b"%d" % (n % 7))
    receiver.wait(200, timeout=90.0)  # the group waits until the old member's session times out
    assert len(receiver.records) == 200
    assert receiver.in_order()


def test_a_new_producer_sends_what_waited_and_nothing_twice(
    kafka_bench: Any, receiver: Any, faults: Disconnections
) -> None:
    """What librdkafka had may be stored, so it is reported as unconfirmed; all that waited is sent in order."""
    bench = kafka_bench
    topic = bench.topic()
    bench.events(receiver).read(topic).result(PATIENCE)
    reports: dict[bytes, TransportError | None] = {}
    changed = threading.Condition()

    # on a busy machine a broker may take longer to start than the default timeout of ten seconds
    transport = bench.another_transport(**{"message.timeout.ms": "300000"})
    down = threading.Event()
    transport.on_status(lambda status: down.set() if status.connection is ConnectionState.DOWN else None)
    sink = bench.sink(transport)

    def send(value: bytes) -> None:
        def report(error: TransportError | None) -> None:
            with changed:
                assert value not in reports
                reports[value] = error
                changed.notify_all()

        sink.send(topic, value, key=b"k", headers=[("h", b"x")], on_delivery=report)

    before, after = [b"%03d" % n for n in range(50)], [b"%03d" % n for n in range(50, 100)]
    send(b"first")
    receiver.wait_for(b"first")
    bench.backend.go_down()
    send(b"in doubt")
    assert down.wait(PATIENCE)
    for value in before:
        send(value)
    faults.report("k2eg-sink", 1)
    assert faults.done.wait(PATIENCE)
    for value in after:
        send(value)
    bench.backend.come_up()
    sent = [b"first", b"in doubt", *before, *after]
    with changed:
        assert changed.wait_for(lambda: len(reports) == len(sent), PATIENCE)
    unconfirmed = {value for value, error in reports.items() if error is not None}
    assert {type(reports[value]) for value in unconfirmed} <= {UnconfirmedError}
    assert unconfirmed.isdisjoint([b"first", *after])
    confirmed = [value for value in sent if value not in unconfirmed]
    receiver.wait_until(lambda: set(confirmed) <= set(receiver.values))
    assert [value for value in receiver.values if value not in unconfirmed] == confirmed
    assert len(set(receiver.values)) == len(receiver.values), "at most once"
    assert {(record.key, *map(tuple, record.headers)) for record in receiver.records} == {(b"k", ("h", b"x"))}
    sink.close(5.0)
