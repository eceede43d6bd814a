"""State of `resample`: takes samples of several PVs, returns their values at the points of a grid. No clock, no I/O.

Each PV has a queue of samples that wait, sorted by time. Points are closed a chunk at a time, once the time of the grid
is far enough past the chunk. That is the newest time which is at most the grace ahead of most samples, so that PVs with
a wrong clock, if they are few, neither hold the grid up nor close points before the samples of all others have come.
The chunks, and what is in them, follow from the samples alone, in whatever groups they arrive, as long as none is later
than the grace.

Point number `k` has the time ``k * period``, cut to a nanosecond; the period is a fraction, since that of 120 Hz is no
whole number of nanoseconds. The samples of a point are those after the previous point, up to its own time.

Thread safety: none; a grid belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np

from k2eg_rx.operators.drops import DropReason, ResampleCounts
from k2eg_rx.operators.resample import Resampled
from k2eg_rx.operators.resample_samples import NEVER, FillOptions, PVSamples, Value, missing_field
from k2eg_rx.protocol import NANOSECONDS, PVUpdate, Snapshot, Structure, timestamp_of

_LATEST = 1 << 62  # the year 2116, in nanoseconds; the distance of two times still fits 64 bits
# Of a snapshot. A PV that is further behind the others when points begin has a wrong clock, or was silent.
_LONGEST_WINDOW = 600 * NANOSECONDS
_LONGEST_GAP = 1_000_000  # points, 2.3 hours at 120 Hz and 8 MB for each PV: a longer gap is a clock that was corrected


@dataclass(frozen=True, slots=True)
class GridOptions:
    """Options of a grid. Times in nanoseconds.

    Attributes:
        names: The PVs; None for those of the first snapshot.
        period: The distance of two points.
        every: The length of a chunk.
        grace: How far behind the newest time a sample may be.
        capacity: How many samples of a PV may wait.
        filling: How values get to points.
    """

    names: tuple[str, ...] | None
    period: Fraction
    every: int
    grace: int
    capacity: int
    filling: FillOptions


def _majority(votes: Iterable[tuple[int, float]]) -> int:
    """Returns the time that half of the weight has reached."""
    times, weights = zip(*sorted(votes), strict=True)
    half = sum(weights) / 2
    return next(time for time, total in zip(times, accumulate(weights), strict=True) if total >= half)


class Grid:
    """The grid of one subscription. Raises MissingFieldError, TypeError or ValueError for items that it cannot use.

    Args:
        options: What to put on the grid, and how.
        counts: Counters to fill.
    """

    def __init__(self, options: GridOptions, counts: ResampleCounts) -> None:
        self._options = options
        self._counts = counts
        self._wait = options.grace + (options.filling.tolerance if options.filling.fill == "linear" else 0)
        self._pvs: dict[str, PVSamples] = {}
        self._is_named = options.names is not None
        self._name(options.names or ())
        self._begins = _LATEST  # time from which on there are points; final once a point is closed
        self._is_begun = False
        self._closed = NEVER  # time of the last closed point
        self._first = self._end = 0  # points of the next chunk
        self._due = _LATEST  # time of its last point

    def _name(self, names: Iterable[str]) -> None:
        self._pvs = {name: PVSamples(name, self._options.filling) for name in names}

    # Samples

    def feed(self, item: PVUpdate | Snapshot) -> Iterable[Resampled]:
        """Takes an update or a snapshot; returns the chunks that are closed by it."""
        if isinstance(item, Snapshot):
            if not self._is_named:
                self._is_named = True
                self._name(item.data)
            samples = ((name, structure) for name, structures in item.data.items() for structure in structures)
            newest = max((self._take(name, structure) for name, structure in samples), default=NEVER)
        else:
            if not self._is_named:
                raise ValueError("resample of updates needs their PVs: pass pvs=[...], only snapshots name theirs")
            newest = self._take(item.name, item.data)
        return self._close_due() if newest - self._wait > self._due else ()

    def _take(self, name: str, structure: Structure) -> int:
        """Takes a sample of a PV; returns its time, or NEVER if the time is unknown or not new."""
        self._counts.received += 1
        pv = self._pvs.get(name)
        if pv is None:
            return self._drop(DropReason.UNNAMED)
        time = timestamp_of(structure)
        if time is None or not 0 < time < _LATEST:
            if "timeStamp" not in structure:
                raise missing_field(name, "timeStamp", structure)
            return self._drop(DropReason.NO_TIME)
        value = pv.value_of(structure)
        is_new = self._take_late(pv, time, value) if time <= self._closed else self._add(pv, time, value)
        if not is_new:
            return self._drop(DropReason.DUPLICATE)
        pv.weight += pv.clock != NEVER  # the first one may be of any time
        pv.clock = time
        return time

    def _take_late(self, pv: PVSamples, time: int, value: Value) -> bool:
        """Keeps a sample of a closed point if it is the newest known and can fill the next point."""
        last = NEVER if pv.last is None else pv.last[0]
        if time == last:
            return False
        filling = self._options.filling
        if time < last or filling.fill is None or self._time(self._first) - time > filling.tolerance:
            self._drop(DropReason.LATE)
        else:
            pv.last = time, value
            self._counts.carried += 1
        return True

    def _add(self, pv: PVSamples, time: int, value: Value) -> bool:
        """Keeps a sample of an open point; returns whether there was none of its time."""
        place = pv.place_of(time)
        if pv.replace(place, time, value):
            return False
        if len(pv.times) >= self._options.capacity:
            self._drop(DropReason.OVERFLOW)
            return True
        pv.insert(place, time, value)
        if not self._is_begun and len(pv.times) > 1 and pv.times[1] < self._begins:
            self._begin_at(pv.times[1])
        return True

    def _drop(self, reason: DropReason, count: int = 1) -> int:
        if count:
            self._counts.dropped[reason] += count
        return NEVER

    # Points

    def _time(self, point: int) -> int:
        return point * self._options.period.numerator // self._options.period.denominator

    def _first_from(self, time: int) -> int:
        """Returns the first point that is not before a time."""
        return -(-time * self._options.period.denominator // self._options.period.numerator)

    def _start_at(self, point: int) -> None:
        """Sets the next chunk: from a point to the next multiple of its length."""
        every = self._options.every
        self._first = point
        self._end = self._first_from((self._time(point) // every + 1) * every)
        self._due = self._time(self._end - 1)

    def _close_due(self) -> Iterator[Resampled]:
        """Closes the chunks that the time of the grid has passed."""
        votes = [(pv.clock, pv.weight) for pv in self._pvs.values() if pv.weight]
        if not votes:
            return
        majority = _majority(votes)
        passed = max(time for time, _ in votes if time <= majority + self._options.grace) - self._wait
        if not self._is_begun:
            alike = [pv for pv in self._pvs.values() if pv.clock >= majority - _LONGEST_WINDOW]
            self._begin_at(min(pv.times[1] for pv in alike if len(pv.times) > 1))
            if self._due >= passed:
                return
            self._begin()
        while self._due < passed:
            yield self._close(self._end)

    def finish(self) -> Iterator[Resampled]:
        """Closes the points up to the first one that is not before the newest sample."""
        if self._begins == _LATEST:
            self._drop(DropReason.ENDED, sum(len(pv.times) for pv in self._pvs.values()))
            return
        if not self._is_begun:
            self._begin()
        newest = max((pv.times[-1] for pv in self._pvs.values() if pv.times), default=NEVER)
        while self._time(self._first - 1) < newest:
            yield self._close(min(self._end, self._first_from(newest) + 1))

    def abandon(self) -> tuple[Resampled, ...]:
        """Leaves all waiting samples out, since the source has failed."""
        return ()

    def _close(self, end: int) -> Resampled:
        """Returns the next chunk, up to a point, and starts the one behind it."""
        times = [self._time(point) for point in range(self._first, end)]
        chunk = Resampled(np.array(times, dtype=np.int64), {}, {}, {})
        for name, pv in self._pvs.items():
            column = pv.column(chunk.times)
            pv.weight /= 2
            chunk.columns[name], chunk.filled[name], chunk.missing[name] = column.values, column.filled, column.missing
            self._counts.used += column.used
            self._counts.filled += column.filled
            self._counts.missing += column.missing
            self._drop(DropReason.SUPERSEDED, column.samples - column.used)
        self._counts.points += len(times)
        self._closed = times[-1]
        self._start_at(end)
        self._leave_out_gap()
        return chunk

    def _begin_at(self, time: int) -> None:
        self._begins = time
        self._start_at(self._first_from(time))

    def _begin(self) -> None:
        """Takes the samples from before the grid: the newest one of each PV may fill points."""
        self._is_begun = True
        for pv in self._pvs.values():
            early = pv.pass_until(self._time(self._first - 1))
            self._counts.carried += min(early, 1)
            self._drop(DropReason.SUPERSEDED, max(early - 1, 0))

    def _leave_out_gap(self) -> None:
        """Continues at the oldest waiting sample if it is too far ahead."""
        oldest = min((pv.times[0] for pv in self._pvs.values() if pv.times), default=NEVER)
        if oldest - self._closed > _LONGEST_GAP * self._options.period:
            self._counts.gaps += 1
            self._start_at(self._first_from(oldest))
            self._closed = self._time(self._first - 1)
