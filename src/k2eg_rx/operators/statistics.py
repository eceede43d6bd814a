"""Windows of a PV's values and their statistics: of numbers, or of arrays element by element.

numpy computes them where it is installed; otherwise Python does, with the same results except for rounding.

Values with severity INVALID or UNDEFINED are left out, since EPICS defines their numbers as meaningless. So are numbers
that are not finite, and values that are no numbers.
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
    """Statistics of one or more values: numbers, or arrays for arrays."""

    def mean(self) -> Any:
        """The arithmetic mean."""
        ...

    def std(self) -> Any:
        """The population standard deviation, with n in the denominator."""
        ...

    def min(self) -> Any:
        """The least."""
        ...

    def max(self) -> Any:
        """The greatest."""
        ...

    def percentile(self, q: float) -> Any:
        """The percentile `q`, 0 to 100, interpolated linearly between the two nearest values."""
        ...


def _sum(numbers: Iterable[float]) -> float:
    values = list(numbers)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # overflow, or infinities of both signs: inf and nan, as with numpy
        return sum(values)


class _Scalars:
    """Statistics of numbers, in Python. A NaN, which arrays may contain, makes every result NaN, as with numpy."""

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
    """Statistics of arrays, in Python: lists with one result for each element."""

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
    """Statistics of numbers or arrays, with numpy."""

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
        with self._numpy.errstate(all="ignore"):  # NaN and infinity in arrays are results, not warnings
            result = function(self._array, *arguments, axis=0)
        return result if self._array.ndim > 1 else result.item()


def _row(value: object) -> Any:
    """Returns a value if it is a finite number or a list of numbers, otherwise None."""
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if not isinstance(value, list):
        return None
    row = cast("list[object]", value)
    return row if all(isinstance(item, int | float) for item in row) else None


def usable(values: Iterable[object], severities: Iterable[Severity]) -> list[Any]:
    """Returns the values that the statistics use: finite numbers and lists of numbers."""
    pairs = zip(values, severities, strict=True)
    rows = (_row(value) for value, severity in pairs if severity < Severity.INVALID)
    return [row for row in rows if row is not None]


def statistics_of(rows: Sequence[Any], subject: str) -> Statistics:
    """Returns the statistics of usable values; NaN for no values.

    Args:
        rows: Numbers, or lists of numbers.
        subject: Name of the PV, for the error.

    Raises:
        ValueError: Arrays differ in length, or there are arrays and numbers.
    """
    if not rows:
        return _Scalars([math.nan])
    lengths = {len(row) if hasattr(row, "__len__") else None for row in rows}
    if len(lengths) > 1:
        known = ", ".join("a number" if size is None else f"{size} elements" for size in sorted(lengths, key=str))
        raise ValueError(f"{subject}: statistics need values of one size, got {known}")
    numpy = numpy_module()
    if numpy is not None:
        return _Arrays(numpy, numpy.asarray(rows, "float64"))
    return _Scalars(rows) if None in lengths else _Columns(rows)


class Sample(NamedTuple):
    """The part of an update that a window keeps: a fiftieth of its structure."""

    value: Any
    timestamp: int | None
    severity: Severity


@dataclass(frozen=True)
class Window:
    """Values of a PV in a time window, or a number of its updates, with statistics.

    Statistics are computed on access. They leave out values with severity INVALID or UNDEFINED, numbers that are not
    finite, and values that are no numbers; `excluded` counts those. Statistics of arrays are arrays, element by
    element: numpy arrays where numpy is installed, otherwise lists. Without a usable value they are NaN.

    Attributes:
        name: Name of the PV.
        start: Start in integer nanoseconds since the Unix epoch.
        end: End, exclusive; for a window by count, the time of its last value.
        values: Values in the order of arrival.
        timestamps: EPICS times in integer nanoseconds since the Unix epoch; None for a value without time.
        severities: Severities of the values.
        rate: Updates per second; NaN for a window by count without duration.
        late: Late updates of the PV that were dropped since its previous window.
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
        """Number of values that the statistics leave out."""
        return len(self.values) - len(self._usable)

    @property
    def mean(self) -> Any:
        """The arithmetic mean.

        Raises:
            ValueError: The values are no numbers, or arrays of different lengths; the same for the other statistics.
        """
        return self._statistics.mean()

    @property
    def std(self) -> Any:
        """The population standard deviation, with n in the denominator."""
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
        """Returns the percentile `q`, interpolated linearly between the two nearest values.

        Raises:
            ValueError: `q` is not from 0 to 100, or as for `mean`.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"q must be a percentile from 0 to 100, got {q!r}")
        return self._statistics.percentile(q)

    @cached_property
    def _usable(self) -> list[Any]:
        return usable(self.values, self.severities)

    @cached_property
    def _statistics(self) -> Statistics:
        if not self._usable and not any(isinstance(value, int | float | list) for value in self.values):
            kind = type(self.values[0]).__name__
            raise ValueError(f"{self.name} has values of type {kind}, statistics need numbers: select a numeric field")
        return statistics_of(self._usable, self.name)


def window_of(
    name: str, span: tuple[int, int], samples: Sequence[Sample], *, late: int = 0, intervals: int | None = None
) -> Window:
    """Returns a window of samples; its rate is that of all samples, or of the intervals between them."""
    start, end = span
    count = len(samples) if intervals is None else intervals
    rate = count * NANOSECONDS / (end - start) if end > start else math.nan
    values, timestamps, severities = zip(*samples, strict=True)
    return Window(name, start, end, values, timestamps, severities, rate, late)
