"""The newest values of many PVs, with their ages, rates, trends and connections, for `k2eg top`.

Thread safety: a lock; the client's threads add items, the thread of the display reads rows.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from k2eg.cli.printing.formatting import format_value, printable
from k2eg.cli.printing.history_summary import number_of, time_of
from k2eg.cli.printing.live_rows import sparkline
from k2eg_rx import ConnectionEvent, PVUpdate, Severity

_TREND = 10  # columns of a trend
_TREND_VALUES = 40  # updates that it shows
_RATE_SECONDS = 5.0  # averaging time, as of the demo's table
_ARRIVALS = 500  # kept of a PV: the rate of up to 100 Hz
_STALE_FACTOR = 10  # times the usual interval, as the gaps of `k2eg history`
_STALE_SECONDS = 5.0  # at least: a busy gateway delays a fast PV by seconds
_LEAST_FOR_STALE = 10  # arrivals, below which "usual" has no meaning


@dataclass(frozen=True, slots=True)
class TopRow:
    """A PV.

    Attributes:
        name: Its name.
        value: Its value as text; empty without one.
        number: Its number; NaN if it has none.
        units: Its units.
        severity: Its severity; UNDEFINED without a value.
        age: Seconds since its last update arrived; infinite without one.
        rate: Updates per second.
        trend: Its last values as bars.
        state: ``disconnected``, ``stale``, ``no value``, or empty where all is well.
        alarm_since: Time of the update that began its alarm, in nanoseconds since the Unix epoch; None without alarm.
    """

    name: str
    value: str
    number: float
    units: str
    severity: Severity
    age: float
    rate: float
    trend: str
    state: str
    alarm_since: int | None


class _PV:
    """What is known of a PV."""

    def __init__(self) -> None:
        self.newest: PVUpdate | None = None
        self.arrivals: deque[float] = deque(maxlen=_ARRIVALS)
        self.numbers: deque[float] = deque(maxlen=_TREND_VALUES)
        self.is_lost = False
        self.alarm_since: int | None = None

    def add(self, update: PVUpdate, now: float) -> None:
        number = number_of(update)
        self.newest = update
        self.is_lost = False
        self.arrivals.append(now)
        self.numbers.append(math.nan if number is None else number)
        if update.severity is Severity.NO_ALARM:
            self.alarm_since = None
        elif self.alarm_since is None:
            self.alarm_since = time_of(update)

    def row(self, name: str, now: float, stale: float | None) -> TopRow:
        newest = self.newest
        if newest is None:
            state = "disconnected" if self.is_lost else "no value"
            return TopRow(name, "", math.nan, "", Severity.UNDEFINED, math.inf, 0.0, "", state, None)
        age = max(now - self.arrivals[-1], 0.0)
        state = "disconnected" if self.is_lost else "stale" if self._is_stale(age, stale) else ""
        return TopRow(
            name,
            _text(newest),
            self.numbers[-1],
            printable(newest.units),
            newest.severity,
            age,
            self._rate(now),
            sparkline(self.numbers, _TREND),
            state,
            self.alarm_since,
        )

    def _is_stale(self, age: float, stale: float | None) -> bool:
        if stale is not None:
            return age > stale
        if len(self.arrivals) <= _LEAST_FOR_STALE or age <= _STALE_SECONDS:
            return False
        times = list(self.arrivals)
        return age > _STALE_FACTOR * median_low([b - a for a, b in pairwise(times)])

    def _rate(self, now: float) -> float:
        recent = [time for time in self.arrivals if time >= now - _RATE_SECONDS]
        span = recent[-1] - recent[0] if len(recent) > 1 else 0.0
        return (len(recent) - 1) / span if span else 0.0


def _text(update: PVUpdate) -> str:
    try:
        return format_value(update)
    except Exception as error:  # of one PV, such as values in too many levels: the others are shown
        return f"cannot be shown: {printable(str(error))}"


class TopRows:
    """The rows of the table.

    Args:
        names: The name of each PV by its URIs; several URIs may stand for one PV.
        stale: Seconds without an update after which a PV is stale; None for ten times its usual interval.
    """

    def __init__(self, names: Mapping[str, str], stale: float | None = None) -> None:
        self._lock = threading.Lock()
        self._names = dict(names)
        self._pvs = {name: _PV() for name in names.values()}
        self._stale = stale

    def add(self, item: PVUpdate | ConnectionEvent, now: float) -> None:
        """Adds an update or a change of a connection.

        Args:
            item: The item.
            now: Monotonic time in seconds.
        """
        if isinstance(item, PVUpdate):
            item.load()  # before the lock: decoding takes longest
            with self._lock:
                self._pvs[self._names[item.address.uri]].add(item, now)
        else:
            with self._lock:
                self._pvs[self._names[item.uri]].is_lost = not item.is_connected

    def rows(self, now: float) -> list[TopRow]:
        """Returns a row for each PV, in the order given.

        Args:
            now: Monotonic time in seconds.
        """
        with self._lock:
            return [pv.row(name, now, self._stale) for name, pv in self._pvs.items()]


SORTS = ("given", "name", "severity", "value", "age", "rate")


def chosen(
    rows: Iterable[TopRow], *, sort: str = "given", reverse: bool = False, text: str = "", alarms: bool = False
) -> list[TopRow]:
    """Returns the rows to show, in their order.

    Args:
        rows: All rows.
        sort: One of `SORTS`; the greatest severity, value and rate come first, and the least age.
        reverse: Whether the order is reversed.
        text: A part of the names to show, in any case.
        alarms: Whether to show only PVs that are in alarm or have no valid value.
    """
    kept = [row for row in rows if text.lower() in row.name.lower()]
    if alarms:
        kept = [row for row in kept if row.severity is not Severity.NO_ALARM or row.state]
    match sort:
        case "name":
            kept.sort(key=lambda row: row.name)
        case "severity":
            kept.sort(key=lambda row: (-int(row.severity), row.state == "", row.name))
        case "value":
            kept.sort(key=lambda row: (math.isnan(row.number), -row.number))
        case "age":
            kept.sort(key=lambda row: row.age)
        case "rate":
            kept.sort(key=lambda row: -row.rate)
        case _:
            pass
    return kept[::-1] if reverse else kept
