"""Records of librdkafka messages, and single steps of the poll loop on the test's thread."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    Message,
    TopicPartition,
)

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer import poll_loop
from k2eg_rx.kafka.consumer.poll_loop import PollLoop, records_of
from k2eg_rx.transport.interfaces import Receiver, Record, Span

OUT_OF_RANGE = (
    "fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)"
)
TRUNCATED = (
    "Partition log truncation detected at offset {} (leader epoch 0): broker end offset is {} (offset leader epoch 0)."
    " Reset to INVALID.: Local: Partition log truncation detected (broker 1)"
)  # librdkafka 2.16


def message(offset: int = 0, *, topic: str = "t", partition: int = 0, error: int | None = None) -> Message:
    return Message(
        topic=topic,
        partition=partition,
        offset=offset,
        key=b"k",
        value=b"v%d" % offset,
        headers=[("h", b"x")],
        timestamp=(1, 1234),
        error=None if error is None else KafkaError(error),
    )


def lost(offset: int, text: str = OUT_OF_RANGE) -> Message:
    return Message(topic="t", partition=0, offset=offset, error=KafkaError(KafkaError._AUTO_OFFSET_RESET, text))


class FakeConsumer:
    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.assigned: list[tuple[str, int, int]] = []
        self.unassigned: list[tuple[str, int]] = []
        self.requests: list[tuple[object, ...]] = []
        self.on_poll = lambda: None

    def poll(self, timeout: float) -> Message | None:
        self.on_poll()
        return self.messages.popleft() if self.messages else None

    def consume(self, count: int, timeout: float) -> list[Message]:
        return [self.messages.popleft() for _ in range(min(count, len(self.messages)))]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned.extend((p.topic, p.partition, p.offset) for p in partitions)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.unassigned.extend((p.topic, p.partition) for p in partitions)

    def list_topics(self, *topic: str, timeout: float) -> None:
        self.requests.append((*topic, timeout))

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return partitions

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 0


class Harness(Receiver):
    """A poll loop with fakes."""

    def __init__(self) -> None:
        self.is_ready = True
        self.batches: list[list[Record]] = []
        self.missing_topics: list[str] = []
        self.lost_positions: list[tuple[str, int]] = []
        self.consumer: Any = FakeConsumer()
        translator = ErrorTranslator("broker:9092")
        self.poll_loop = PollLoop(
            "test", {}, receiver=self, listener=self, health=Health(StatusEvents(), translator), translator=translator
        )

    def ready(self) -> bool:
        return self.is_ready

    def receive(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))

    def on_topic_missing(self, topic: str) -> None:
        self.missing_topics.append(topic)

    def on_partition_count(self, topic: str, partitions: int) -> None:
        pass

    def on_position_lost(self, topic: str, partition: int) -> None:
        self.lost_positions.append((topic, partition))

    def relocate(self, held: Span) -> None:
        self.poll_loop.queue(lambda consumer: self.poll_loop.relocate(consumer, ("t", 0), held))
        self.step()

    def on_failed(self, error: TransportError) -> None:
        pass

    def step(self, *messages: Message) -> None:
        self.consumer.messages.extend(messages)
        self.poll_loop._step(self.consumer)

    @property
    def offsets(self) -> list[int]:
        return [record.offset for batch in self.batches for record in batch]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_record_has_all_fields_of_the_message():
    (record,) = records_of([message(7)])
    same = Record("t", 0, 7, b"k", b"v7", [("h", b"x")], 1234, is_append_time=False)
    assert isinstance(record, Record)
    assert record == same
    assert same == record
    assert record == records_of([message(7)])[0]
    assert record != records_of([message(8)])[0]
    assert record != same._replace(timestamp_ms=1)
    assert record != same._replace(is_append_time=True)
    assert record != same._replace(headers=())
    assert repr(record) == repr(same)
    assert hash(record) == hash(records_of([message(7)])[0])


def test_a_record_without_headers_and_body():
    (record,) = records_of([Message(topic="t", partition=1, offset=2, timestamp=(0, -1))])
    assert record == Record("t", 1, 2, None, None, (), -1)


def test_a_record_says_whether_kafka_set_its_time_stamp():
    stamps = [(TIMESTAMP_NOT_AVAILABLE, -1), (TIMESTAMP_CREATE_TIME, 5), (TIMESTAMP_LOG_APPEND_TIME, 5)]
    records = records_of([Message(topic="t", partition=1, offset=2, timestamp=stamp) for stamp in stamps])
    assert [record.is_append_time for record in records] == [False, False, True]


def test_errors_are_not_records():
    assert [record.offset for record in records_of([message(1), message(error=KafkaError._FAIL), message(2)])] == [1, 2]


def test_waiting_messages_are_one_batch(harness):
    harness.step(*(message(n) for n in range(10)))
    assert [len(batch) for batch in harness.batches] == [10]


def test_the_size_of_a_batch_is_limited(harness):
    harness.step(*(message(n) for n in range(300)))
    harness.step()
    harness.step()
    assert [len(batch) for batch in harness.batches] == [128, 128, 44]
    assert harness.offsets == list(range(300))


def test_batches_are_small_while_requests_are_in_flight(harness):
    harness.prefer_small_batches = lambda: True
    harness.step(*(message(n) for n in range(300)))
    harness.prefer_small_batches = lambda: False
    harness.step()
    assert [len(batch) for batch in harness.batches] == [32, 128]


def test_the_loop_pauses_between_small_batches_of_a_flood_only(harness, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(poll_loop, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    harness.prefer_small_batches = lambda: True
    harness.step(*(message(n) for n in range(70)))
    assert slept == []  # not recognised as a flood yet
    harness.step()
    assert len(slept) == 1
    harness.step()
    assert [len(batch) for batch in harness.batches] == [32, 32, 6]
    assert len(slept) == 2
    harness.step(message(70))
    assert len(slept) == 2  # no flood
    harness.prefer_small_batches = lambda: False
    harness.step(*(message(n) for n in range(71, 300)))
    harness.step()
    assert len(slept) == 2


def test_conflated_messages_do_not_become_records(harness):
    harness.conflation_filter = lambda: (
        lambda keys, _: [n for n in range(len(keys)) if n % 4 == 0] if len(keys) > 1 else None
    )
    harness.step(*(message(n) for n in range(10)))
    harness.step(message(11))
    assert harness.offsets == [0, 4, 8, 11]


def test_batches_are_larger_while_most_messages_are_conflated(harness):
    batches: list[int] = []

    def newest(keys, size_of):
        assert size_of(len(keys) - 1) == len(b"v127")
        batches.append(len(keys))
        return [len(keys) - 1]

    harness.conflation_filter = lambda: newest
    harness.step(*(message(n) for n in range(1000)))
    harness.step()
    harness.conflation_filter = lambda: lambda keys, _: None
    harness.step(*(message(n) for n in range(1000)))
    harness.step()
    assert batches == [128, 512]
    assert [len(batch) for batch in harness.batches] == [1, 1, 512, 128]


def test_actions_run_in_order_before_a_poll(harness):
    done: list[str] = []
    for name in ("one", "two"):
        harness.poll_loop.queue(lambda consumer, name=name: done.append(name))
    harness.consumer.on_poll = lambda: done.append("read")
    harness.step()
    assert done == ["one", "two", "read"]


def test_actions_run_without_a_poll_while_the_receiver_is_not_ready(harness):
    done: list[str] = []
    harness.is_ready = False
    harness.poll_loop.queue(lambda consumer: done.append("action"))
    harness.poll_loop._wait_until_ready = lambda consumer: done.append("held")
    harness.step(message())
    assert done == ["action", "held"]
    assert harness.batches == []
    assert len(harness.consumer.messages) == 1


def test_records_of_a_topic_released_during_the_poll_are_dropped(harness):
    harness.poll_loop.lag.add([TopicPartition("t", 0, 0), TopicPartition("u", 0, 0)])

    def release() -> None:
        harness.poll_loop.queue(lambda consumer: harness.poll_loop.lag.remove([TopicPartition("t", 0)]))

    harness.consumer.on_poll = release
    harness.step(message(1), message(2, topic="u"))
    assert harness.offsets == [2]


def test_records_from_before_a_topic_was_released_and_read_again_are_dropped(harness):
    harness.poll_loop.lag.add([TopicPartition("t", 0, 0)])

    def read_again() -> None:
        harness.poll_loop.queue(lambda consumer: harness.poll_loop.lag.remove([TopicPartition("t", 0)]))
        harness.poll_loop.queue(lambda consumer: harness.poll_loop.lag.add([TopicPartition("t", 0, 5)]))

    harness.consumer.on_poll = read_again
    harness.step(*(message(n) for n in range(3, 8)))
    assert harness.offsets == [5, 6, 7]


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION])
def test_a_missing_topic_is_reported(harness, code):
    harness.step(message(1), message(error=code))
    assert harness.missing_topics == ["t"]
    assert harness.offsets == [1]


def test_deleted_records_are_skipped_with_a_warning(harness, caplog):
    harness.poll_loop.lag.add([TopicPartition("t", 0, 3)])
    harness.step(lost(3))
    assert harness.lost_positions == [("t", 0)]
    assert harness.consumer.assigned == []
    harness.relocate(Span(7, 20))
    assert harness.consumer.unassigned == [("t", 0)]
    assert harness.consumer.assigned == [("t", 0, 7)]
    assert "t[0] were deleted before they were read (retention)" in caplog.text
    assert "lost=4" in caplog.text


@pytest.mark.parametrize(
    ("error", "held", "start"),
    [
        pytest.param(lost(10), Span(0, 6), 6, id="beyond the end: at the end"),
        pytest.param(lost(10), Span(0, 12), 10, id="beyond the end until now: at the same offset"),
        pytest.param(
            lost(OFFSET_INVALID, TRUNCATED.format(10, 6)),
            Span(0, 9),
            6,
            id="after the common part, at records not read",
        ),
        pytest.param(
            lost(OFFSET_INVALID, TRUNCATED.format(10, 6)), Span(0, 30), 6, id="also if the log has grown beyond"
        ),
        pytest.param(
            lost(OFFSET_INVALID, TRUNCATED.format(10, 6)), Span(8, 30), 8, id="the rest of the common part was deleted"
        ),
        pytest.param(
            lost(OFFSET_INVALID, TRUNCATED.format(10, -1)), Span(2, 30), 2, id="nothing in common: all is new"
        ),
    ],
)
def test_after_a_truncated_log_reading_continues_at_the_first_record_that_was_not_read(
    harness, caplog, error, held, start
):
    harness.poll_loop.lag.add([TopicPartition("t", 0, 10)])
    harness.step(error)
    harness.relocate(held)
    assert harness.consumer.assigned == [("t", 0, start)]
    assert harness.poll_loop.lag.starts == {("t", 0): start}, "otherwise the records are dropped"
    assert "the log of t[0] was truncated, as by a power cut of the broker" in caplog.text
    assert f"read_to=10 continued_at={start}" in caplog.text


def test_a_position_that_is_reported_lost_again_after_the_relocation_is_ignored(harness):
    """Otherwise records would be received twice."""
    harness.poll_loop.lag.add([TopicPartition("t", 0, 10)])
    harness.step(lost(10))
    harness.relocate(Span(0, 6))
    harness.step(message(6), lost(10))
    harness.relocate(Span(0, 7))
    harness.step(lost(3))
    harness.relocate(Span(5, 7))
    assert harness.consumer.assigned == [("t", 0, 6)]
    harness.consumer.position = lambda partitions: [TopicPartition("t", 0, 10)]
    harness.step(lost(10))
    harness.relocate(Span(0, 7))
    assert harness.consumer.assigned == [("t", 0, 6), ("t", 0, 7)]


def test_a_partition_released_or_assigned_anew_is_not_relocated(harness):
    harness.step(lost(3))
    assert harness.lost_positions == []
    harness.poll_loop.lag.add([TopicPartition("t", 0, 3)])
    harness.step(lost(3))
    harness.poll_loop.forget([TopicPartition("t", 0)])
    harness.relocate(Span(7, 20))
    harness.poll_loop.lag.add([TopicPartition("t", 0, 3)])
    harness.relocate(Span(7, 20))
    assert harness.consumer.assigned == []


def test_other_errors_are_logged_once(harness, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            harness.step(message(error=KafkaError._BAD_MSG))
    assert caplog.text.count("reading t") == 1


def test_metadata_is_requested_without_waiting_for_single_or_all_topics(harness):
    harness.poll_loop.refresh_metadata(harness.consumer, ["a", "b"])
    assert harness.consumer.requests == [("a", 0), ("b", 0)]
    harness.consumer.requests.clear()
    harness.poll_loop.refresh_metadata(harness.consumer, [f"t{n}" for n in range(1000)])
    assert harness.consumer.requests == [(0,)]
