"""Assembly of numbered iterations: any interleaving gives the snapshots of the ordered one; gaps, repeats, restarts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol.assembly import IterationAssembler
from k2eg_rx.protocol.assembly_by_number import MAX_OPEN, TRANSITIONS, Action, Event, NumberAssembler, Phase
from k2eg_rx.protocol.messages import SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.snapshots import TRUNCATED, Snapshot
from k2eg_rx.pv import PVAddress

PVS = [PVAddress.parse("pva://a"), PVAddress.parse("ca://b")]
WAIT = 2.0


def assembler(**options: Any) -> IterationAssembler:
    return IterationAssembler("snap", PVS, wait=WAIT, **options)


def messages(
    index: int, pushes: Sequence[int] = (3,), *, start: int = 0, tags: dict[str, str] | None = None, sub: bool = False
) -> list[SnapshotMessage]:
    """Returns the messages of an iteration, with a number of samples in each partial push."""
    time = start + index * 10
    found: list[SnapshotMessage] = [SnapshotHeader("snap", time, index, tags or {}, 1, 1 if sub else None)]
    for push, samples in enumerate(pushes, 1):
        for sample in range(samples):
            value = index * 1000 + len(found)
            last = sub and sample == samples - 1
            where = (len(found) + 1, push if sub else None, last)
            found.append(SnapshotData(time + push, index, "ab"[len(found) % 2], {"value": value}, *where))
    total = len(found) + 1
    found.append(SnapshotTail("snap", time + 9, index, 0, "", total, total, len(pushes) if sub else None))
    return found


def feed(to: IterationAssembler, *parts: SnapshotMessage, now: float = 0.0) -> list[Snapshot]:
    return [snapshot for part in parts for snapshot in to.feed(part, now)]


def without_numbers(parts: Iterable[SnapshotMessage]) -> list[SnapshotMessage]:
    bare = [replace(part, msg_seq=None, submission_seq=None) for part in parts]
    return [replace(part, total_messages=None) if isinstance(part, SnapshotTail) else part for part in bare]


def values(snapshot: Snapshot) -> dict[str, list[int]]:
    return {pv: [structure["value"] for structure in samples] for pv, samples in snapshot.data.items()}


def interleaved(iterations: Sequence[Sequence[SnapshotMessage]], chance: random.Random, ahead: int) -> list[Any]:
    """Returns an order that gateways may publish in: headers in order and first, iterations overlap by `ahead`."""
    rest = [[*parts[1:]] for parts in iterations]
    for parts in rest:
        chance.shuffle(parts)
    begun, order = 0, []
    while begun < len(iterations) or any(rest):
        open_ = [number for number in range(begun) if rest[number]]
        may_begin = begun < len(iterations) and (not open_ or begun - open_[0] <= ahead)
        choices: list[int] = [*open_, *([begun] if may_begin else [])]
        choice = choices[chance.randrange(len(choices))]
        if choice == begun:
            order.append(iterations[begun][0])
            begun += 1
        else:
            order.append(rest[choice].pop())
    return order


shapes = st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans()), max_size=6)


def made(shape: list[tuple[list[int], bool]]) -> list[list[SnapshotMessage]]:
    return [messages(index, pushes, sub=sub) for index, (pushes, sub) in enumerate(shape, 1)]


@given(shapes, st.randoms(use_true_random=False), st.integers(0, MAX_OPEN - 1))
def test_any_interleaving_gives_the_snapshots_of_the_ordered_one(shape: Any, chance: Any, ahead: int) -> None:
    iterations = made(shape)
    ordered = feed(assembler(), *(part for parts in iterations for part in parts))
    assert ordered == feed(assembler(), *(part for parts in iterations for part in without_numbers(parts)))
    assert [snapshot.iteration for snapshot in ordered] == list(range(1, len(iterations) + 1))
    one = assembler()
    assert feed(one, *interleaved(iterations, chance, ahead)) == ordered
    assert (one.counts, one.deadline) == ({}, None)
    assert all(snapshot.complete for snapshot in ordered)


@given(shapes, st.randoms(use_true_random=False), st.integers(0, MAX_OPEN - 1), st.data())
def test_repeated_messages_change_nothing(shape: Any, chance: Any, ahead: int, data: Any) -> None:
    iterations = made(shape)
    order = interleaved(iterations, chance, ahead)
    repeated = list(order)
    for _ in range(data.draw(st.integers(0, 5)) if order else 0):
        at = data.draw(st.integers(0, len(repeated) - 1))
        repeated.insert(data.draw(st.integers(at + 1, len(repeated))), repeated[at])
    one = assembler()
    assert feed(one, *repeated) == feed(assembler(), *order)
    assert one.counts.keys() <= {"duplicate", "old"}
    assert one.counts.total() == len(repeated) - len(order)


@given(shapes.filter(bool), st.randoms(use_true_random=False), st.integers(0, MAX_OPEN - 2), st.data())
def test_lost_messages_cost_their_iteration_only(shape: Any, chance: Any, ahead: int, data: Any) -> None:
    iterations = made(shape)
    order = interleaved(iterations, chance, ahead)
    kept = [part for part in order if isinstance(part, SnapshotHeader) or data.draw(st.integers(0, 9))]
    one = assembler()
    snapshots = feed(one, *kept, now=1.0)
    snapshots += one.expire(1.0 + WAIT)
    lost = Counter(part.iter_index for part in order) - Counter(part.iter_index for part in kept)
    expected = feed(assembler(), *order)
    assert [s.iteration for s in snapshots] == sorted(s.iteration for s in snapshots)
    tails = {part.iter_index for part in kept if isinstance(part, SnapshotTail)}
    for snapshot in snapshots:
        if not lost[snapshot.iteration]:
            assert snapshot == expected[snapshot.iteration - 1]
        elif snapshot.iteration in tails:
            assert snapshot.missing == lost[snapshot.iteration]
        else:
            assert 1 <= snapshot.missing <= lost[snapshot.iteration]
    # what may be left is the last iteration, of which no tail and nothing later has come
    assert {part.iter_index for part in kept} - {snapshot.iteration for snapshot in snapshots} <= {len(iterations)}


def test_the_table_covers_every_event_of_every_phase() -> None:
    impossible = {(Phase.UNKNOWN, Event.LAST), (Phase.UNKNOWN, Event.DUPLICATE), (Phase.ENDED, Event.TAIL)}
    impossible |= {(Phase.READY, event) for event in (Event.PART, Event.TAIL, Event.LAST)}
    assert set(TRANSITIONS) == {(phase, event) for phase in Phase for event in Event} - impossible


def test_only_a_last_message_makes_an_iteration_ready() -> None:
    ready = [key for key, (action, phase) in TRANSITIONS.items() if phase is Phase.READY and action is not Action.DROP]
    assert sorted(ready, key=str) == [(Phase.ENDED, Event.LAST), (Phase.OPEN, Event.LAST)]


def test_samples_are_in_the_order_of_partial_pushes_then_numbers() -> None:
    header, *_, tail = messages(1, (4,))
    samples = [
        SnapshotData(1, 1, "a", {"value": value}, number, push)
        for value, number, push in [(4, 3, 2), (1, 2, 1), (3, 2 + 3, 1), (2, 4, 1)]
    ]
    (snapshot,) = feed(assembler(), header, tail, *samples)
    assert values(snapshot)["a"] == [1, 2, 3, 4]


def test_a_gap_is_reported_after_the_wait() -> None:
    header, first, _, last, tail = messages(1)
    one = assembler()
    assert feed(one, header, first, last, tail, now=10.0) == []
    assert one.deadline == 10.0 + WAIT
    assert one.expire(11.9) == []
    (snapshot,) = one.expire(12.0)
    assert (snapshot.complete, snapshot.missing, snapshot.error) == (False, 1, 0)
    assert values(snapshot) == {"a": [], "b": [1001, 1003]}
    assert (one.deadline, one.counts) == (None, {"incomplete": 1})


def test_messages_that_the_gateway_could_not_send_are_missing_at_once() -> None:
    *parts, tail = messages(1)
    assert isinstance(tail, SnapshotTail)
    one = assembler()
    (snapshot,) = feed(one, *parts, replace(tail, missing_messages=2))
    assert (snapshot.missing, snapshot.complete, one.counts) == (2, False, {"incomplete": 1})


def test_a_message_that_comes_within_the_wait_completes_its_iteration() -> None:
    header, first, late, last, tail = messages(1)
    one = assembler()
    assert feed(one, header, first, last, tail, now=10.0) == []
    (snapshot,) = feed(one, late, now=11.0)
    assert snapshot.complete
    assert one.deadline is None


def test_a_message_that_comes_after_the_wait_is_dropped() -> None:
    header, first, late, last, tail = messages(1)
    one = assembler()
    feed(one, header, first, last, tail)
    assert len(one.expire(WAIT)) == 1
    assert feed(one, late) == []
    assert one.counts == {"incomplete": 1, "old": 1}


def test_a_later_iteration_waits_for_the_one_before_it() -> None:
    one = assembler()
    assert feed(one, *messages(1)[:-1], now=1.0) == []
    assert one.deadline is None, "the tail may take as long as the window"
    assert feed(one, *messages(2), now=5.0) == []
    first, second = one.expire(5.0 + WAIT)
    assert (first.iteration, first.missing, second.iteration, second.missing) == (1, 1, 2, 0)


def test_without_header_and_tail_the_times_are_those_of_the_samples() -> None:
    one = assembler()
    feed(one, *messages(1))
    feed(one, *messages(2, (1, 1), sub=True)[1:-1], *messages(3))
    snapshot, _ = one.expire(WAIT)
    assert (snapshot.header_timestamp, snapshot.timestamp, snapshot.missing) == (21, 22, 2)


def test_too_many_open_iterations_hand_over_the_first() -> None:
    one = assembler()
    starts = [messages(index)[0] for index in range(1, MAX_OPEN + 2)]
    (snapshot,) = feed(one, *starts)
    assert (snapshot.iteration, snapshot.missing) == (1, 1)
    assert one.expire(0.0) == []


def test_a_late_joiner_drops_the_part_without_a_header() -> None:
    one = assembler()
    first, second = messages(5), messages(6)
    snapshots = feed(one, *first[2:4], second[0], first[4], *second[1:])
    assert [snapshot.iteration for snapshot in snapshots] == [6]
    assert one.counts == {"stray": 2, "old": 1}


def test_a_gateway_that_restarts_counts_from_one_again() -> None:
    one = assembler()
    before = [part for index in (1, 2, 3) for part in messages(index)]
    snapshots = feed(one, *before, *messages(4)[:3])
    snapshots += feed(one, *messages(1, start=500), *messages(2, start=500))
    assert [(s.iteration, s.complete) for s in snapshots] == [
        (1, True),
        (2, True),
        (3, True),
        (4, False),
        (1, True),
        (2, True),
    ]
    assert snapshots[4].header_timestamp == 510


def test_a_gateway_that_restarts_in_the_same_iteration_is_noticed() -> None:
    snapshots = feed(assembler(), *messages(1)[:3], *messages(1, start=500))
    assert [(s.header_timestamp, s.missing) for s in snapshots] == [(10, 1), (510, 0)]


def test_a_repeated_part_of_the_topic_changes_nothing() -> None:
    first, second, third = messages(1), messages(2), messages(3)
    one = assembler()
    snapshots = feed(one, *first, *second, *third[:3], *second, *third)
    assert [(s.iteration, s.complete) for s in snapshots] == [(1, True), (2, True), (3, True)]


def test_a_gateway_without_numbers_takes_over_and_back() -> None:
    old = without_numbers(messages(1, start=500))
    snapshots = feed(assembler(), *messages(4), *messages(5)[:2], *old, old[0], old[1], *messages(1, start=900))
    assert [(s.iteration, s.missing) for s in snapshots] == [(4, 0), (5, 1), (1, 0), (1, 0)]


def test_a_tail_without_a_number_follows_what_has_arrived() -> None:
    *parts, tail = messages(1)
    bare = replace(tail, msg_seq=None, total_messages=None)  # pyright: ignore[reportCallIssue]
    (snapshot,) = feed(assembler(), *parts, bare)
    assert snapshot.complete


def test_a_sample_without_a_number_follows_what_has_arrived() -> None:
    header, *samples, tail = messages(1)
    bare = [replace(sample, msg_seq=None) for sample in samples]
    (snapshot,) = feed(assembler(), header, *bare, tail)
    assert (snapshot.complete, values(snapshot)) == (True, {"a": [1002], "b": [1001, 1003]})


def test_tags_and_failures_reach_the_snapshot() -> None:
    *parts, tail = messages(1, tags={"shot": "7"})
    failed = replace(tail, error=-5, error_message="no luck")  # pyright: ignore[reportCallIssue]
    (snapshot,) = feed(assembler(), *parts, failed)
    assert (snapshot.tags, snapshot.error, snapshot.error_message) == ({"shot": "7"}, -5, "no luck")


def test_samples_that_cannot_be_used_are_counted_and_not_missing() -> None:
    header, first, *others = messages(1)
    other = replace(first, pv_name="other")  # pyright: ignore[reportCallIssue]
    one = assembler()
    (snapshot,) = feed(one, header, other, *others)
    assert (snapshot.complete, one.counts) == (True, {"unknown_pv": 1})


def test_the_samples_of_all_open_iterations_are_bounded_together() -> None:
    one = assembler(max_samples=4)
    first, second = messages(1, (3,)), messages(2, (3,))
    snapshots = feed(one, *first[:-1], *second[:-1], first[-1], second[-1])
    assert [(sum(map(len, s.data.values())), s.error) for s in snapshots] == [(3, 0), (1, TRUNCATED)]
    assert snapshots[1].complete, "the samples did arrive"
    assert one.counts == {"excess": 2}
    (third,) = feed(one, *messages(3))
    assert third.error == 0


def test_numbers_out_of_order_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2eg_rx.protocol.assembly_by_number.MAX_SAMPLES", 10)
    one = assembler(max_samples=5)
    header = messages(1)[0]
    feed(one, header, *(SnapshotData(1, 1, "a", {}, number) for number in range(3, 10**5, 2)))
    assert one.counts["stray"] > 4 * 10**4
    assert one.counts["excess"] == 5


def test_iterations_far_ahead_are_not_opened_without_a_header() -> None:
    one = assembler()
    feed(one, *messages(1))
    feed(one, *messages(1 + MAX_OPEN)[1:], *messages(10**18)[1:])
    assert one.counts == {"stray": 8}


def test_discard_continues_as_a_late_joiner() -> None:
    one = assembler()
    feed(one, *messages(1), *messages(2)[:3])
    assert one.is_open(2)
    one.discard()
    assert not one.is_open(2)
    assert (one.deadline, one.expire(1e9)) == (None, [])
    snapshots = feed(one, *messages(2)[3:], *messages(4)[2:], *messages(5))
    assert [s.iteration for s in snapshots] == [5]


NAMES = st.sampled_from(["snap", "SNAP", "other"])
INDICES = st.integers(0, 6)
NUMBERS = st.none() | st.integers(1, 6) | st.just(2**64)
TIMES = st.integers(0, 3)
MESSAGES: st.SearchStrategy[SnapshotMessage] = st.one_of(
    st.builds(SnapshotHeader, NAMES, TIMES, INDICES, st.just({}), NUMBERS, NUMBERS),
    st.builds(SnapshotData, TIMES, INDICES, st.sampled_from("abc"), st.just({"value": 1}), NUMBERS, NUMBERS),
    st.builds(SnapshotTail, NAMES, TIMES, INDICES, st.integers(-2, 1), st.just(""), NUMBERS, NUMBERS, NUMBERS),
)


@given(st.lists(MESSAGES, max_size=60))
def test_any_messages_never_raise_and_keep_the_bounds(parts: list[SnapshotMessage]) -> None:
    one = assembler(max_samples=7)
    for now, part in enumerate(parts):
        for snapshot in (*one.feed(part, now), *one.expire(now)):
            assert snapshot.missing >= 0
            assert sum(map(len, snapshot.data.values())) <= 7
        assert sum(one.is_open(index) for index in range(7)) <= MAX_OPEN + 1
    assert one.expire(len(parts) + WAIT) is not None


def test_an_assembler_by_number_holds_what_it_counts() -> None:
    numbers = NumberAssembler("snap", PVS, 100, Counter(), WAIT)
    for part in [*messages(1)[:-1], *messages(2)[:-1]]:
        numbers.feed(part, 0.0)
    numbers.expire(WAIT)
    assert [iteration.index for iteration in numbers.open.values()] == [2]
