"""A reader of history beside a retention that removes records while it reads; a scripted consumer."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, Message, TopicPartition

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer import history as module
from k2eg_rx.kafka.consumer.history import KafkaHistory

PLACE = ("t", 0)


class Log:
    """A partition whose oldest records go while requests are under way; its consumer.

    Attributes:
        first: The oldest offset.
        end: The end.
        lost: The number of records that go with each request.
    """

    def __init__(self, lost: int) -> None:
        self.first, self.end, self.lost = 1000, 2000, lost
        self.position: int | None = None
        self.refusals = 0

    def _pass_time(self) -> None:
        self.first, self.end = self.first + self.lost, self.end + self.lost

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._pass_time()
        offsets = {OFFSET_BEGINNING: self.first, OFFSET_END: self.end}
        return [TopicPartition(p.topic, p.partition, offsets[p.offset]) for p in partitions]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        (partition,) = partitions
        self.position = partition.offset

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.position = None

    def poll(self, timeout: float) -> Message | None:
        self._pass_time()
        if self.position is None:
            return None
        if not self.first <= self.position <= self.end:
            self.refusals += 1
            failed, self.position = self.position, None  # librdkafka does not fetch before the next assignment
            error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "out of range")
            return Message(topic="t", partition=0, offset=failed, error=error)
        self.position += 1
        return Message(topic="t", partition=0, offset=self.position - 1, value=b"v", timestamp=(1, 0))

    def consume(self, count: int, timeout: float) -> list[Message]:
        return []


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Log:
    return Log(request.param)


@pytest.fixture
def history(log: Log, monkeypatch: pytest.MonkeyPatch) -> KafkaHistory:
    def consumer(*_: Any, **__: Any) -> Log:
        return log

    monkeypatch.setattr(module, "Consumer", consumer)
    translator = ErrorTranslator("broker:9092")
    return KafkaHistory(["t"], {}, Health(StatusEvents(), translator), translator)


@pytest.mark.parametrize("log", [0, 1, 20, 100], indirect=True)
def test_a_reader_catches_up_with_any_retention(log: Log, history: KafkaHistory) -> None:
    reads = 0
    while not (records := history.read({PLACE: 900}, 0.1).records):
        reads += 1
        assert reads < 20
    oldest = records[0].offset
    assert log.first - 2 * log.lost <= oldest <= log.first + 4 * max(16, 8 * log.lost)


@pytest.mark.parametrize("log", [0], indirect=True)
def test_a_position_beyond_the_end_of_a_truncated_log_is_its_end(log: Log, history: KafkaHistory) -> None:
    assert history.read({PLACE: 5000}, 0.1).ends == {PLACE: 2000}
    assert log.refusals == 1
