"""Fewer points that look the same."""

from __future__ import annotations

import math

import pytest

from k2eg.cli.charts.thinning import elements_of, thinned


def test_few_points_stay() -> None:
    points = [(0.0, 1.0), (1.0, math.nan)]
    assert thinned(points, 4) == points


def test_extremes_gaps_and_the_last_point_stay() -> None:
    points = [(float(place), 0.0) for place in range(10_000)]
    points[1234], points[5678] = (1234.0, 9.0), (5678.0, -9.0)
    points[7000] = (7000.0, math.nan)
    found = thinned(points, 400)
    assert len(found) <= 400
    assert found == sorted(found, key=lambda point: point[0])
    assert {points[1234], points[5678], points[-1]} <= set(found)
    assert points[7000][0] in {place for place, value in found if math.isnan(value)}


@pytest.mark.parametrize(
    ("value", "numbers"), [([1, 2.5, True], [1.0, 2.5, 1.0]), (b"\x01\xff", [1.0, 255.0]), ([10**400], [math.nan])]
)
def test_elements_of_arrays(value: object, numbers: list[float]) -> None:
    points = elements_of(value)
    assert points is not None
    assert str([number for _, number in points]) == str(numbers)


@pytest.mark.parametrize("value", [1.0, "text", [], ["a"], {"a": 1}, None])
def test_what_is_no_array_of_numbers(value: object) -> None:
    assert elements_of(value) is None
