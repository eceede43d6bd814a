"""Samples of one PV for `resample`: those that wait, and their values at the points of a grid. No clock, no I/O.

Thread safety: none; an object belongs to one grid.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.operators.values import MissingFieldError
from k2eg_rx.protocol import Severity, Structure, choice_of, label_of, severity_of
from k2eg_rx.texts import printable, shown

NEVER = -(1 << 62)
"""A time before every time."""

Value = float | str | None


@dataclass(frozen=True, slots=True)
class FillOptions:
    """How values get to points. Times in nanoseconds.

    Attributes:
        fill: How points without a sample of their own are filled.
        tolerance: How old a sample may be that fills a point, and how far apart two samples.
        labels: Whether enums are labels.
    """

    fill: str | None
    tolerance: int
    labels: bool


def missing_field(name: str, path: str, structure: Structure) -> MissingFieldError:
    """Returns the error of a sample without a field."""
    fields = ", ".join(map(str, structure)) or "no fields"
    return MissingFieldError(name, path, f"it has {fields}; a filter of fields must keep value and timeStamp")


def _absent(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns where a column has no value."""
    return np.array([label is None for label in column]) if column.dtype == object else np.isnan(column)


@dataclass(frozen=True, slots=True)
class Column:
    """A PV's values at some points.

    Attributes:
        values: The values.
        samples: How many samples it has from there.
        used: How many points have a sample of their own.
        filled: How many values come from samples of other points.
        missing: How many values are missing.
    """

    values: NDArray[Any]
    samples: int
    used: int
    filled: int
    missing: int


class PVSamples:
    """Waiting samples of one PV, sorted by time.

    Attributes:
        times: Their times.
        last: Time and value of the newest sample before them; None if there is none.
        clock: Time of the sample that arrived last.
        weight: Number of samples after the first one, those from before the last closed chunk counted half, and so on.
    """

    __slots__ = ("_is_enum", "_options", "_values", "clock", "last", "name", "times", "weight")

    def __init__(self, name: str, options: FillOptions) -> None:
        self.name = name
        self.times: list[int] = []
        self.last: tuple[int, Value] | None = None
        self.clock = NEVER
        self.weight = 0.0
        self._options = options
        self._values: list[Value] = []  # NaN, or None among labels, where one is missing
        self._is_enum = False

    def value_of(self, structure: Structure) -> Value:
        """Returns a sample's value; NaN or None for one that EPICS defines as meaningless.

        Raises:
            TypeError: The PV is neither a number nor an enum.
            MissingFieldError: There is no value.
        """
        value: object = structure.get("value")
        is_valid = severity_of(structure) < Severity.INVALID
        if isinstance(value, float | int):
            return float(value) if is_valid else math.nan
        choice = choice_of(structure)
        if choice is None:
            if "value" not in structure:
                raise missing_field(self.name, "value", structure)
            raise TypeError(
                f"{printable(self.name)}: resample takes numbers and enums, got {shown(value)}; leave it out of pvs"
            )
        self._is_enum = True
        if not self._options.labels:
            return float(choice[0]) if is_valid else math.nan
        return (label_of(structure) or str(choice[0])) if is_valid else None

    def place_of(self, time: int) -> int:
        """Returns where a sample of a time belongs among those that wait."""
        times = self.times
        return bisect_left(times, time) if times and time <= times[-1] else len(times)

    def replace(self, place: int, time: int, value: Value) -> bool:
        """Replaces the sample of a time; returns whether there was one."""
        if place == len(self.times) or self.times[place] != time:
            return False
        self._values[place] = value
        return True

    def insert(self, place: int, time: int, value: Value) -> None:
        """Adds a sample."""
        self.times.insert(place, time)
        self._values.insert(place, value)

    def pass_until(self, time: int) -> int:
        """Removes the samples up to a time, the newest of which becomes the last one; returns their number."""
        count = bisect_right(self.times, time)
        if count:
            self.last = self.times[count - 1], self._values[count - 1]
            del self.times[:count]
            del self._values[:count]
        return count

    def column(self, points: NDArray[np.int64]) -> Column:
        """Returns the values at the next points, and removes the samples up to the last of them."""
        kept = [] if self.last is None else [self.last]
        last_point = int(points[-1])
        count = bisect_right(self.times, last_point) + 1  # one more, to which linear values lead
        times = [*(time for time, _ in kept), *self.times[:count]]
        values = [*(value for _, value in kept), *self._values[:count]]
        samples = self.pass_until(last_point)
        column: NDArray[Any]
        if self._is_enum and self._options.labels:
            column = np.full(len(points), None, dtype=object)  # pyright: ignore[reportArgumentType]
        else:
            column = np.full(len(points), np.nan)
        if not times:
            return Column(column, 0, 0, 0, len(points))
        at = np.array(times, dtype=np.int64)
        newest = np.searchsorted(at, points, side="right") - 1  # the sample at or before each point; -1 for none
        is_own = np.diff(newest, prepend=len(kept) - 1) > 0
        given: NDArray[Any] = np.array(values, dtype=column.dtype)
        age = points - at[newest]
        if self._options.fill is None:
            column[is_own] = given[newest[is_own]]
        elif self._options.fill == "previous" or self._is_enum:
            known = (newest >= 0) & (age <= self._options.tolerance)
            column[known] = given[newest[known]]
        else:
            following = np.where(age == 0, newest, np.minimum(newest + 1, len(at) - 1))
            distance = at[following] - at[newest]
            known = (newest >= 0) & (distance <= self._options.tolerance) & ((distance > 0) | (age == 0))
            with np.errstate(invalid="ignore", over="ignore"):  # infinities are values, and their line has none
                slope = (given[following] - given[newest]) / np.maximum(distance, 1)
                column[known] = (given[newest] + slope * age)[known]
        is_absent = _absent(column)
        used, missing = int(np.count_nonzero(is_own)), int(np.count_nonzero(is_absent))
        return Column(column, samples, used, int(np.count_nonzero(~(is_absent | is_own))), missing)
