"""Properties of `resample` for any samples, in any order within the grace, in any groups."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import from_iterable

from k2eg_rx.operators import ResampleCounts, Resampled, resample
from k2eg_rx.protocol import PVUpdate, Snapshot
from k2eg_rx.testing import START, snapshot, update

PVS = ["a", "b", "c"]
MS = 1_000_000
RATE = 120.0  # whose period is no whole number of nanoseconds
GRACE = 10  # ms
PERIOD = Fraction(1_000_000_000, 120)

# PV, EPICS time in ms, delay in ms, severity
event = st.tuples(
    st.sampled_from(PVS), st.integers(0, 100), st.sampled_from([0, 0, 5, GRACE]), st.sampled_from([0, 0, 1, 3])
)
events = st.lists(event, max_size=15) | st.lists(event, min_size=30, max_size=50)
cuts = st.lists(st.integers(1, 12), min_size=1, max_size=5)  # sizes of windows, over and over; 1 gives updates


def arrivals(of: Sequence[tuple[str, int, int, int]]) -> list[PVUpdate]:
    """Updates in the order of their arrival, each with a value of its own."""
    order = sorted(enumerate(of), key=lambda event: event[1][1] + event[1][2])
    return [
        update(pv, float(number), timestamp=START + time * MS, severity=severity)
        for number, (pv, time, _, severity) in order
    ]


def windows(updates: Sequence[PVUpdate], sizes: Sequence[int]) -> Iterable[PVUpdate | Snapshot]:
    """The updates in groups: one as an update, several as a timed-buffered snapshot."""
    at, number = 0, 0
    while at < len(updates):
        size = sizes[number % len(sizes)]
        group = updates[at : at + size]
        at, number = at + size, number + 1
        if size == 1:
            yield group[0]
        else:
            yield snapshot("s", {pv: [item for item in group if item.name == pv] or None for pv in PVS})


def run(items: Iterable[PVUpdate | Snapshot], counts: ResampleCounts | None = None, **options: Any) -> list[Resampled]:
    chunks: list[Resampled] = []
    errors: list[Exception] = []
    operator = resample(RATE, pvs=PVS, grace=GRACE * 1e-3, every=0.020, counts=counts, **options)
    from_iterable(items).pipe(operator).subscribe(chunks.append, errors.append)
    assert errors == []
    return chunks


def point(number: int) -> int:
    return math.floor(number * PERIOD)


def from_time(time: int) -> int:
    """The first point that is not before a time."""
    return math.ceil(time / PERIOD)


def expected(updates: Sequence[PVUpdate], fill: str | None, tolerance: int) -> tuple[list[int], dict[str, list[float]]]:
    """Times and values of the grid, computed one by one from all samples."""
    samples: dict[str, dict[int, float]] = {pv: {} for pv in PVS}
    for item in updates:
        samples[item.name][item.timestamp or 0] = math.nan if item.severity >= 3 else item.value
    seconds = [sorted(of)[1] for of in samples.values() if len(of) > 1]
    if not seconds:
        return [], {pv: [] for pv in PVS}
    newest = max(max(of) for of in samples.values() if of)
    numbers = range(from_time(min(seconds)), from_time(newest) + 1)
    columns = {pv: [value_at(of, number, fill, tolerance) for number in numbers] for pv, of in samples.items()}
    return [point(number) for number in numbers], columns


def value_at(samples: dict[int, float], number: int, fill: str | None, tolerance: int) -> float:
    at, before = point(number), point(number - 1)
    earlier = max((time for time in samples if time <= at), default=None)
    if earlier is None:
        return math.nan
    if fill is None:
        return samples[earlier] if earlier > before else math.nan
    if fill == "previous":
        return samples[earlier] if at - earlier <= tolerance else math.nan
    later = min((time for time in samples if time >= at), default=None)
    if later is None or later - earlier > tolerance:
        return math.nan
    share = 0 if later == earlier else (at - earlier) / (later - earlier)
    return samples[earlier] + (samples[later] - samples[earlier]) * share


@settings(deadline=None, max_examples=60)
@given(events, cuts, st.sampled_from([None, "previous", "linear"]), st.integers(1, 60))
def test_any_split_into_windows_gives_the_grid_of_all_samples(
    of: list[tuple[str, int, int, int]], sizes: list[int], fill: str | None, tolerance: int
):
    updates = arrivals(of)
    counts = ResampleCounts()
    chunks = run(windows(updates, sizes), counts, fill=fill, tolerance=tolerance * 1e-3)
    times, columns = expected(updates, fill, tolerance * MS)
    assert [int(time) for chunk in chunks for time in chunk.times] == times
    for pv in PVS:
        found = [float(value) for chunk in chunks for value in chunk.columns[pv]]
        np.testing.assert_allclose(found, columns[pv], rtol=1e-9)
    assert (counts.points, counts.waiting, counts.received) == (len(times), 0, len(updates))
    assert counts.missing == sum(math.isnan(value) for column in columns.values() for value in column)


@settings(deadline=None, max_examples=60)
@given(events, cuts, cuts, st.sampled_from([None, "previous", "linear"]))
def test_the_items_do_not_depend_on_the_windows(
    of: list[tuple[str, int, int, int]], some: list[int], others: list[int], fill: str | None
):
    updates = arrivals(of)
    one = run(windows(updates, some), fill=fill, tolerance=0.02)
    other = run(windows(updates, others), fill=fill, tolerance=0.02)
    assert [chunk.times.tolist() for chunk in one] == [chunk.times.tolist() for chunk in other]
    for chunk, same in zip(one, other, strict=True):
        for pv in PVS:
            np.testing.assert_array_equal(chunk.columns[pv], same.columns[pv])
        assert (chunk.filled, chunk.missing) == (same.filled, same.missing)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([*PVS, "x"]), st.none() | st.integers(0, 3000)), max_size=80),
    cuts,
    st.sampled_from([None, "previous", "linear"]),
    st.integers(1, 20),
)
def test_in_any_order_each_sample_is_counted_and_no_point_is_missing_or_twice(
    of: list[tuple[str, int | None]], sizes: list[int], fill: str | None, capacity: int
):
    updates = [update(pv, 1, timestamp=0 if time is None else START + time * MS) for pv, time in of]
    counts = ResampleCounts()
    chunks = run(windows(updates, sizes), counts, fill=fill, tolerance=0.05, capacity=capacity)
    times = [int(time) for chunk in chunks for time in chunk.times]
    if times:
        first = from_time(times[0])
        assert times == [point(first + number) for number in range(len(times))]
    items = windows(updates, sizes)  # without PVs that are not on the grid, in a snapshot
    received = sum(1 if isinstance(item, PVUpdate) else sum(map(len, item.data.values())) for item in items)
    assert (counts.received, counts.waiting, counts.points) == (received, 0, len(times))
    assert all(later > earlier for earlier, later in pairwise(times))
    assert counts.filled == sum(sum(chunk.filled.values()) for chunk in chunks)
    assert counts.missing == sum(sum(chunk.missing.values()) for chunk in chunks)
