"""Requests to catch up with the state log, whose topic may be deleted meanwhile; the test acts as Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k2eg_rx.gateway.fleet import state_log
from k2eg_rx.gateway.fleet.state_log import KafkaStateLog
from k2eg_rx.gateway.runtime.event_loop import EventLoop
from k2eg_rx.transport import Excerpt, Span

SECONDS = 60.0
PLACE: tuple[str, int] = ("state", 0)
PARTITIONS = 2


class Kafka:
    """A topic without records; also its transport, admin, history, sink and reader."""

    def __init__(self) -> None:
        self.end = 0  # of each partition
        self.partitions = PARTITIONS
        self.on_locate: Callable[[], None] = lambda: None
        self.rebuilt = threading.Event()

    def create_compacted(self, topic: str, partitions: int, replication: int) -> str:
        self.partitions, self.end = partitions, 0
        return ""

    def sink(self) -> Kafka:
        return self

    def history(self, topics: Any) -> Kafka:
        return self

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> dict[tuple[str, int], Span]:
        spans = {("state", number): Span(0, self.end) for number in range(self.partitions)}
        self.on_locate()
        return spans

    def read(self, positions: Any, timeout: float) -> Excerpt:
        threading.Event().wait(0.001)
        return Excerpt((), {} if positions[PLACE] < self.end else dict.fromkeys(positions, self.end))

    def close(self, timeout: float = 0.0) -> None: ...
    def on_entries(self, entries: Any) -> None: ...

    def on_rebuild(self) -> None:
        self.rebuilt.set()


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def log(kafka: Kafka) -> Iterator[KafkaStateLog]:
    loop = EventLoop(lambda: None)
    log = KafkaStateLog(kafka, kafka, "state", partitions=PARTITIONS, replication=0)  # type: ignore[arg-type]
    log.start(loop, kafka)
    log.started.result(SECONDS)
    yield log
    log.close(SECONDS)
    loop.close(SECONDS)


def test_a_request_during_a_look_at_the_end_waits_for_the_next_look(kafka: Kafka, log: KafkaStateLog) -> None:
    looks: list[int] = []
    late, first = threading.Event(), threading.Event()

    def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            log.catch_up(answered)

    def answered() -> None:
        looks.append(-1)
        late.set()

    kafka.on_locate = look
    log.catch_up(first.set)
    assert first.wait(SECONDS)
    assert late.wait(SECONDS)
    assert looks == [0, 1, -1]


def test_a_request_outlives_the_deletion_of_the_topic(kafka: Kafka, log: KafkaStateLog) -> None:
    done = threading.Event()
    kafka.end = 5  # not reached: no record comes

    def delete() -> None:
        kafka.partitions = 0
        kafka.on_locate = lambda: None

    original = kafka.read

    def suspicious(positions: Any, timeout: float) -> Excerpt:
        if not kafka.partitions:
            return Excerpt((), {PLACE: -1})  # an end before the position
        return original(positions, timeout)

    kafka.read = suspicious  # type: ignore[method-assign]
    kafka.on_locate = delete
    log.catch_up(done.set)
    assert kafka.rebuilt.wait(SECONDS)
    assert done.wait(SECONDS)


@pytest.mark.parametrize("partitions", [0, 1], ids=["deleted", "made anew by another program"])
def test_a_deletion_that_no_read_reports_is_noticed(
    kafka: Kafka, log: KafkaStateLog, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    monkeypatch.setattr(state_log, "_LOOK", 0.0)
    kafka.partitions = partitions
    assert kafka.rebuilt.wait(SECONDS)


def test_partitions_that_are_unknown_for_a_moment_are_no_deletion(
    kafka: Kafka, log: KafkaStateLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    looked = threading.Event()

    def look() -> None:
        looks.append(kafka.partitions)
        kafka.partitions = PARTITIONS
        if len(looks) > 3:
            looked.set()

    kafka.partitions = 1
    kafka.on_locate = look
    monkeypatch.setattr(state_log, "_LOOK", 0.0)
    assert looked.wait(SECONDS)
    assert looks[0] == 1
    assert not kafka.rebuilt.is_set()
