"""Thins the points of a curve, so that it looks the same with fewer of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

Point = tuple[float, float]

_KEPT = 4  # of each part: the least, the greatest, the last, a gap


def elements_of(value: object) -> list[Point] | None:
    """Returns the index and the number of each element of an array; None for what is no array of numbers.

    NaN stands for elements that no chart can show.
    """
    if not isinstance(value, list | bytes) or not value:
        return None
    numbers = cast("list[object] | bytes", value)
    if not isinstance(numbers, bytes) and not all(isinstance(each, int | float) for each in numbers):
        return None
    return [(index, _finite(cast("float", each))) for index, each in enumerate(numbers)]


def _finite(number: float) -> float:
    try:
        value = float(number)
    except OverflowError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Returns the points, or as many of them as are allowed: of each part the least, the greatest and the last one.

    Args:
        points: Place and value, in the order of the places; NaN stands for a gap, and gaps stay.
        most: Number of points at most, at least 4.
    """
    count = len(points)
    if count <= most:
        return list(points)
    parts = most // _KEPT
    found: list[Point] = []
    for part in range(parts):
        start, stop = count * part // parts, count * (part + 1) // parts
        inside = range(start, stop)
        numbers = [index for index in inside if not math.isnan(points[index][1])]
        kept = {stop - 1} | {next((index for index in inside if math.isnan(points[index][1])), stop - 1)}
        if numbers:
            kept |= {min(numbers, key=lambda index: points[index][1]), max(numbers, key=lambda index: points[index][1])}
        found += [points[index] for index in sorted(kept)]
    return found
