"""Publisher: order, outages, records that Kafka refuses or does not confirm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord, value_record
from k2eg_rx.gateway.commands.numbering import IterationNumbers, Part, Place
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.protocol.parse import ReplyTo
from k2eg_rx.transport.interfaces import MissingTopicError, RecordTooLargeError, UnconfirmedError


class Sink:
    """A sink with room for `room` records, which refuses the topic "bad"."""

    def __init__(self) -> None:
        self.room = 1000
        self.sent: list[tuple[str, bytes, bytes | None, Any]] = []
        self.stamps: list[int | None] = []
        self.reports: list[Callable[[TransportError | None], None]] = []
        self.closed: float | None = None

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Any = (),
        on_delivery: Callable[[TransportError | None], None] | None = None,
        timestamp_ms: int | None = None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        assert value is not None
        if topic == "bad":
            raise TransportError("not a topic")
        if self.room == 0:
            raise TransportError("full") from BufferError("Local: Queue full")
        self.room -= 1
        self.sent.append((topic, value, key, headers))
        self.stamps.append(timestamp_ms)
        assert on_delivery is not None
        self.reports.append(on_delivery)

    def close(self, timeout: float) -> None:
        self.closed = timeout


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def context() -> GatewayContext:
    return GatewayContext(TestScheduler(), options=GatewayOptions(outgoing_buffer=5), clock=lambda: 1234.5)


@pytest.fixture
def publisher(sink: Sink, context: GatewayContext) -> Publisher:
    return Publisher(sink, context)


def record(number: int, topic: str = "t") -> OutgoingRecord:
    return OutgoingRecord(topic, b"key", str(number).encode(), Serialization.JSON)


def event(number: int, name: str = "pv") -> OutgoingRecord:
    """An event; what is said about lost ones is a record of the topic `told`."""

    def tell(reason: str, lost: int) -> OutgoingRecord:
        return OutgoingRecord("told", name.encode(), b"%d" % -lost, Serialization.JSON)

    return OutgoingRecord(name, name.encode(), b"%d" % number, Serialization.JSON, "pva", True, tell)


def iteration(index: int, *sizes: int) -> list[OutgoingRecord]:
    """The messages of an iteration, with bodies of these sizes between header and tail."""
    numbers = IterationNumbers()

    def message(part: Part, size: int = 0) -> OutgoingRecord:
        body = json.dumps({"iteration": index, "part": part.value, "filler": "x" * size}).encode()
        return OutgoingRecord("s", b"s", body, Serialization.JSON, droppable=True, place=Place(numbers, part))

    return [message(Part.HEADER), *(message(Part.DATA, size) for size in sizes), message(Part.TAIL)]


def numbers_of(sink: Sink) -> list[tuple[int, str, int, int | None, int]]:
    """The messages of snapshots in the sink: iteration, part, number, total and missing."""
    bodies = [json.loads(value) for topic, value, _, _ in sink.sent if topic == "s"]
    return [
        (body["iteration"], body["part"], body["msg_seq"], body.get("total_messages"), body.get("missing_messages", 0))
        for body in bodies
    ]


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


def test_what_is_beyond_the_limit_is_dropped_counted_and_told(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    sink.room = 0
    for number in range(8):
        publisher.send(event(number))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [3, 4, 5, 6, 7]
    assert context.metrics.dropped_records == context.metrics.dropped == 3
    sink.reports[0](None)
    sink.reports[1](None)
    advance(context, 0.1)
    assert sink.sent[5:] == [("told", b"-3", b"pv", (("k2eg-ser-type", "Json"),))], "once Kafka takes records again"


def test_a_pv_that_is_not_confirmed_waits_and_holds_back_no_other(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    publisher.send(event(1, "a"))
    publisher.send(event(10, "b"))
    sink.reports[1](None)
    advance(context, 1.0)
    publisher.send(event(2, "a"))
    publisher.send(event(3, "a"))
    publisher.send(event(11, "b"))
    assert values(sink) == [1, 10, 11]
    sink.reports[2](None)
    advance(context, 1.0)
    sink.reports[0](None)
    advance(context, 0.1)
    assert values(sink) == [1, 10, 11, 2, 3]
    assert sink.stamps == [None, None, None, 1234500, 1234500], "the time at which they came"


def test_after_records_that_may_be_lost_the_current_value_is_published(sink: Sink, context: GatewayContext) -> None:
    lost: list[str] = []
    publisher = Publisher(sink, context, on_lost=lost.append)
    publisher.send(event(1))
    publisher.send(event(2))
    sink.reports[0](UnconfirmedError("may be stored"))
    sink.reports[1](UnconfirmedError("may be stored"))
    advance(context, 0.1)
    assert lost == ["pv"], "once for both"
    publisher.send(event(3))
    sink.reports[2](None)
    advance(context, 0.1)
    assert values(sink) == [1, 2, 3, -2], "nothing is sent twice"


def test_a_pv_of_which_all_records_were_dropped_is_published_again(sink: Sink) -> None:
    context = GatewayContext(
        TestScheduler(), options=GatewayOptions(outgoing_buffer=2, outgoing_overflow="drop_oldest")
    )
    lost: list[str] = []
    publisher = Publisher(sink, context, on_lost=lost.append)
    sink.room = 0
    publisher.send(event(1, "slow"))
    for number in range(5):
        publisher.send(event(number, "fast"))
    sink.room = 1000
    advance(context, 0.1)
    assert values(sink) == [3, 4]
    assert lost == ["slow"]


def test_too_large_a_value_is_replaced_by_a_small_record_and_logged_once(
    publisher: Publisher, sink: Sink, context: GatewayContext, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        publisher.send(event(number, "wave"))
        sink.reports[-1](RecordTooLargeError("raise max.message.bytes"))
        advance(context, 0.1)
    assert [topic for topic, *_ in sink.sent] == ["wave", "told", "wave", "told"]
    assert context.metrics.oversized == 2
    (line,) = [line for line in caplog.messages if "too large" in line]
    assert "pv=wave" in line
    assert "max.message.bytes" in line


def test_too_large_a_value_in_a_reply_is_logged_with_its_pv_and_answered(
    publisher: Publisher, sink: Sink, context: GatewayContext, caplog: pytest.LogCaptureFixture
) -> None:
    to = ReplyTo("replies", "id", Serialization.JSON)
    for name in ("pva://one", "pva://two"):
        publisher.send(value_record(to, "snapshot", name, b"large"))
        sink.reports[-1](RecordTooLargeError("raise max.message.bytes"))
        advance(context, 0.1)
    answers = [json.loads(value) for _, value, _, _ in sink.sent if value != b"large"]
    assert [(answer["error"], answer["reply_id"]) for answer in answers] == [(-2, "id"), (-2, "id")]
    assert answers[1]["message"].startswith("pva://two: the value has 5 bytes, which Kafka does not accept: raise")
    assert [line.split()[5] for line in caplog.messages if "too large" in line] == ["pv=pva://one", "pv=pva://two"]


def test_messages_of_iterations_are_numbered(publisher: Publisher, sink: Sink) -> None:
    for index in (1, 2):
        for message in iteration(index, 1):
            publisher.send(message)
    assert numbers_of(sink) == [
        *[(1, "header", 1, None, 0), (1, "data", 2, None, 0), (1, "tail", 3, 3, 0)],
        *[(2, "header", 1, None, 0), (2, "data", 2, None, 0), (2, "tail", 3, 3, 0)],
    ]


def test_dropped_messages_leave_no_gap_and_no_iteration_without_a_tail(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    """An outage drops the end of an iteration, whole ones, and the beginning of one: the others are complete."""
    sink.room = 2
    for message in iteration(1, 1, 1, 1):
        publisher.send(message)
    for index in (2, 3):
        for message in iteration(index, 1):
            publisher.send(message)
    assert numbers_of(sink) == [(1, "header", 1, None, 0), (1, "data", 2, None, 0)]
    sink.room = 1000
    advance(context, 0.1)
    for message in iteration(4):
        publisher.send(message)
    assert numbers_of(sink)[2:] == [
        (1, "tail", 3, 3, 2),
        *[(3, "header", 1, None, 0), (3, "data", 2, None, 0), (3, "tail", 3, 3, 0)],
        *[(4, "header", 1, None, 0), (4, "tail", 2, 2, 0)],
    ]
    assert context.metrics.dropped_records == 5, "and those after a dropped header"


def test_a_message_that_kafka_refuses_as_too_large_leaves_no_gap(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    """Those after a large one wait until Kafka has accepted or refused it."""
    header, large, small, tail = iteration(1, 1_000_000, 1)
    for message in (header, large, small, tail):
        publisher.send(message)
    assert numbers_of(sink) == [(1, "header", 1, None, 0), (1, "data", 2, None, 0)]
    sink.reports[0](None)
    sink.reports[1](RecordTooLargeError("raise max.message.bytes"))
    advance(context, 1e-6)
    assert numbers_of(sink)[2:] == [(1, "data", 2, None, 0), (1, "tail", 3, 3, 1)]


def test_a_size_that_kafka_accepts_is_waited_for_once(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    for index in (1, 2):
        for message in iteration(index, 1_000_000):
            publisher.send(message)
        if index == 1:
            sink.reports[0](None)
            sink.reports[1](None)
            advance(context, 1e-6)
    assert numbers_of(sink)[1:3] == [(1, "data", 2, None, 0), (1, "tail", 3, 3, 0)]
    assert numbers_of(sink)[3:] == [(2, "header", 1, None, 0), (2, "data", 2, None, 0), (2, "tail", 3, 3, 0)]


def test_messages_of_snapshots_have_a_sink_of_their_own_that_holds_back_no_other_record(
    sink: Sink, context: GatewayContext
) -> None:
    bulk, made = Sink(), []

    def make() -> Sink:
        made.append(bulk)
        return bulk

    publisher = Publisher(sink, context, make_bulk_sink=make)
    publisher.send(record(0))
    assert made == []
    bulk.room = 1
    sink.room = 0
    for message in iteration(1, 1):
        publisher.send(message)
    publisher.send(record(1))
    assert (len(made), publisher.in_flight, publisher.waiting) == (1, 2, 3)
    sink.room = 1
    advance(context, 0.1)
    assert ([number[1:3] for number in numbers_of(bulk)], values(sink), publisher.waiting) == (
        [("header", 1)],
        [0, 1],
        2,
    )
    bulk.room = 2
    advance(context, 0.1)
    for report in (*bulk.reports, *sink.reports):
        report(None)
    assert [number[1:3] for number in numbers_of(bulk)] == [("header", 1), ("data", 2), ("tail", 3)]
    assert (publisher.waiting, publisher.in_flight, numbers_of(sink)) == (0, 0, [])
    publisher.close(1.0)
    assert None not in (sink.closed, bulk.closed)


def test_snapshots_share_the_sink_if_they_can_have_none_of_their_own(sink: Sink, context: GatewayContext) -> None:
    def make() -> Sink:
        raise TransportError("no more threads")

    publisher = Publisher(sink, context, make_bulk_sink=make)
    for message in iteration(1, 1):
        publisher.send(message)
    assert [number[2] for number in numbers_of(sink)] == [1, 2, 3]


def test_lanes_without_records_are_forgotten(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    publisher.send(record(1))
    advance(context, 59.0)
    sink.reports[0](None)
    publisher.send(record(2, "other"))
    advance(context, 2.0)
    assert list(publisher._lanes) == [("other", b"key")]


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
    publisher.stop()
    assert context.metrics.dropped_records == 1
    publisher.send(record(2))  # by an action that the event loop still had to do
    assert (publisher.waiting, context.metrics.dropped_records) == (0, 2)
    publisher.close(2.5)
    assert sink.closed == pytest.approx(2.5, abs=1.0)


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


def follow(context: GatewayContext) -> None:
    """Lets the next record be the one whose latency is measured."""
    context.metrics.latency.begin(object())
    context.metrics.latency.passing = True


@pytest.mark.parametrize("error", [None, TransportError("refused")])
def test_a_latency_ends_with_the_report_and_counts_if_kafka_confirms(
    publisher: Publisher, sink: Sink, context: GatewayContext, error: TransportError | None
) -> None:
    probe = context.metrics.latency
    follow(context)
    publisher.send(event(1))
    publisher.send(event(2))
    assert publisher.in_flight == 2
    sink.reports[1](None)
    assert not probe.idle
    sink.reports[0](error)
    assert probe.idle
    assert sum(probe.counts) == (error is None)
    assert publisher.in_flight == 0


def test_a_record_that_is_dropped_ends_its_latency(publisher: Publisher, sink: Sink, context: GatewayContext) -> None:
    probe = context.metrics.latency
    follow(context)
    publisher.send(record(1, "bad"))
    assert probe.idle
    sink.room = 0
    follow(context)
    publisher.send(event(0))
    assert (publisher.waiting, probe.idle) == (1, False)
    for number in range(5):
        publisher.send(event(number))
    assert probe.idle
    follow(context)
    publisher.send(event(6))
    publisher.stop()
    assert probe.idle
    assert sum(probe.counts) == 0


def test_records_that_newer_ones_replace_are_counted_as_merged(
    publisher: Publisher, sink: Sink, context: GatewayContext
) -> None:
    sink.room = 0
    for number in range(7):
        publisher.send(event(number))
    assert (context.metrics.dropped_records, context.metrics.merged_records) == (2, 2)
    assert publisher.waiting_bytes > 0
    publisher.send(record(1, "bad"))
    assert (context.metrics.dropped_records, context.metrics.merged_records) == (3, 2)


def test_records_with_an_epoch_wait_while_the_gateway_is_not_in_session(sink: Sink, context: GatewayContext) -> None:
    publisher, in_session = Publisher(sink, context), False
    publisher.in_session = lambda: in_session
    events = [event(number)._replace(epoch="fleet:1") for number in range(3)]
    publisher.send(events[0])
    publisher.send(record(9))
    assert [value for _, value, _, _ in sink.sent] == [b"9"], "a reply has no epoch"
    assert not publisher.is_settled("pv", b"pv")
    assert "pv" in publisher.unsettled()
    in_session = True
    advance(context, 0.1)
    publisher.send(events[1])
    assert [value for _, value, _, _ in sink.sent] == [b"9", b"0", b"1"]
    assert [name for name, _ in sink.sent[1][3]] == ["k2eg-ser-type", "k2eg-epoch", "k2eg-protocol"]
    for report in sink.reports:
        report(None)
    assert publisher.is_settled("pv", b"pv")
    assert publisher.unsettled() == set()
    in_session = False
    publisher.send(events[2])
    assert publisher.drop("pv", b"pv")
    assert not publisher.drop("pv", b"pv")
    in_session = True
    advance(context, 0.1)
    assert len(sink.sent) == 3, "another gateway has the PV"
    assert context.metrics.dropped_records == context.metrics.fenced_records == 1
