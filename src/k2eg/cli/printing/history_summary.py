"""What the history of a PV amounts to: number and rate of its updates, gaps, range, time in alarm.

Thread safety: one thread at a time.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from statistics import median_low

from k2eg_rx import PVData, PVUpdate, Severity
from k2eg_rx.protocol import NANOSECONDS

_MEANINGLESS = (Severity.INVALID, Severity.UNDEFINED)  # EPICS defines the numbers of such values as meaningless
_GAP_FACTOR = 10  # times the usual interval: beyond what a busy IOC or gateway delays
_LEAST_FOR_GAPS = 10  # intervals, below which "usual" has no meaning
_MILLISECOND = 1_000_000  # in nanoseconds


def time_of(update: PVUpdate) -> int:
    """Returns an update's EPICS time in nanoseconds since the Unix epoch; Kafka's if it has none."""
    timestamp = update.timestamp
    return update.record.timestamp_ms * _MILLISECOND if timestamp is None else timestamp


def number_of(data: PVData) -> float | None:
    """Returns a scalar's number, an enum's index or a boolean as 0 or 1; None if the value is none of them."""
    try:
        return float(data)
    except (TypeError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Summary:
    """The history of a PV in an interval.

    Attributes:
        name: The PV's name.
        count: Number of updates.
        rate: Updates per second between the first and the last; None for fewer than two.
        first: Time of the first in nanoseconds since the Unix epoch; None without an update.
        last: Time of the last.
        gaps: Number of intervals between updates that are longer than usual; None for too few to say.
        longest_gap: Seconds of the longest of them; 0.0 without one.
        least: The least number; None without one. Values with severity INVALID are left out, here and below.
        mean: The mean of the numbers.
        greatest: The greatest number.
        alarm_seconds: Seconds with a severity other than NO_ALARM, up to the end of the interval.
        precision: Decimals to show.
        units: Engineering units.
    """

    name: str
    count: int
    rate: float | None
    first: int | None
    last: int | None
    gaps: int | None
    longest_gap: float
    least: float | None
    mean: float | None
    greatest: float | None
    alarm_seconds: float
    precision: int | None
    units: str


class Summarizer:
    """Summarizes the updates of one PV, in the order of their times.

    Args:
        name: The PV's name.
        gap: Seconds without an update that count as a gap; None for ten times the usual interval.
    """

    def __init__(self, name: str, gap: float | None = None) -> None:
        self._name = name
        self._gap = gap
        self._intervals = array("d")
        self._first: int | None = None
        self._last = 0
        self._newest: PVData | None = None
        self._alarm = 0
        self._numbers = 0
        self._sum = 0.0
        self._least, self._greatest = math.inf, -math.inf

    def add(self, update: PVUpdate) -> None:
        """Adds an update."""
        time = time_of(update)
        if self._first is None:
            self._first = self._last = time
        else:
            self._intervals.append((time - self._last) / NANOSECONDS)
            self._pass(time)
        self._newest = update
        number = None if update.label is not None or update.severity in _MEANINGLESS else number_of(update)
        if number is not None and math.isfinite(number):
            self._numbers += 1
            self._sum += number
            self._least, self._greatest = min(self._least, number), max(self._greatest, number)

    def _pass(self, time: int) -> None:
        """Counts the time up to now as that of the newest value."""
        if self._newest is not None and self._newest.severity is not Severity.NO_ALARM:
            self._alarm += max(0, time - self._last)
        self._last = max(self._last, time)

    def result(self, stop: int) -> Summary:
        """Returns the summary of an interval that ends at a time, in nanoseconds since the Unix epoch."""
        newest, last, alarm = self._newest, self._last, self._alarm
        if newest is not None and newest.severity is not Severity.NO_ALARM:
            alarm += max(0, stop - last)
        gaps, longest = self._find_gaps()
        span = (last - self._first) / NANOSECONDS if self._first is not None else 0.0
        numbers = self._numbers
        return Summary(
            self._name,
            len(self._intervals) + (newest is not None),
            len(self._intervals) / span if span > 0 else None,
            self._first,
            None if newest is None else last,
            gaps,
            longest,
            self._least if numbers else None,
            self._sum / numbers if numbers else None,
            self._greatest if numbers else None,
            alarm / NANOSECONDS,
            None if newest is None else newest.precision,
            "" if newest is None else newest.units,
        )

    def _find_gaps(self) -> tuple[int | None, float]:
        limit = self._gap
        if limit is None:
            if len(self._intervals) < _LEAST_FOR_GAPS:
                return None, 0.0
            limit = _GAP_FACTOR * median_low(self._intervals)
        gaps = [interval for interval in self._intervals if interval > limit]
        return len(gaps), max(gaps, default=0.0)
