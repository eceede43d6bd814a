"""Publisher: order, a full producer queue, refused and undelivered records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.transport.interfaces import MissingTopicError


class Sink:
    """A sink with room for `room` records, which refuses the topic "bad"."""

    def __init__(self) -> None:
        self.room = 1000
        self.sent: list[tuple[str, bytes, bytes | None, Any]] = []
        self.reports: list[Callable[[TransportError | None], None]] = []
        self.closed: float | None = None

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Any = (),
        on_delivery: Callable[[TransportError | None], None] | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        if topic == "bad":
            raise TransportError("too large")
        if self.room == 0:
            raise TransportError("full") from BufferError("Local: Queue full")
        self.room -= 1
        self.sent.append((topic, value, key, headers))
        assert on_delivery is not None
        self.reports.append(on_delivery)

    def close(self, timeout: float) -> None:
        self.closed = timeout


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def context() -> GatewayContext:
    return GatewayContext(TestScheduler(), options=GatewayOptions(outgoing_buffer=5))


@pytest.fixture
def publisher(sink: Sink, context: GatewayContext) -> Publisher:
    return Publisher(sink, context)


def record(number: int, topic: str = "t") -> OutgoingRecord:
    return OutgoingRecord(topic, b"key", str(number).encode(), Serialization.JSON)


def advance(context: GatewayContext, seconds: float) -> None:
    scheduler = context.scheduler
    assert isinstance(scheduler, TestScheduler)
    scheduler.advance_by(seconds)


def values(sink: Sink) -> list[int]:
    return [int(value) for _, value, _, _ in sink.sent]


def test_a_record_is_sent_with_key_and_header(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    publisher.send(record(1))
    assert sink.sent == [("t", b"1", b"key", (("k2eg-ser-type", "Json"),))]
    assert context.metrics.published == 1


def test_records_wait_in_order_for_a_full_producer_queue(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    sink.room = 1
    for number in range(4):
        publisher.send(record(number))
    assert values(sink) == [0]
    sink.room = 2
    advance(context, 0.1)
    assert values(sink) == [0, 1, 2]
    sink.room = 1000
    publisher.send(record(4))
    assert values(sink) == [0, 1, 2], "new records queue behind waiting ones"
    advance(context, 0.1)
    assert values(sink) == [0, 1, 2, 3, 4]
    publisher.send(record(5))
    assert values(sink)[-1] == 5
    assert (context.metrics.published, context.metrics.dropped) == (6, 0)


def test_beyond_the_limit_the_oldest_records_are_dropped_and_counted(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    sink.room = 0
    for number in range(8):
        publisher.send(record(number))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [3, 4, 5, 6, 7]
    assert context.metrics.dropped_records == context.metrics.dropped == 3


def test_a_refused_record_does_not_block_others(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    publisher.send(record(1, "bad"))
    publisher.send(record(2))
    sink.room = 0
    publisher.send(record(3))
    publisher.send(record(4, "bad"))
    publisher.send(record(5))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [2, 3, 5]
    assert context.metrics.dropped_records == 2


def test_undelivered_records_are_counted(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    publisher.send(record(1))
    publisher.send(record(2))
    sink.reports[0](None)
    sink.reports[1](TransportError("message timed out"))
    assert context.metrics.undelivered == 1


def test_closing_counts_waiting_records_as_dropped(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    sink.room = 0
    publisher.send(record(1))
    publisher.close(2.5)
    assert sink.closed == 2.5
    assert context.metrics.dropped_records == 1


def test_a_missing_topic_is_reported_once_until_it_is_handled(sink: Sink, context: GatewayContext) -> None:
    missing: list[str] = []
    publisher = Publisher(sink, context, missing.append)
    scheduler: Any = context.scheduler
    publisher.send(OutgoingRecord("t", b"", b"v", Serialization.JSON))
    publisher.send(OutgoingRecord("t", b"", b"w", Serialization.JSON))
    for report in sink.reports:
        report(MissingTopicError("t is gone", "t"))
    assert missing == [], "on_missing is called by the scheduler only"
    scheduler.advance_by(1e-6)
    assert missing == ["t"]
    sink.reports[0](TransportError("too slow"))
    sink.reports[0](MissingTopicError("t is gone", "t"))
    scheduler.advance_by(1e-6)
    assert missing == ["t", "t"]
