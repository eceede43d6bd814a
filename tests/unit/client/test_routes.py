"""Runs of events are published as their events would be one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx.client.routes import Outgoing, PVRoute
from k2eg_rx.delivery import RecordRun
from k2eg_rx.protocol import PVUpdate, Record, decode
from k2eg_rx.protocol.column_values import Numbers
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress

X = PVAddress.parse("pva://x")
SERIALIZATION = ("k2eg-ser-type", b"Msgpack")
HEADERS: list[Any] = [
    [SERIALIZATION],
    [SERIALIZATION, ("k2eg-protocol", b"pva")],
    [SERIALIZATION, ("k2eg-epoch", b"f:1")],
    [SERIALIZATION, ("k2eg-epoch", b"f:2"), ("k2eg-protocol", b"pva")],
    [SERIALIZATION, ("k2eg-repeated", b"1")],
    [],
]


class Subscriber:
    newest_only = False

    def count_conflated(self, count: int) -> None:
        raise NotImplementedError

    def offer(self, items: Sequence[object]) -> None:
        raise NotImplementedError

    def finish(self, error: Exception | None = None) -> None:
        raise NotImplementedError

    def cancel_and_drain(self) -> Sequence[object]:
        raise NotImplementedError

    def reclaim_undelivered(self, is_wanted: Callable[[Any], bool]) -> Sequence[Any]:
        raise NotImplementedError


def event(offset: int, second: int | None, headers: Any) -> Record:
    stamp = {} if second is None else {"timeStamp": {"secondsPastEpoch": 1000 + second, "nanoseconds": 0}}
    value = None if second == -1 else pack({"x": {"value": second, **stamp}})
    return Record("x", 0, offset, b"x", value, headers, timestamp_ms=offset)


class Published:
    """A route with a subscriber of updates and one of records, and what these got."""

    def __init__(self) -> None:
        self.route = PVRoute(X, "x")
        self._updates, self._records = Subscriber(), Subscriber()
        self.route.add(self._updates, values=True, connections=True)
        self.route.add(self._records, values=False, connections=False, records=True)
        self.updates: list[int] = []
        self.records: list[int] = []

    def take(self, outgoing: Outgoing) -> None:
        for item in outgoing.get(self._updates, []):
            self.updates.append(item.record.offset if isinstance(item, PVUpdate) else -1)
        for run in outgoing.get(self._records, []):
            assert isinstance(run, RecordRun)
            assert not run.are_usual or all(decode.has_usual_headers(each.headers, "pva") for each in run.records)
            self.records += [record.offset for record in run.records]

    def state(self) -> tuple[Any, ...]:
        route = self.route
        return self.updates, self.records, route.last, route.repeated, route.epochs.dropped, route.heard


seconds = st.integers(0, 400) | st.none() | st.just(-1)


@given(
    st.lists(st.tuples(st.lists(seconds, min_size=1, max_size=8), st.sampled_from(HEADERS)), max_size=12),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_runs_are_published_as_events_one_by_one(parts: list[tuple[list[int | None], Any]], sizes: list[int]) -> None:
    events = [(second, headers) for each, headers in parts for second in each]
    records = [event(offset, second, headers) for offset, (second, headers) in enumerate(events[:18])]
    singly, together = Published(), Published()
    for record in records:
        outgoing: Outgoing = {}
        singly.route.publish(record, outgoing)
        singly.take(outgoing)
    while records:
        size = sizes[0] if len(sizes) == 1 else sizes.pop()
        outgoing = {}
        together.route.publish_run(records[:size], outgoing)
        together.take(outgoing)
        records = records[size:]
    assert together.state() == singly.state()


@pytest.mark.parametrize("size", [2, 17, 18, 40])
def test_an_old_event_after_newer_ones_of_a_run_is_left_out(size: int) -> None:
    published = Published()
    for start in range(0, 200, size):
        outgoing: Outgoing = {}
        published.route.publish_run([event(n, n, HEADERS[0]) for n in range(start, start + size)], outgoing)
        published.take(outgoing)
    count = len(published.updates)
    newest = published.updates[-1]
    for distance in (2, 12, 18):
        published.route.publish_run([event(newest - distance + 1, newest - distance + 1, HEADERS[0])] * 1, {})
    assert published.route.repeated == 3
    assert len(published.updates) == count


def runs_of(published: Published, records: Sequence[Record]) -> list[RecordRun]:
    outgoing: Outgoing = {}
    published.route.publish_run(records, outgoing)
    published.take(outgoing)
    return [item for items in outgoing.values() for item in items if isinstance(item, RecordRun)]


def test_a_long_run_is_read_together() -> None:
    published = Published()
    published.route.publish(event(0, 130, HEADERS[0]), {})
    (run,) = runs_of(published, [event(n, n, HEADERS[0]) for n in range(131, 201)])
    assert run.read is not None
    assert (len(run), len(run.read), len(published.updates)) == (70, 70, 70)
    assert runs_of(published, [event(195, 195, HEADERS[0])]) == [], "it repeats one of the run"
    part = run.cut(10, 30)
    assert part.read is not None
    assert isinstance(part.read.values, Numbers)
    assert [record.offset for record in part.records] == part.read.values.array.tolist() == list(range(141, 161))
    assert part.read.time.tolist() == [(1000 + n) * 1_000_000_000 for n in range(141, 161)]
    again, fewer, texts = (
        runs_of(published, records)
        for records in (
            [event(n, n, HEADERS[0]) for n in (*range(201, 240), 225)],
            [event(n, n, HEADERS[0]) for n in range(240, 250)],
            [event(n, None, HEADERS[0]) for n in range(250, 290)],
        )
    )
    assert sum(map(len, again)) == 39, "the last one repeats an earlier one"
    assert [run.read for run in (*again, *fewer, *texts)] == [None] * len((*again, *fewer, *texts))


def test_headers_of_a_usual_run_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    published = Published()
    published.route.publish(event(0, 0, HEADERS[0]), {})
    outgoing: Outgoing = {}
    published.route.publish_run([event(n, n, HEADERS[0]) for n in range(1, 5)], outgoing)
    monkeypatch.setattr(decode, "has_usual_headers", None)
    updates = [item for items in outgoing.values() for item in items if isinstance(item, PVUpdate)]
    assert [update.value for update in updates] == [1, 2, 3, 4]


def test_each_event_of_a_run_has_its_own_headers() -> None:
    published = Published()
    published.route.publish(event(0, 0, HEADERS[0]), {})
    newer, older = [SERIALIZATION, ("k2eg-epoch", b"f:2")], [SERIALIZATION, ("k2eg-epoch", b"f:1")]
    run = [event(n, n, headers) for n, headers in enumerate([HEADERS[0], newer, older, []], 1)]
    outgoing: Outgoing = {}
    published.route.publish_run(run, outgoing)
    published.take(outgoing)
    assert published.updates == published.records == [1, 2, 4]
    assert published.route.epochs.dropped == 1
