"""Statistics are the same with and without numpy, and leave out unusable values."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx.operators import statistics
from k2eg_rx.operators.statistics import statistics_of, usable
from k2eg_rx.protocol.structures import Severity

numbers = st.floats(-1e9, 1e9) | st.integers(-(2**52), 2**52) | st.booleans()
arrays = st.integers(1, 4).flatmap(lambda size: st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1))


def without_numpy(action: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "numpy_module", lambda: None)
        return action()


def results(rows: list[Any], q: float = 30.0) -> list[Any]:
    found = statistics_of(rows, "pv")
    return [found.mean(), found.std(), found.min(), found.max(), found.percentile(q)]


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=30), st.floats(0, 100))
def test_numbers_are_the_same_with_and_without_numpy(rows: list[float], q: float):
    ours, numpys = without_numpy(lambda: results(rows, q)), results(rows, q)
    scale = max(map(abs, rows), default=0)
    assert ours == pytest.approx(numpys, rel=1e-9, abs=1e-9 * scale)
    assert {type(result) for result in ours + numpys} == {float}


@settings(deadline=None)
@given(arrays)
def test_arrays_have_statistics_element_by_element(rows: list[list[float]]):
    ours, numpys = without_numpy(lambda: results(rows)), results(rows)
    assert all(isinstance(result, np.ndarray) for result in numpys)
    scale = max(abs(item) for row in rows for item in row)
    for one, other in zip(ours, numpys, strict=True):
        assert one == pytest.approx(other.tolist(), rel=1e-9, abs=1e-9 * scale)


def test_known_figures():
    for found in (results([2, 4, 4, 4, 5, 5, 7, 9], 50), without_numpy(lambda: results([2, 4, 4, 4, 5, 5, 7, 9], 50))):
        assert found == [5.0, 2.0, 2.0, 9.0, 4.5]
    assert without_numpy(lambda: results([[1, 10], [3, 30]], 25)) == [[2, 20], [1, 10], [1, 10], [3, 30], [1.5, 15]]


@pytest.mark.parametrize(
    "column", [[1.0, math.nan], [math.inf, 1.0], [math.inf, -math.inf], [1e308, 1e308], [math.nan, -math.inf, 2.0]]
)
def test_infinite_elements_give_equal_results_without_a_warning(column: list[float]):
    rows = [[number, 1.0] for number in column]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, numpys = without_numpy(lambda: results(rows, 100)), results(rows, 100)
    for one, other in zip(ours[:4], numpys[:4], strict=True):
        assert one == pytest.approx(other.tolist(), nan_ok=True)


def test_statistics_of_no_values_are_nan():
    assert all(math.isnan(result) for result in results([]))
    assert all(math.isnan(result) for result in without_numpy(lambda: results([])))


@pytest.mark.parametrize("rows", [[[1.0], [1.0, 2.0]], [1.0, [1.0]]])
def test_values_of_different_sizes_raise_with_the_name_of_the_pv(rows: list[Any]):
    with pytest.raises(ValueError, match=r"demo:wave.*elements"):
        statistics_of(rows, "demo:wave")


def test_unusable_values_are_left_out():
    values = [1.0, 2.0, 3.0, 4, True, math.nan, math.inf, "text", {"index": 1}, None, [1, 2], ["a"], []]
    severities = [Severity.NO_ALARM, Severity.MAJOR, Severity.INVALID, Severity.UNDEFINED]
    severities += [Severity.MINOR] * (len(values) - len(severities))
    assert usable(values, severities) == [1.0, 2.0, True, [1, 2], []]
