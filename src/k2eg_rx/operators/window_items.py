"""What `window` emits and counts: a PV's values in a window, with their statistics.

In: samples. Out: `Window`, `WindowCounts`. Any thread; the counts are written by the threads that call the operator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from k2eg_rx.operators.statistics import Statistics, statistics_of, usable
from k2eg_rx.protocol import NANOSECONDS, Severity


class Sample(NamedTuple):
    """What is kept of an update: its structure would take fifty times as much."""

    value: Any
    timestamp: int | None
    severity: Severity


@dataclass(frozen=True)
class Window:
    """A PV's values in a stretch of time, or so many of them.

    The statistics are computed when they are asked for. They leave out values with the severity INVALID or UNDEFINED,
    numbers that are not finite, and what is no number; `excluded` counts those. Of arrays they are arrays, element by
    element: of numpy where it is installed, else lists. Without a usable value they are NaN.

    Attributes:
        name: The PV.
        start: Its begin, integer nanoseconds since the Unix epoch.
        end: Its end, which is not part of it; of a window by count the time of its last value.
        values: The PV's values in the order in which they came.
        timestamps: Their EPICS times, integer nanoseconds; None for one without.
        severities: Their severities.
        rate: Updates per second; NaN for a window by count that has no duration.
        late: How many updates of the PV came too late for their window since the window before this.
    """

    name: str
    start: int
    end: int
    values: tuple[Any, ...] = field(repr=False)
    timestamps: tuple[int | None, ...] = field(repr=False)
    severities: tuple[Severity, ...] = field(repr=False)
    rate: float
    late: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def excluded(self) -> int:
        """How many values the statistics leave out."""
        return len(self.values) - len(self._usable)

    @property
    def mean(self) -> Any:
        """The arithmetic mean.

        Raises:
            ValueError: The PV has no numbers, or arrays of different lengths. So do the others.
        """
        return self._statistics.mean()

    @property
    def std(self) -> Any:
        """The standard deviation of these values; numpy's, with n in the denominator."""
        return self._statistics.std()

    @property
    def min(self) -> Any:
        """The least value."""
        return self._statistics.min()

    @property
    def max(self) -> Any:
        """The greatest value."""
        return self._statistics.max()

    def percentile(self, q: float) -> Any:
        """Returns the value that `q` percent of the values are below, interpolated linearly between two values.

        Raises:
            ValueError: `q` is not from 0 to 100; or as `mean`.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {q!r}")
        return self._statistics.percentile(q)

    @cached_property
    def _usable(self) -> list[Any]:
        return usable(self.values, self.severities)

    @cached_property
    def _statistics(self) -> Statistics:
        if not self._usable and not any(isinstance(value, int | float | list) for value in self.values):
            kind = type(self.values[0]).__name__
            raise ValueError(f"{self.name} has values of type {kind}, which have no statistics; select a number first")
        return statistics_of(self._usable, self.name)


@dataclass(slots=True)
class WindowCounts:
    """What became of the updates that came to `window`.

    Attributes:
        received: How many came.
        late: How many of them came when all their windows were closed.
        no_time: How many have no EPICS time, or that of a record that was never processed; they are in no window.
        windows: How many windows were emitted.
    """

    received: int = 0
    late: int = 0
    no_time: int = 0
    windows: int = 0


def window_of(
    name: str, span: tuple[int, int], samples: Sequence[Sample], *, late: int = 0, intervals: int | None = None
) -> Window:
    """Returns a window of some samples; the rate is that of them all, or of the intervals between them."""
    start, end = span
    count = len(samples) if intervals is None else intervals
    rate = count * NANOSECONDS / (end - start) if end > start else math.nan
    values, timestamps, severities = zip(*samples, strict=True)
    return Window(name, start, end, values, timestamps, severities, rate, late)
