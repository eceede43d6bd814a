"""`aligned_windows`: matrices of the newest rows, overlapping or not, without rows from across a gap."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable, from_iterable

from k2eg_rx.operators import Aligned, AlignedWindow, Resampled, aligned_windows
from k2eg_rx.testing import START, update

NAN = float("nan")
MS = 1_000_000


def instant(number: int, *, milliseconds: int | None = None, **values: Any) -> Aligned:
    time = START + MS * (100 * number if milliseconds is None else milliseconds)
    given_values = values or {"a": float(number), "b": -float(number)}
    updates = {name: update(name, value, timestamp=time) for name, value in given_values.items()}
    return Aligned(time, None, updates, tuple({"a", "b"} - set(updates)))


def run(items: Iterable[Aligned | Resampled], count: int, pvs: Iterable[str] = "ab", **options: Any) -> Any:
    """Returns the windows, or the error."""
    windows: list[AlignedWindow] = []
    errors: list[Exception] = []
    source: Observable[Aligned | Resampled] = from_iterable(items)
    source.pipe(aligned_windows(list(pvs), count, **options)).subscribe(windows.append, errors.append)
    return errors[0] if errors else windows


def firsts(windows: Iterable[AlignedWindow]) -> list[list[float]]:
    """Returns the first column of each window."""
    return [window.values[:, 0].tolist() for window in windows]


def test_a_window_is_a_matrix_of_rows_and_pvs() -> None:
    (window,) = run(map(instant, range(3)), 3, ["pva://b", "a"])
    assert window.pvs == ("b", "a")
    assert window.values.tolist() == [[0.0, 0.0], [-1.0, 1.0], [-2.0, 2.0]]
    assert (window.values.dtype, window.times.dtype, len(window)) == (np.dtype("float64"), np.dtype("int64"), 3)
    assert (window.times - START).tolist() == [0, 100 * MS, 200 * MS]


@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 9))
def test_windows_begin_a_step_apart(total: int, count: int, step: int) -> None:
    windows = run(map(instant, range(total)), count, step=step)
    expected = [list(range(start, start + count)) for start in range(0, total - count + 1, step)]
    assert firsts(windows) == expected


@given(st.lists(st.integers(1, 5), max_size=12), st.integers(1, 4), st.integers(1, 6))
def test_points_of_a_grid_give_the_same_windows_however_they_are_divided(
    sizes: list[int], count: int, step: int
) -> None:
    total = sum(sizes)
    rows = [instant(number) for number in range(total)]
    grids: list[Resampled] = []
    start = 0
    for size in sizes:
        times = np.array([row.timestamp for row in rows[start : start + size]])
        numbers = np.arange(start, start + size, dtype=float)
        grids.append(Resampled(times, {"a": numbers, "b": -numbers}, {}, {}))
        start += size
    one, other = run(grids, count, step=step), run(rows, count, step=step)
    assert [window.values.tolist() for window in one] == [window.values.tolist() for window in other]
    assert [window.times.tolist() for window in one] == [window.times.tolist() for window in other]


def test_windows_share_no_memory() -> None:
    first, second = run(map(instant, range(4)), 3, step=1)
    first.values[:] = 99.0
    first.times[:] = 0
    assert firsts([second]) == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("step", [1, 5])
def test_no_window_reaches_across_a_gap(step: int) -> None:
    items = [instant(number) for number in (0, 1, 2, 5, 6, 7)]
    assert firsts(run(items, 3, step=step, max_gap=0.1)) == [[0, 1, 2], [5, 6, 7]]
    assert firsts(run(items, 3, step=3)) == [[0, 1, 2], [5, 6, 7]]
    assert firsts(run(items, 4, step=4)) == [[0, 1, 2, 5]]


def test_a_clock_that_is_set_back_begins_anew() -> None:
    items = [instant(number, milliseconds=at) for number, at in enumerate((500, 600, 100, 200, 300))]
    assert firsts(run(items, 3)) == [[2, 3, 4]]


def test_a_row_that_lacks_a_value_is_left_out_or_kept() -> None:
    items = [instant(0), instant(1, a=1.0), instant(2), instant(3, a=NAN, b=1.0), instant(4)]
    invalid = update("a", 5.0, timestamp=START + 500 * MS, severity=3)
    items.append(Aligned(START + 500 * MS, None, {"a": invalid, "b": update("b", 1.0)}))
    assert firsts(run(items, 3)) == [[0, 2, 4]]
    assert run(items, 3, max_gap=0.1) == []
    (window,) = run(items, 6, incomplete="nan")
    assert np.array_equal(window.values[:, 1], [0, NAN, -2, 1, -4, 1], equal_nan=True)
    assert np.array_equal(window.values[:, 0], [0, 1, 2, NAN, 4, NAN], equal_nan=True)


def test_an_enum_is_its_index() -> None:
    mode = update("a", "Beam", choices=["Off", "Beam"])
    assert firsts(run([Aligned(START, None, {"a": mode})], 1, "a")) == [[1.0]]


def test_other_values_are_an_error_that_names_the_pv() -> None:
    error = run([instant(0, a="text", b=1.0)], 1)
    assert isinstance(error, TypeError)
    assert str(error) == "a: aligned_windows takes numbers and enums, got 'text'"


@pytest.mark.parametrize("columns", [{"a": np.zeros(1)}, {"a": np.zeros(1), "b": np.array(["x"], dtype=object)}])
def test_a_grid_without_numbers_of_a_pv_is_an_error(columns: dict[str, Any]) -> None:
    error = run([Resampled(np.array([START]), columns, {}, {})], 1)
    assert isinstance(error, TypeError)
    assert "b: aligned_windows needs a column of numbers" in str(error)


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"step": 0}, {"max_gap": 0.0}, {"incomplete": "hope"}, {"pvs": []}, {"count": 2.5}]
)
def test_bad_arguments_raise_at_the_call(options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"pvs": ["a"], "count": 3} | options
    with pytest.raises(ValueError, match=r"count|step|max_gap|incomplete|pvs"):
        aligned_windows(**arguments)
