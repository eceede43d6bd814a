"""Statistics of a PV's values: numbers, or arrays element by element.

In: values and severities. Out: mean, standard deviation, extremes, percentiles; through numpy where it is installed,
else in Python with the same results but for rounding. Pure; any thread.

What has the severity INVALID or UNDEFINED counts as no value: EPICS says of it that the number means nothing. Nor does
a number that is not finite, or what is no number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, cast

from k2eg_rx.protocol import NANOSECONDS, Severity, numpy_module

Row = Sequence[float]


class Statistics(Protocol):
    """Statistics of one or more values: a number each, or for arrays an array."""

    def mean(self) -> Any:
        """The arithmetic mean."""
        ...

    def std(self) -> Any:
        """The standard deviation of these values (not the estimate for a population that they are a sample of)."""
        ...

    def min(self) -> Any:
        """The least."""
        ...

    def max(self) -> Any:
        """The greatest."""
        ...

    def percentile(self, q: float) -> Any:
        """The value that `q` percent are below, interpolated linearly between the two nearest."""
        ...


def _sum(numbers: Iterable[float]) -> float:
    values = list(numbers)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # too large, or infinities of both signs: inf and nan, as numpy has it
        return sum(values)


class _Scalars:
    """In Python. A NaN among the numbers, as an array may have, makes every result NaN, as with numpy."""

    def __init__(self, numbers: Row) -> None:
        self._numbers = sorted(map(float, numbers))
        self._is_nan = any(map(math.isnan, numbers))

    def mean(self) -> float:
        return _sum(self._numbers) / len(self._numbers)

    def std(self) -> float:
        mean = self.mean()
        return math.sqrt(_sum((number - mean) ** 2 for number in self._numbers) / len(self._numbers))

    def min(self) -> float:
        return math.nan if self._is_nan else self._numbers[0]

    def max(self) -> float:
        return math.nan if self._is_nan else self._numbers[-1]

    def percentile(self, q: float) -> float:
        if self._is_nan:
            return math.nan
        place = (len(self._numbers) - 1) * q / 100
        below = math.floor(place)
        low, high = self._numbers[below], self._numbers[math.ceil(place)]
        return low + (high - low) * (place - below)


class _Columns:
    """Arrays, in Python: a list of results, one for each element."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._columns = [_Scalars(column) for column in zip(*rows, strict=True)]

    def mean(self) -> list[float]:
        return [column.mean() for column in self._columns]

    def std(self) -> list[float]:
        return [column.std() for column in self._columns]

    def min(self) -> list[float]:
        return [column.min() for column in self._columns]

    def max(self) -> list[float]:
        return [column.max() for column in self._columns]

    def percentile(self, q: float) -> list[float]:
        return [column.percentile(q) for column in self._columns]


class _Arrays:
    """Numbers or arrays, with numpy."""

    def __init__(self, numpy: Any, array: Any) -> None:
        self._numpy = numpy
        self._array = array

    def mean(self) -> Any:
        return self._result(self._numpy.mean)

    def std(self) -> Any:
        return self._result(self._numpy.std)

    def min(self) -> Any:
        return self._result(self._numpy.min)

    def max(self) -> Any:
        return self._result(self._numpy.max)

    def percentile(self, q: float) -> Any:
        return self._result(self._numpy.percentile, q)

    def _result(self, function: Any, *arguments: float) -> Any:
        with self._numpy.errstate(all="ignore"):  # NaN and infinity in arrays come out as such, without a warning
            result = function(self._array, *arguments, axis=0)
        return result if self._array.ndim > 1 else result.item()


def _row(value: object) -> Any:
    """Returns a value as a number or a list of numbers, or None if it is neither or not finite."""
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if not isinstance(value, list):
        return None
    row = cast("list[object]", value)
    return row if all(isinstance(item, int | float) for item in row) else None


def usable(values: Iterable[object], severities: Iterable[Severity]) -> list[Any]:
    """Returns the values that count in statistics: numbers, and lists of numbers."""
    pairs = zip(values, severities, strict=True)
    rows = (_row(value) for value, severity in pairs if severity < Severity.INVALID)
    return [row for row in rows if row is not None]


def statistics_of(rows: Sequence[Any], subject: str) -> Statistics:
    """Returns the statistics of usable values; of none at all, NaN.

    Args:
        rows: Numbers, or lists of numbers.
        subject: The PV, for the error.

    Raises:
        ValueError: There are arrays of different lengths, or arrays and numbers.
    """
    if not rows:
        return _Scalars([math.nan])
    lengths = {len(row) if hasattr(row, "__len__") else None for row in rows}
    if len(lengths) > 1:
        known = ", ".join("a number" if size is None else f"{size} elements" for size in sorted(lengths, key=str))
        raise ValueError(f"{subject}: values of different sizes ({known}) have no statistics together")
    numpy = numpy_module()
    if numpy is not None:
        return _Arrays(numpy, numpy.asarray(rows, "float64"))
    return _Scalars(rows) if None in lengths else _Columns(rows)


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


def window_of(
    name: str, span: tuple[int, int], samples: Sequence[Sample], *, late: int = 0, intervals: int | None = None
) -> Window:
    """Returns a window of some samples; the rate is that of them all, or of the intervals between them."""
    start, end = span
    count = len(samples) if intervals is None else intervals
    rate = count * NANOSECONDS / (end - start) if end > start else math.nan
    values, timestamps, severities = zip(*samples, strict=True)
    return Window(name, start, end, values, timestamps, severities, rate, late)
