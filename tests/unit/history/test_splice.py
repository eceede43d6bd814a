"""Joining history to live updates: held, spilled, repeated and skipped updates; all on one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from k2eg_rx.delivery.gates import BackpressureGate, ReplayGate
from k2eg_rx.errors import TransportError
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.selection import Interval, Selection
from k2eg_rx.history.splice import CatchUp, Splice
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Excerpt, Partition, Record, Span

HEADERS = (("k2eg-ser-type", b"Msgpack"),)
PV = PVAddress.parse("pva://a")
T0 = 1_700_000_000
EVER = Interval(0)


def record(offset: int, value: object = None, *, stamp: int | None = None) -> Record:
    value = offset if value is None else value
    body = pack({"a": {"value": value, "timeStamp": {"secondsPastEpoch": T0 + offset, "nanoseconds": 0}}})
    return Record("a", 0, offset, b"a", body, HEADERS, (T0 + offset) * 1000 if stamp is None else stamp)


def live(*offsets: int) -> list[PVUpdate]:
    return [PVUpdate(PV, record(offset)) for offset in offsets]


class Recorder:
    """A subscriber input that records its updates and its end."""

    newest_only = False

    def __init__(self) -> None:
        self.items: list[PVUpdate] = []
        self.ends: list[Exception | None] = []

    def count_conflated(self, count: int) -> None:
        raise AssertionError(count)

    def offer(self, items: Sequence[PVUpdate]) -> None:
        self.items.extend(items)

    def finish(self, error: Exception | None = None) -> None:
        self.ends.append(error)

    def cancel_and_drain(self) -> Sequence[PVUpdate]:
        raise AssertionError

    def reclaim_undelivered(self, is_wanted: Callable[[PVUpdate], bool]) -> Sequence[PVUpdate]:
        raise AssertionError

    def values_and_replayed(self) -> list[tuple[object, bool]]:
        return [(item.value, item.replayed) for item in self.items]


class Topic:
    """A topic with one partition that grows, and its history."""

    def __init__(self, count: int) -> None:
        self.records = [record(offset) for offset in range(count)]
        self.closed = 0

    def grow(self, count: int) -> list[PVUpdate]:
        start = len(self.records)
        self.records.extend(record(offset) for offset in range(start, start + count))
        return [PVUpdate(PV, each) for each in self.records[start:]]

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> dict[Partition, Span]:
        return {("a", 0): Span(0, len(self.records)), ("a", 1): Span(0, 0)}

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        start = wanted.get(("a", 0), len(self.records))
        return Excerpt(self.records[start : start + 50], {("a", 0): len(self.records)})

    def close(self) -> None:
        self.closed += 1


class FakeQuery:
    """A history query of one topic that never blocks."""

    def __init__(self, topic: Topic, interval: Interval = EVER) -> None:
        self.topic = topic
        self.selection = Selection([PV], interval, DecodeErrorCounter(), 10_000)
        self.pause = 0.0
        self.is_silent = False
        self.suspended = 0

    def begin(self) -> Merge | None:
        return None if self.is_silent else Merge(self.topic, self.selection, self.topic.locate(0, None, 0.0))

    def advance(self, merge: Merge) -> Sequence[object]:
        return merge.advance(0.0)

    def suspend(self) -> None:
        self.suspended += 1

    def close(self) -> None:
        self.topic.close()


class Bench:
    """A catch-up task whose steps the test runs."""

    def __init__(self, topic: Topic, *, capacity: int = 1000, interval: Interval = EVER) -> None:
        self.topic = topic
        self.recorder = Recorder()
        self.position: Future[None] = Future()
        self.common = BackpressureGate(lambda: None)
        self.gate = ReplayGate(self.common)
        self.splice = Splice(self.recorder, capacity)
        self.query = FakeQuery(topic, interval)
        self.task = CatchUp(cast(Any, self.query), self.splice, self.recorder, self.gate, [self.position])

    def step(self, count: int = 1) -> float | None:
        pause: float | None = 0.0
        for _ in range(count):
            pause = self.task.step()
        return pause

    def run(self) -> None:
        """Runs the task until it goes live."""
        if not self.position.done():
            self.position.set_result(None)
        for _ in range(10_000):
            if self.task.step() is None:
                return
        raise AssertionError("the task does not go live")

    def values(self) -> list[object]:
        return [item.value for item in self.recorder.items]


@pytest.fixture(autouse=True)
def low_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2eg_rx.history.splice._MIN_HELD", 4)


def test_history_is_not_read_before_the_live_position_is_known() -> None:
    bench = Bench(Topic(3))
    assert bench.step() == 1.0
    assert not bench.splice.wakeup.is_notified
    bench.position.set_result(None)
    assert bench.splice.wakeup.is_notified
    bench.run()
    assert bench.recorder.values_and_replayed() == [(0, True), (1, True), (2, True)]


def test_a_failed_position_is_raised() -> None:
    bench = Bench(Topic(3))
    bench.position.set_exception(TransportError("no"))
    with pytest.raises(TransportError, match="no"):
        bench.step()


def test_live_updates_are_held_and_follow_the_history() -> None:
    bench = Bench(Topic(3))
    bench.position.set_result(None)
    bench.step(2)
    bench.splice.offer(bench.topic.grow(2))
    assert bench.values() == [0, 1, 2]
    bench.run()
    bench.splice.offer(bench.topic.grow(1))
    assert bench.recorder.values_and_replayed() == [(0, True), (1, True), (2, True), (3, False), (4, False), (5, False)]


def test_late_live_updates_are_not_delivered_twice() -> None:
    """Records below the end of the history also arrive live: before, during and after the catch-up."""
    bench = Bench(Topic(6))
    bench.splice.offer(live(0, 1))
    bench.position.set_result(None)
    bench.step(2)
    bench.splice.offer(live(2, 3))
    bench.run()
    bench.splice.offer(live(4, 5))
    bench.splice.offer(bench.topic.grow(2))
    assert bench.values() == list(range(8))
    assert [item.value for item in bench.recorder.items if not item.replayed] == [6, 7]


def test_spilled_updates_are_read_from_kafka() -> None:
    bench = Bench(Topic(3), capacity=4)
    bench.position.set_result(None)
    bench.step(2)
    bench.splice.offer(bench.topic.grow(30))
    bench.run()
    assert bench.values() == list(range(33))
    assert [item.value for item in bench.recorder.items if not item.replayed] == [29, 30, 31, 32]


def test_reading_continues_while_updates_are_spilled() -> None:
    bench = Bench(Topic(3), capacity=4)
    bench.position.set_result(None)
    for _ in range(20):
        bench.step()
        bench.splice.offer(bench.topic.grow(7))
    bench.run()
    bench.splice.offer(bench.topic.grow(1))
    assert bench.values() == list(range(len(bench.topic.records)))
    replayed = [item.replayed for item in bench.recorder.items]
    assert replayed == sorted(replayed, reverse=True)


def test_a_topic_created_during_the_catch_up_is_read_from_the_spilled_offsets() -> None:
    topic = Topic(0)
    bench = Bench(topic, capacity=4)
    topic.locate = lambda *_: {}  # type: ignore[method-assign]
    bench.position.set_result(None)
    bench.step(2)
    bench.splice.offer(topic.grow(10))
    bench.run()
    assert bench.values() == list(range(10))


def test_a_full_queue_pauses_its_own_history_only() -> None:
    bench = Bench(Topic(3))
    bench.position.set_result(None)
    bench.step()
    bench.gate.pause()
    assert bench.step(3) == 1.0
    assert bench.values() == []
    assert bench.common.is_open()
    bench.splice.wakeup.clear()
    bench.gate.resume()
    assert bench.splice.wakeup.is_notified
    bench.run()
    bench.gate.pause()
    assert not bench.common.is_open()


def test_live_updates_do_not_repeat_the_history() -> None:
    """A gateway publishes the newest value again at each activation: new offset, same bytes."""
    bench = Bench(Topic(3))
    bench.run()
    repeated = record(2)._replace(offset=3, timestamp_ms=(T0 + 9) * 1000)
    bench.splice.offer([PVUpdate(PV, repeated)])
    bench.splice.offer([PVUpdate(PV, record(4))])
    bench.splice.offer([PVUpdate(PV, record(4)._replace(offset=5))])  # the route, not the splice, filters these
    assert bench.values() == [0, 1, 2, 4, 4]


def test_an_empty_history_starts_with_the_last_known_update() -> None:
    bench = Bench(Topic(3), interval=Interval((T0 + 100) * 1_000_000_000))
    bench.splice.offer(live(2))  # as the route does for later subscribers
    bench.run()
    bench.splice.offer(bench.topic.grow(1))
    assert bench.recorder.values_and_replayed() == [(2, False), (3, False)]


def test_the_first_subscriber_gets_the_last_known_update_from_kafka() -> None:
    bench = Bench(Topic(3), interval=Interval((T0 + 30) * 1_000_000_000))  # within the margin of the lookup by time
    bench.run()
    bench.splice.offer(bench.topic.grow(1))
    assert bench.recorder.values_and_replayed() == [(2, False), (3, False)]


def test_an_update_in_the_last_millisecond_of_the_history_is_delivered() -> None:
    bench = Bench(Topic(3))
    bench.run()
    bench.splice.offer([PVUpdate(PV, record(3, stamp=(T0 + 2) * 1000))])
    assert bench.values() == [0, 1, 2, 3]


def test_the_last_known_update_is_delivered_although_the_history_skipped_it() -> None:
    """The update is older than the interval; it is read only because the lookup by time is inexact."""
    bench = Bench(Topic(3), interval=Interval((T0 + 1000) * 1_000_000_000))
    bench.splice.offer(live(2))
    bench.run()
    assert bench.recorder.values_and_replayed() == [(2, False)]


def test_a_recreated_topic_is_live_from_its_first_record() -> None:
    bench = Bench(Topic(10))
    bench.run()
    recreated = [PVUpdate(PV, record(n, f"new {n}", stamp=(T0 + 100 + n) * 1000)) for n in range(3)]
    bench.splice.offer(recreated)
    assert bench.values()[10:] == ["new 0", "new 1", "new 2"]


def test_the_end_of_the_live_stream_ends_the_history() -> None:
    bench = Bench(Topic(3))
    error = TransportError("no activation")
    bench.splice.finish(error)
    assert bench.recorder.ends == [error]
    assert bench.splice.ended.is_set()
    assert bench.splice.wakeup.is_notified


def test_a_step_without_a_result_is_repeated_after_a_pause() -> None:
    bench = Bench(Topic(3))
    bench.position.set_result(None)
    bench.query.is_silent = True
    bench.query.pause = 0.02
    assert bench.step(3) == 0.02
    bench.query.is_silent = False
    bench.run()
    assert bench.values() == [0, 1, 2]


def test_a_failure_is_reported_and_resources_are_closed() -> None:
    bench = Bench(Topic(3))
    error = TransportError("refused")
    bench.task.fail(error)
    bench.task.close()
    assert bench.recorder.ends == [error]
    assert bench.topic.closed == 1
