"""The values of PVs over time, as a chart draws them.

Thread safety: a lock; the client's threads add values, the thread of the display reads.
"""

from __future__ import annotations

import itertools
import math
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low

from k2eg.cli.printing.history_summary import number_of, time_of
from k2eg_rx import ConnectionEvent, PVUpdate, Severity
from k2eg_rx.protocol import NANOSECONDS

_CAPACITY = 200_000  # values of a PV: half an hour at 100 Hz, 4 MB
_GAP_FACTOR = 10  # times the usual interval, as of `k2eg history`
_LEAST_FOR_GAPS = 10  # intervals, below which "usual" has no meaning
_RECENT = 500  # intervals of which the usual one is taken

_LATEST = 2**63 - 1  # the last time that an array of integers holds, in the year 2262

Extent = tuple[float, float]  # the least and the greatest value


@dataclass(frozen=True, slots=True)
class Curve:
    """A PV to draw.

    Attributes:
        uri: The PV.
        name: Its name, without the protocol.
        extent: The range to show; None for that of its values.
        is_log: Whether its own scale is logarithmic.
    """

    uri: str
    name: str
    extent: Extent | None = None
    is_log: bool = False


def _number(update: PVUpdate) -> float | None:
    value: object = update.value
    # most PVs are scalars, of which the rest of the structure need not be decoded
    return float(value) if isinstance(value, float) else number_of(update)


class Series:
    """The values of one PV in the order of their times, and what is known of it.

    NaN stands where the PV has no number: it was not connected, or its value had the severity INVALID.

    Args:
        capacity: Number of values that are kept.

    Attributes:
        newest: The newest update; None before the first.
        is_lost: Whether the PV is not connected.
        added: Number of values that were added, with those that are not kept any more.
        inserted: Number of values that were added before others.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._times = array("q")
        self._values = array("d")
        self._severities = array("b")
        self._broken = 0  # time of the last change of the connection
        self._newest = 0  # time of `newest`
        self._has_gaps = False
        self.newest: PVUpdate | None = None
        self.is_lost = False
        self.added = 0
        self.inserted = 0

    def __len__(self) -> int:
        return len(self._times)

    def add(self, update: PVUpdate) -> None:
        """Adds an update, of the history or a live one."""
        time, number = min(time_of(update), _LATEST), _number(update)
        if not update.replayed:
            # A PV that is connected again has the time of its last change, which was before: it is known again now.
            time = max(time, self._broken)
        meaningless = update.severity in (Severity.INVALID, Severity.UNDEFINED)
        value = math.nan if number is None or meaningless or not math.isfinite(number) else number
        self._put(time, value, update.severity)
        if time >= self._newest:
            self._newest, self.newest = time, update

    def connection(self, event: ConnectionEvent) -> None:
        """Takes a change of the connection."""
        if event.is_connected is not self.is_lost:
            return
        self.is_lost = not event.is_connected
        self._broken = event.since
        if self.is_lost and self._times:
            self._put(event.since, math.nan, Severity.INVALID)

    def _put(self, time: int, value: float, severity: Severity) -> None:
        at = bisect_right(self._times, time)
        self.added += 1
        self.inserted += at < len(self._times)
        self._times.insert(at, time)
        self._values.insert(at, value)
        self._severities.insert(at, int(severity))
        self._has_gaps = self._has_gaps or math.isnan(value)
        if len(self._times) > self._capacity:
            old = slice(0, self._capacity // 10 or 1)  # many at once, as the rest is moved
            del self._times[old], self._values[old], self._severities[old]

    def usual_gap(self) -> int | None:
        """Returns the nanoseconds without an update that count as a gap; None for too few updates to say."""
        recent = self._times[-_RECENT:]
        if len(recent) <= _LEAST_FOR_GAPS:
            return None
        usual = median_low([after - before for before, after in itertools.pairwise(recent)])
        return usual * _GAP_FACTOR or None

    def at(self, time: int) -> tuple[float, Severity] | None:
        """Returns the value at a time and its severity; None before the first and where there was no number."""
        index = bisect_right(self._times, time) - 1
        if index < 0 or math.isnan(self._values[index]):
            return None
        return self._values[index], Severity(self._severities[index])

    def rows(self, start: int, stop: int) -> list[tuple[int, float, Severity]]:
        """Returns time, value and severity of the values in an interval."""
        chosen = range(bisect_left(self._times, start), bisect_right(self._times, stop))
        return [(self._times[i], self._values[i], Severity(self._severities[i])) for i in chosen]

    def points(self, first: int, last: int) -> list[tuple[int, float]]:
        """Returns time and value of kept values by their numbers, from the first up to the last; NaN for none."""
        chosen = range(max(len(self) - self.added + first, 0), max(len(self) - self.added + last, 0))
        return [(self._times[i], self._values[i]) for i in chosen]

    def between(self, start: int, stop: int) -> list[tuple[int, float]]:
        """Returns time and value of the values in an interval, with those before and after it."""
        chosen = range(max(bisect_left(self._times, start) - 1, 0), min(bisect_right(self._times, stop) + 1, len(self)))
        return [(self._times[i], self._values[i]) for i in chosen]

    def extents(self, edges: Sequence[int], until: int, gap: int | None) -> list[Extent | None]:
        """Returns the least and the greatest value in each of several intervals; None where there is none.

        A value holds until the next one, and the last one until `until`, unless that is a gap.

        Args:
            edges: The times between the intervals, ascending, one more than these.
            until: The present time.
            gap: Nanoseconds without an update that are a gap; None for none.
        """
        found: list[Extent | None] = []
        low = bisect_left(self._times, edges[0])
        for start, stop in itertools.pairwise(edges):
            high = bisect_left(self._times, stop, low)
            values = (
                self._values[max(low - 1, 0) : high] if self._holds(low, start, until, gap) else self._values[low:high]
            )
            if self._has_gaps:
                values = [value for value in values if not math.isnan(value)]
            found.append((min(values), max(values)) if values else None)
            low = high
        return found

    def _holds(self, index: int, start: int, until: int, gap: int | None) -> bool:
        """Returns whether the value before an index holds at a time."""
        if index == 0 or start > until:
            return False
        end = self._times[index] if index < len(self._times) else until
        return gap is None or end - self._times[index - 1] <= gap


class SeriesBook:
    """The series of a chart.

    Args:
        curves: The PVs.
        gap: Seconds without an update that are a gap; None for ten times the usual interval.

    Attributes:
        curves: The PVs.
        series: Their series; use them within `lock`.
    """

    def __init__(self, curves: Iterable[Curve], gap: float | None = None) -> None:
        self.lock = threading.Lock()
        self.curves = list(curves)
        self.series = [Series() for _ in self.curves]
        self._gap = None if gap is None else int(gap * NANOSECONDS)
        self._of_uri = {curve.uri: series for curve, series in zip(self.curves, self.series, strict=True)}

    def take(self, item: PVUpdate | ConnectionEvent) -> None:
        """Takes an update or a change of a connection. Any thread."""
        if isinstance(item, PVUpdate):
            item.load()  # before the lock: decoding takes longest
            with self.lock:
                self._of_uri[item.address.uri].add(item)
        else:
            with self.lock:
                self._of_uri[item.uri].connection(item)

    def gap_of(self, series: Series) -> int | None:
        """Returns the nanoseconds that are a gap of a series; None if none is."""
        return series.usual_gap() if self._gap is None else self._gap
