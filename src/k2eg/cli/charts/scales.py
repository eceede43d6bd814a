"""Scales of charts: from values to heights, from times to columns, and the ticks of both axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from k2eg_rx.protocol import NANOSECONDS

_STEPS = (1.0, 2.0, 5.0, 10.0)
_LABEL = 10  # columns of a tick's label at most
_SECONDS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
)
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of values, from the bottom of a chart to its top.

    Attributes:
        low: The value at the bottom; above 0 on a logarithmic scale.
        high: The value at the top, above `low`.
        is_log: Whether the scale is logarithmic.
    """

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float | None:
        """Returns 0.0 for the bottom up to 1.0 for the top, beyond them for values outside; None where it has none."""
        if not math.isfinite(value) or (self.is_log and value <= 0):
            return None
        if self.is_log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(value) - low) / (high - low)
        # halves first: the range of all floats is no float
        return (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Returns values to label, and their labels.

        Args:
            most: Their number at most, above 1.
        """
        if self.is_log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            by = max(1, math.ceil((last - first + 1) / most))
            return [(10.0**power, f"1e{power}") for power in range(first, last + 1, by)]
        step = _step(self.low, self.high, most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(number * step, _label(number * step, step)) for number in range(first, last + 1)]


def _step(low: float, high: float, most: int) -> float:
    """Returns the least distance of round numbers of which at most `most` are within a range."""
    rough = (high / 2 - low / 2) / (max(most, 2) - 1) * 2
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in _STEPS if power * step >= rough * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{decimals}f}" if decimals < _LABEL and abs(value) < 10**_LABEL else ""
    return text if 0 < len(text) <= _LABEL else f"{value:.4g}"


def fitted(low: float, high: float, most: int, *, is_log: bool = False) -> Scale:
    """Returns a scale that shows a range of values, and ends at round numbers.

    Args:
        low: The least value; on a logarithmic scale the least above 0.
        high: The greatest one.
        most: Number of ticks at most.
        is_log: Whether it is logarithmic.
    """
    if is_log:
        if not 0 < low <= high:
            return Scale(0.1, 10.0, is_log=True)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        first = min(max(first, -307), 307)  # powers of ten beyond are no ordinary floats
        return Scale(10.0**first, 10.0 ** min(max(last, first + 1), 308), is_log=True)
    if not low <= high:
        return Scale(0.0, 1.0)
    if high - low <= max(abs(low), abs(high)) * 1e-12:  # one value, or several that floats can hardly tell apart
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    if not math.isfinite(high - low):
        return Scale(low, high)
    step = _step(low, high, most)
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def time_ticks(start: int, stop: int, most: int) -> list[tuple[int, str]]:
    """Returns round local times within an interval, and their labels.

    Args:
        start: Nanoseconds since the Unix epoch.
        stop: Likewise.
        most: Number of labels at most.
    """
    least = (stop - start) / NANOSECONDS / max(most, 1)
    step = next((float(step) for step in _SECONDS if step >= least), math.ceil(least / _DAY) * float(_DAY))
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < _DAY else "%m-%d"
    offset = datetime.fromtimestamp(stop / NANOSECONDS).astimezone().utcoffset()  # of the local zone at that time
    shift = int(offset.total_seconds() if offset else 0) * NANOSECONDS
    by = int(step * NANOSECONDS)
    first = -(-(start + shift) // by) * by - shift
    ticks: list[tuple[int, str]] = []
    for time in range(first, stop + 1, by):
        moment = datetime.fromtimestamp(time / NANOSECONDS)
        text = f"{moment:{form}}"
        ticks.append((time, f"{text}.{round(moment.microsecond / 100_000)}" if step < 1 else text))
    return ticks
