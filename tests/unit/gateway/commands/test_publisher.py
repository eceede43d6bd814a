"""The way to Kafka: request, a full queue, what Kafka refuses."""

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
def outlet(sink: Sink, context: GatewayContext) -> Publisher:
    return Publisher(sink, context)


def record(number: int, topic: str = "t") -> OutgoingRecord:
    return OutgoingRecord(topic, b"key", str(number).encode(), Serialization.JSON)


def advance(context: GatewayContext, seconds: float) -> None:
    scheduler = context.scheduler
    assert isinstance(scheduler, TestScheduler)
    scheduler.advance_by(seconds)


def values(sink: Sink) -> list[int]:
    return [int(value) for _, value, _, _ in sink.sent]


def test_a_record_goes_out_with_its_key_and_header(outlet: Publisher, sink: Sink, context: GatewayContext) -> None:
    outlet.send(record(1))
    assert sink.sent == [("t", b"1", b"key", (("k2eg-ser-type", "Json"),))]
    assert context.metrics.published == 1


def test_a_full_queue_is_waited_for_in_order(outlet: Publisher, sink: Sink, context: GatewayContext) -> None:
    sink.room = 1
    for number in range(4):
        outlet.send(record(number))
    assert values(sink) == [0]
    sink.room = 2
    advance(context, 0.1)
    assert values(sink) == [0, 1, 2]
    sink.room = 1000
    outlet.send(record(4))
    assert values(sink) == [0, 1, 2], "nobody overtakes what waits"
    advance(context, 0.1)
    assert values(sink) == [0, 1, 2, 3, 4]
    outlet.send(record(5))
    assert values(sink)[-1] == 5
    assert (context.metrics.published, context.metrics.dropped) == (6, 0)


def test_what_finds_no_room_at_all_is_counted_and_it_is_the_oldest(
    outlet: Publisher, sink: Sink, context: GatewayContext
) -> None:
    sink.room = 0
    for number in range(8):
        outlet.send(record(number))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [3, 4, 5, 6, 7]
    assert context.metrics.dropped_records == context.metrics.dropped == 3


def test_a_record_that_kafka_refuses_holds_nothing_up(outlet: Publisher, sink: Sink, context: GatewayContext) -> None:
    outlet.send(record(1, "bad"))
    outlet.send(record(2))
    sink.room = 0
    outlet.send(record(3))
    outlet.send(record(4, "bad"))
    outlet.send(record(5))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [2, 3, 5]
    assert context.metrics.dropped_records == 2


def test_what_kafka_does_not_take_is_counted(outlet: Publisher, sink: Sink, context: GatewayContext) -> None:
    outlet.send(record(1))
    outlet.send(record(2))
    sink.reports[0](None)
    sink.reports[1](TransportError("message timed out"))
    assert context.metrics.undelivered == 1


def test_closing_counts_what_was_left(outlet: Publisher, sink: Sink, context: GatewayContext) -> None:
    sink.room = 0
    outlet.send(record(1))
    outlet.close(2.5)
    assert sink.closed == 2.5
    assert context.metrics.dropped_records == 1


def test_a_topic_that_is_missing_is_told_once_until_it_was_dealt_with(sink: Sink, context: GatewayContext) -> None:
    missing: list[str] = []
    outlet = Publisher(sink, context, missing.append)
    scheduler: Any = context.scheduler
    outlet.send(OutgoingRecord("t", None, b"v", Serialization.JSON))
    outlet.send(OutgoingRecord("t", None, b"w", Serialization.JSON))
    for report in sink.reports:
        report(MissingTopicError("t is gone", "t"))
    assert missing == [], "that was the sink's thread"
    scheduler.advance_by(1e-6)
    assert missing == ["t"]
    sink.reports[0](TransportError("too slow"))
    sink.reports[0](MissingTopicError("t is gone", "t"))
    scheduler.advance_by(1e-6)
    assert missing == ["t", "t"]
