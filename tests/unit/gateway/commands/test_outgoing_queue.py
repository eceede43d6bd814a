"""The queue of records that wait for Kafka: what is dropped, and in which order the rest is taken."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from k2eg_rx.gateway.commands import outgoing_queue as module
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.outgoing_queue import Lane, OutgoingQueue, Outlet
from k2eg_rx.protocol.encode import Serialization

no_sink: Any = None


class Bench:
    """A queue whose records are written as ``a1``: record 1 of lane a. Lanes of capitals are replies."""

    def __init__(self, limit: int, overflow: str = "latest", max_bytes: int = 1 << 30) -> None:
        self.queue = OutgoingQueue(limit, max_bytes, overflow)
        self.lanes: dict[str, Lane] = defaultdict(lambda: Lane(Outlet(no_sink)))

    def add(self, text: str) -> str:
        """Adds records; returns the dropped ones."""
        dropped: list[str] = []
        for word in text.split():
            record = OutgoingRecord("t", b"", word.encode(), Serialization.JSON, droppable=word[0].islower())
            dropped += [each.value.decode() for _, each in self.queue.add(self.lanes[word[0]], record, 7)]
        return " ".join(dropped)

    def take(self) -> str:
        """Takes all records, lane by lane."""
        taken: list[str] = []
        for lane in self.queue.lanes():
            while lane.waiting:
                record, _ = self.queue.first(lane)
                taken.append(record.value.decode())
                self.queue.discard(lane, record)
                self.queue.discard(lane, record)  # a second time: it is another one's turn
        assert len(self.queue) == self.queue.bytes == 0
        return " ".join(taken)


def test_records_are_taken_in_order_with_their_time_stamps() -> None:
    bench = Bench(10)
    assert bench.add("a1 b1 a2") == ""
    assert bench.queue.first(bench.lanes["a"])[1] == 7
    assert bench.take() == "a1 a2 b1"


def test_latest_keeps_the_newest_of_each_pv() -> None:
    bench = Bench(3)
    assert bench.add("slow1 a1 a2 a3 a4") == "a1 a2"
    assert bench.add("b1 c1") == "a3", "an older one of another PV; then each has one left"
    assert bench.add("c2") == "c1"
    assert bench.take() == "slow1 a4 b1 c2", "the newest of each, even beyond the limit"


def test_drop_oldest_drops_the_oldest_of_all() -> None:
    bench = Bench(3, "drop_oldest")
    assert bench.add("slow1 a1 a2 a3 a4") == "slow1 a1"
    assert bench.take() == "a2 a3 a4"


def test_drop_oldest_drops_an_event_that_finds_only_replies() -> None:
    bench = Bench(2, "drop_oldest")
    assert bench.add("R1 R2 R3 a1") == "a1"
    assert bench.take() == "R1 R2 R3"


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_replies_stay_while_there_are_events(overflow: str) -> None:
    bench = Bench(4, overflow)
    assert bench.add("R1 R2 a1 a2 a3 a4 R3") == "a1 a2 a3"
    assert bench.take() == "R1 R2 R3 a4"


def test_replies_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_REPLIES", 2)
    assert Bench(1).add("R1 R2 R3") == "R1"


def test_bytes_are_bounded() -> None:
    bench = Bench(100, max_bytes=3 * module._RECORD_BYTES)
    assert bench.add("a1 a2 a3") == "a1"


def test_other_lanes_go_first_after_a_turn() -> None:
    bench = Bench(10)
    bench.add("a1 b1")
    bench.queue.rotate(bench.lanes["a"])
    assert bench.take() == "b1 a1"
    bench.queue.rotate(bench.lanes["a"])
    assert bench.queue.lanes() == []


def test_clear_removes_everything() -> None:
    bench = Bench(10)
    bench.add("a1 b1")
    assert bench.queue.clear() == 2
    assert bench.take() == ""
