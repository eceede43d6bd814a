"""Properties of `align` for any updates, in any order that keeps each PV's own."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import from_iterable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.operators import AlignCounts, Aligned, DropReason, align
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.structures import NANOSECONDS
from k2eg_rx.testing import START, update

PVS = ["a", "b", "c"]
PERIOD = 100  # ns between ticks
JITTER = 30  # ns; below half a period, so that no instant is ambiguous

ticks = st.lists(st.sets(st.sampled_from(PVS)), max_size=12)


def lanes_of(present: Sequence[set[str]], jitter: Sequence[int]) -> dict[str, list[PVUpdate]]:
    """Updates of each PV, one for each tick at which it is present."""
    return {
        pv: [
            update(pv, number, timestamp=START + number * PERIOD + jitter[(3 * number + order) % len(jitter)])
            for number, names in enumerate(present)
            if pv in names
        ]
        for order, pv in enumerate(PVS)
    }


def interleaved(lanes: dict[str, list[PVUpdate]], choices: Iterable[int]) -> list[PVUpdate]:
    """The updates in an order that keeps each PV's own."""
    left = {pv: list(updates) for pv, updates in lanes.items()}
    order: list[PVUpdate] = []
    choice = iter(choices)
    while any(left.values()):
        waiting = [pv for pv in PVS if left[pv]]
        order.append(left[waiting[next(choice, 0) % len(waiting)]].pop(0))
    return order


def run(updates: Iterable[PVUpdate], **options: Any) -> list[Aligned]:
    instants: list[Aligned] = []
    errors: list[Exception] = []
    from_iterable(updates).pipe(align(PVS, **options)).subscribe(instants.append, errors.append)
    assert errors == []
    return instants


def numbers(instants: Iterable[Aligned]) -> list[dict[str, int]]:
    return [instant.values() for instant in instants]


@settings(deadline=None)
@given(ticks, st.lists(st.integers(0, JITTER), min_size=5, max_size=7), st.lists(st.integers(0, 2)))
def test_every_interleaving_gives_exactly_the_complete_instants(
    present: list[set[str]], jitter: list[int], choices: list[int]
):
    order = interleaved(lanes_of(present, jitter), choices)
    instants = run(order, tolerance=JITTER * 1e-9)
    complete = [number for number, names in enumerate(present) if len(names) == len(PVS)]
    assert numbers(instants) == [dict.fromkeys(PVS, number) for number in complete]


@settings(deadline=None)
@given(
    st.fixed_dictionaries({pv: st.lists(st.integers(0, 60), max_size=15, unique=True) for pv in PVS}),
    st.integers(0, 20),
    st.lists(st.integers(0, 2)),
)
def test_ambiguous_times_give_the_same_result_in_every_interleaving(
    times: dict[str, list[int]], tolerance: int, choices: list[int]
):
    lanes = {pv: [update(pv, time, timestamp=START + time) for time in sorted(found)] for pv, found in times.items()}
    one = run(interleaved(lanes, choices), tolerance=tolerance * 1e-9)
    other = run([item for pv in PVS for item in lanes[pv]], tolerance=tolerance * 1e-9)
    assert numbers(one) == numbers(other)


@settings(deadline=None)
@given(ticks, st.lists(st.integers(0, JITTER), min_size=5, max_size=7), st.lists(st.integers(0, 300), min_size=1))
def test_delays_within_the_grace_do_not_change_partial_instants(
    present: list[set[str]], jitter: list[int], delays: list[int]
):
    arrivals: list[tuple[int, PVUpdate]] = []
    for order, updates in enumerate(lanes_of(present, jitter).values()):
        times = [(item.timestamp or 0) for item in updates]
        due = [time + delays[(order + number) % len(delays)] for number, time in enumerate(times)]
        arrivals.extend(zip(accumulate(due, max), updates, strict=True))
    updates = [item for _, item in sorted(arrivals, key=lambda arrival: arrival[0])]
    counts = AlignCounts()
    instants = run(updates, tolerance=JITTER * 1e-9, grace=300e-9, incomplete="partial", counts=counts)
    assert numbers(instants) == [
        {pv: number for pv in PVS if pv in names} for number, names in enumerate(present) if names
    ]
    assert counts.used == len(updates)


def delivered(arrivals: Iterable[tuple[float, PVUpdate]], incomplete: str) -> list[tuple[int, dict[str, int]]]:
    """The instants of updates that arrive at these times, in seconds."""
    clock = TestScheduler()
    source: Subject[PVUpdate] = Subject()
    instants: list[Aligned] = []
    operator = align(PVS, grace=1.0, incomplete=incomplete, scheduler=clock)  # pyright: ignore[reportArgumentType]
    source.pipe(operator).subscribe(instants.append)
    for time, item in arrivals:
        clock.sleep(max(0.0, time - clock.clock))
        source.on_next(item)
    source.on_completed()
    return [(instant.timestamp, instant.values()) for instant in instants]


@settings(deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(PVS)), max_size=60),
    st.lists(st.floats(0.0, 0.9), min_size=1, max_size=7),
    st.integers(1, 60),
    st.sampled_from([0.01, 1.0, 60.0, 10_000.0]),
    st.sampled_from(["drop", "partial"]),
)
def test_instants_are_the_same_live_behind_replayed_and_from_a_file(
    present: list[set[str]], delays: list[float], batch: int, speed: float, incomplete: str
):
    """PVs at 10 Hz, each with gaps; live, each update is up to 0.9 s late."""
    lanes = {
        pv: [
            (0.1 * number, update(pv, number, timestamp=START + number * NANOSECONDS // 10))
            for number, names in enumerate(present)
            if pv in names
        ]
        for pv in PVS
    }
    merged = sorted((entry for lane in lanes.values() for entry in lane), key=lambda entry: entry[0])
    expected = delivered(((0.0, item) for _, item in merged), incomplete)
    late = [
        (due, item)
        for order, lane in enumerate(lanes.values())
        for due, (_, item) in zip(
            accumulate((time + delays[(order + number) % len(delays)] for number, (time, _) in enumerate(lane)), max),
            lane,
            strict=True,
        )
    ]
    live = delivered(sorted(late, key=lambda entry: entry[0]), incomplete)
    assert live == expected
    rounds = range(0, len(present), batch)  # 60 s in Kafka, read a batch of each PV at a time
    behind = [(60.0, item) for start in rounds for lane in lanes.values() for _, item in lane[start : start + batch]]
    assert delivered(behind, incomplete) == expected
    assert delivered([(time / speed, item) for time, item in merged], incomplete) == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*PVS, "x"]), st.none() | st.integers(0, 400)), max_size=60),
    st.sampled_from(["timestamp", "pulse_id"]),
    st.sampled_from(["drop", "partial"]),
    st.sampled_from([None, {"c": 50e-9}]),
    st.integers(0, 100),
    st.integers(0, 40),
    st.integers(3, 10),
)
def test_every_update_is_used_or_dropped_and_the_queue_is_bounded(
    events: list[tuple[str, int | None]],
    on: str,
    incomplete: str,
    hold: dict[str, float] | None,
    grace: int,
    tolerance: int,
    most: int,
):
    counts = AlignCounts()
    dropped: list[tuple[PVUpdate, DropReason]] = []
    instants: list[Aligned] = []
    source: Subject[PVUpdate] = Subject()
    operator = align(
        PVS,
        on=on,  # pyright: ignore[reportArgumentType]
        incomplete=incomplete,  # pyright: ignore[reportArgumentType]
        hold=hold,
        grace=grace * 1e-9,
        tolerance=tolerance * 1e-9,
        capacity=most,
        pulse_id_mask=0x7F,
        counts=counts,
        on_drop=lambda item, why: dropped.append((item, why)),
    )
    source.pipe(operator).subscribe(instants.append)
    updates = [update(pv, 1, timestamp=None if time is None else START + time) for pv, time in events]
    held = 0
    for item in updates:
        source.on_next(item)
        held += hold is not None and item.name in hold
        assert counts.waiting <= most + held
    source.on_completed()
    used = Counter(id(item) for instant in instants for item in instant.updates.values())
    assert used.keys().isdisjoint(id(item) for item, _ in dropped)
    assert used.keys() | {id(item) for item, _ in dropped} == set(map(id, updates))
    assert len(dropped) == len({id(item) for item, _ in dropped})
    assert all(used[id(item)] <= 1 for item in updates if not hold or item.name not in hold)
    assert (counts.received, counts.used, counts.waiting) == (len(updates), len(used), 0)
    assert counts.dropped == Counter(why for _, why in dropped)
    assert counts.instants == len(instants)
    assert counts.partial == sum(not instant.is_complete for instant in instants)
