"""Merging of historical records: selection and order, without Kafka, threads or time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from k2eg_rx.history.merging import Merge
from k2eg_rx.history.selection import MARGIN, Interval, Selection, topics_of
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Excerpt, Partition, Record, Span

HEADERS = (("k2eg-ser-type", b"Msgpack"),)
SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
EVER = Interval(0)


def record(name: str, value: object, time: int | None, offset: int, *, partition: int = 0, topic: str = "") -> Record:
    structure: dict[str, object] = {"value": value}
    if time is not None:
        structure["timeStamp"] = {"secondsPastEpoch": time // SECOND, "nanoseconds": time % SECOND}
    stamp = (NOW if time is None else time) // 1_000_000
    return Record(topic or name, partition, offset, name.encode(), pack({name: structure}), HEADERS, stamp)


class FakeHistory:
    """Returns a few records per read, from a random one of the requested partitions."""

    def __init__(self, *records: Record, max_records: int = 3, seed: int = 1) -> None:
        self.partitions: dict[Partition, list[Record]] = {}
        for each in records:
            self.partitions.setdefault(each[:2], []).append(each)
        self._max_records = max_records
        self._random = random.Random(seed)
        self.reads: list[Mapping[Partition, int]] = []
        self.returned: list[Record] = []
        self.located = 0
        self.is_silent = False

    def spans(self) -> dict[Partition, Span]:
        return {place: Span(records[0].offset, records[-1].offset + 1) for place, records in self.partitions.items()}

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> Mapping[Partition, Span] | None:
        self.located += 1
        return self.spans()

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        self.reads.append(dict(wanted))
        if self.is_silent or not wanted:
            return Excerpt((), {})
        partition = self._random.choice(sorted(wanted))
        left = [each for each in self.partitions.get(partition, []) if each.offset >= wanted[partition]]
        records = left[: self._max_records]
        self.returned.extend(records)
        end = self.partitions[partition][-1].offset + 1 if partition in self.partitions else 0
        return Excerpt(records, {} if len(left) > len(records) else {partition: end})

    def close(self) -> None:
        pass


def selection(*names: str, interval: Interval = EVER, limit: int = 10_000) -> Selection:
    return Selection([PVAddress.parse(f"pva://{name}") for name in names], interval, DecodeErrorCounter(), limit)


def read_all(merge: Merge) -> list[PVUpdate]:
    updates: list[PVUpdate] = []
    for _ in range(10_000):
        if merge.is_done:
            return updates
        updates.extend(update for _, update in merge.advance(0.0))
    raise AssertionError("the merge does not end")


def values(updates: Sequence[PVUpdate]) -> list[object]:
    return [update.value for update in updates]


@pytest.mark.parametrize("seed", range(10))
def test_pvs_are_merged_by_event_time_in_any_read_order(seed: int) -> None:
    names = ["a", "b", "c"]
    records = [record(name, 3 * n + k, NOW + 3 * n + k, n) for k, name in enumerate(names) for n in range(50)]
    history = FakeHistory(*records, seed=seed)
    updates = read_all(Merge(history, selection(*names), history.spans()))
    assert values(updates) == list(range(150))
    assert all(update.replayed for update in updates)


def test_the_updates_of_one_pv_keep_their_publication_order() -> None:
    times = [5, 6, 4, 7]  # an older value, published again
    history = FakeHistory(*(record("a", n, NOW + time, n) for n, time in enumerate(times)))
    assert values(read_all(Merge(history, selection("a"), history.spans()))) == [0, 1, 2, 3]


def test_a_pv_in_two_partitions_is_merged() -> None:
    records = [record("a", n, NOW + n, n // 2, partition=n % 2) for n in range(10)]
    history = FakeHistory(*records)
    assert values(read_all(Merge(history, selection("a"), history.spans()))) == list(range(10))


def test_a_merge_reads_only_a_little_ahead() -> None:
    records = [record(name, n, NOW + n, n) for name in "ab" for n in range(1000)]
    history = FakeHistory(*records, max_records=10)
    merge = Merge(history, selection("a", "b"), history.spans(), limit=5)
    got: list[PVUpdate] = []
    while len(got) < 20:
        got.extend(update for _, update in merge.advance(0.0))
    assert len(got) <= 25
    assert len(history.returned) < 60


def test_a_partition_that_is_far_ahead_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records that are buffered for one partition are bounded by its share of the memory budget."""
    monkeypatch.setattr("k2eg_rx.history.merging._BUDGET", 20_000)
    early = [record("a", n, NOW + n, n) for n in range(500)]
    late = [record("b", n, NOW + 10_000 + n, n) for n in range(500)]
    history = FakeHistory(*early, *late, max_records=10)
    merge = Merge(history, selection("a", "b"), history.spans(), limit=50)
    got: list[PVUpdate] = []
    while len(got) < 400:
        got.extend(update for _, update in merge.advance(0.0))
    assert sum(each.topic == "b" for each in history.returned) < 60
    assert len(read_all(merge)) + len(got) == 1000


def test_another_pv_of_the_same_topic_is_skipped() -> None:
    records = [
        record("a:b", 1, NOW, 0, topic="a_b"),
        record("a_b", 2, NOW, 1, topic="a_b"),
        record("a-b", 3, NOW, 2, topic="a_b"),
    ]
    history = FakeHistory(*records)
    assert values(read_all(Merge(history, selection("a_b"), history.spans()))) == [2]
    both = read_all(Merge(history, selection("a_b", "a:b"), history.spans()))
    assert {(update.name, update.value) for update in both} == {("a:b", 1), ("a_b", 2)}


def test_an_event_without_a_key_is_identified_by_its_body() -> None:
    history = FakeHistory(
        record("a", 1, NOW, 0)._replace(key=None), record("x", 2, NOW, 1, topic="a")._replace(key=None)
    )
    assert values(read_all(Merge(history, selection("a"), history.spans()))) == [1]


def test_an_interval_applies_to_epics_time_or_else_kafkas_timestamp() -> None:
    interval = Interval(NOW + 10, NOW + 20)
    records = [record("a", time, NOW + time, n) for n, time in enumerate([9, 10, 19, 20])]
    timeless = record("a", "timeless", None, 4)._replace(timestamp_ms=NOW // 1_000_000)
    history = FakeHistory(*records, timeless)
    assert values(read_all(Merge(history, selection("a", interval=interval), history.spans()))) == [10, 19]
    wide = Interval(NOW - SECOND, NOW + SECOND)
    updates = read_all(Merge(history, selection("a", interval=wide), history.spans()))
    assert values(updates) == [9, 10, 19, 20, "timeless"]


@pytest.mark.parametrize("unset", [0, 631_152_000 * SECOND])
def test_a_record_that_was_never_processed_has_no_time(unset: int) -> None:
    event = record("a", 1, unset, 0)._replace(timestamp_ms=NOW // 1_000_000)
    history = FakeHistory(event)
    assert values(read_all(Merge(history, selection("a", interval=Interval(NOW)), history.spans()))) == [1]
    assert values(read_all(Merge(history, selection("a", interval=Interval(NOW + SECOND)), history.spans()))) == []


def test_kafkas_timestamp_may_differ_from_epics_time_by_the_margin() -> None:
    near = record("a", 1, NOW, 0)._replace(timestamp_ms=NOW // 1_000_000 - round(MARGIN * 1000) + 1)
    far = record("a", 2, NOW + 1, 1)._replace(timestamp_ms=NOW // 1_000_000 - round(MARGIN * 1000) - 1000)
    history = FakeHistory(near, far)
    assert values(read_all(Merge(history, selection("a", interval=Interval(NOW)), history.spans()))) == [1]


def test_repeated_events_are_returned_once_if_they_have_a_time() -> None:
    timed = [record("a", 1, NOW, offset) for offset in range(3)]
    timeless = [record("b", 1, None, offset) for offset in range(3)]
    history = FakeHistory(*timed, *timeless)
    updates = read_all(Merge(history, selection("a", "b"), history.spans()))
    assert [update.name for update in updates].count("a") == 1
    assert [update.name for update in updates].count("b") == 3


def test_undecodable_and_oversized_records_are_counted_and_skipped() -> None:
    broken = record("a", 0, NOW, 0)._replace(value=b"\xc1")
    large = record("a", "x" * 500, NOW, 1)
    history = FakeHistory(broken, large, record("a", 2, NOW + 2, 2))
    selected = selection("a", limit=200)
    assert values(read_all(Merge(history, selected, history.spans()))) == [2]
    assert {kind for kind, _ in selected._decode_errors.counts()} == {"undecodable", "size"}


def test_offsets_without_records_are_skipped() -> None:
    """Transaction markers and compacted records occupy offsets, possibly the last one of the span."""
    history = FakeHistory(record("a", 1, NOW, 2), record("a", 2, NOW + 1, 5))
    merge = Merge(history, selection("a"), {("a", 0): Span(0, 6)})
    assert values(read_all(merge)) == [1, 2]
    history.partitions["a", 0].append(record("a", 3, NOW + 2, 9))
    merge = Merge(history, selection("a"), {("a", 0): Span(0, 8)})
    assert values(read_all(merge)) == [1, 2]


def test_a_recreated_topic_is_read_to_its_new_end() -> None:
    history = FakeHistory(record("a", 1, NOW, 0), record("a", 2, NOW + 1, 1))
    merge = Merge(history, selection("a"), {("a", 0): Span(0, 50)})  # deleted and recreated with fewer records
    assert values(read_all(merge)) == [1, 2]
    assert history.located == 1


def test_an_outdated_end_offset_does_not_end_the_merge() -> None:
    history = FakeHistory(*(record("a", n, NOW + n, n) for n in range(4)), max_records=2)
    read = history.read

    def read_with_old_end(wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        records, _ = read(wanted, timeout)
        return Excerpt(records, {("a", 0): 1})

    history.read = read_with_old_end  # type: ignore[method-assign]
    assert values(read_all(Merge(history, selection("a"), history.spans()))) == [0, 1, 2, 3]
    assert history.located >= 1


def test_a_record_read_twice_is_returned_once() -> None:
    history = FakeHistory(*(record("a", n, None, n) for n in range(6)), max_records=2)
    read = history.read

    def read_twice(wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        records, ends = read(wanted, timeout)
        return Excerpt([*records, *records], ends)

    history.read = read_twice  # type: ignore[method-assign]
    assert values(read_all(Merge(history, selection("a"), history.spans()))) == [0, 1, 2, 3, 4, 5]


def test_nothing_is_returned_until_each_partition_has_answered() -> None:
    history = FakeHistory(record("a", 1, NOW, 0))
    history.is_silent = True
    merge = Merge(history, selection("a"), history.spans())
    assert merge.advance(0.0) == []
    assert not merge.is_done
    history.is_silent = False
    assert values(read_all(merge)) == [1]


def test_an_empty_history_is_done_at_once() -> None:
    history = FakeHistory()
    assert Merge(history, selection("a"), {}).is_done
    assert Merge(history, selection("a"), {("a", 0): Span(7, 7)}).is_done


def test_an_extended_merge_continues_at_its_last_offset() -> None:
    history = FakeHistory(*(record("a", n, NOW + n, n) for n in range(10)))
    merge = Merge(history, selection("a"), {("a", 0): Span(2, 5)})
    assert values(read_all(merge)) == [2, 3, 4]
    assert merge.covered()["a", 0][0] == 5
    merge.extend({("a", 0): Span(7, 9), ("b", 0): Span(3, 4)})
    history.partitions["b", 0] = [record("b", "b", NOW + 100, 3, topic="b")]
    extension = read_all(merge)
    assert values(extension) == [5, 6, 7, 8]


def test_the_last_update_before_the_interval_is_kept() -> None:
    selected = selection("a", "b", interval=Interval(NOW + 5))
    history = FakeHistory(record("a", 1, NOW, 0), record("a", 2, NOW + 1, 1), record("b", 3, NOW + 6, 0))
    read_all(Merge(history, selected, history.spans()))
    (before,) = selected.before()
    assert (before.name, before.value, before.replayed) == ("a", 2, False)


def test_each_topic_is_read_once() -> None:
    addresses = [PVAddress.parse(f"pva://{name}") for name in ("a:b", "a_b", "c")]
    assert topics_of(addresses) == ["a_b", "c"]
