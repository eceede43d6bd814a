"""Items that `changed` emits."""

from typing import Any

import numpy as np
import pytest
import reactivex as rx

from k2eg_rx.operators import changed, value
from k2eg_rx.protocol.messages import PVData
from k2eg_rx.testing import series, update

NAN, INF = float("nan"), float("inf")


def passed(items: list[Any], deadband: float = 0.0, relative: float = 0.0) -> list[int]:
    """Returns the indices of the emitted items."""
    found: list[Any] = []
    rx.from_iterable(items).pipe(changed(deadband, relative=relative)).subscribe(found.append)
    return [next(place for place, item in enumerate(items) if item is one) for one in found]


def of_values(values: list[Any], deadband: float = 0.0, relative: float = 0.0) -> list[int]:
    return passed([PVData("x", {"value": value}) for value in values], deadband, relative)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1, 1, 1.0, 2], [0, 3]),
        ([2**60, 2**60 + 1], [0, 1]),
        (["a", "a", "b"], [0, 2]),
        ([True, True, False], [0, 2]),
        ([1, "1"], [0, 1]),
        ([None, None, 0], [0, 2]),
        ([[1, 2], [1, 2], [1, 3], [1, 3, 3]], [0, 2, 3]),
        ([["a"], ["a"], ["b"]], [0, 2]),
        ([[], [], [0.0]], [0, 2]),
        ([{"c": [1, 2]}, {"c": [1, 2]}, {"c": [1, 3]}, {"c": [1, 3], "d": [0, 0]}], [0, 2, 3]),
        ([NAN, NAN, 1.0, NAN], [0, 2, 3]),
        ([[NAN, 1.0], [NAN, 1.0], [NAN, 2.0]], [0, 2]),
        ([INF, INF, -INF], [0, 2]),
    ],
)
def test_any_change_of_the_value_is_emitted(values: list[Any], places: list[int]) -> None:
    assert of_values(values) == places


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1.0, 1.5, 0.5, 1.6, 1.5], [0, 3]),  # against the last emitted value, by more than the bound
        ([1.0, 1.2, 1.4, 1.6], [0, 3]),
        ([0.0, INF, INF, 0.0], [0, 1, 3]),
        ([0.0, NAN, NAN, 0.0], [0, 1, 3]),
        ([[0.0, 0.0], [0.4, -0.4], [0.4, -0.6]], [0, 2]),
        ([{"s": [0.0]}, {"s": [0.4]}, {"s": [0.6]}], [0, 2]),
        ([{"index": 0, "choices": ["a", "b"]}, {"index": 1, "choices": ["a", "b"]}], [0, 1]),
        ([False, True], [0, 1]),
    ],
)
def test_a_deadband_suppresses_small_changes(values: list[Any], places: list[int]) -> None:
    deadband = 0.5 if not isinstance(values[0], dict) or "index" not in values[0] else 5.0
    assert of_values(values, deadband=deadband) == places


def test_a_relative_bound_is_a_fraction_of_the_last_emitted_value() -> None:
    assert of_values([100.0, 109.0, 111.0, 121.0, -121.0], relative=0.1) == [0, 2, 4]


def test_with_both_bounds_a_change_exceeds_both() -> None:
    assert of_values([0.0, 0.4, 0.6], deadband=0.5, relative=0.1) == [0, 2]
    assert of_values([100.0, 101.0, 111.0], deadband=0.5, relative=0.1) == [0, 2]


@pytest.mark.parametrize("length", [10, 1000])  # in a loop, and by numpy
@pytest.mark.parametrize("arrays", [list, np.asarray])
def test_long_arrays_and_numpy_arrays_are_compared_alike(length: int, arrays: Any) -> None:
    zeros, near, far, inf, nan = ([0.0] * length for _ in range(5))
    near[3], far[3], inf[3], nan[3] = 0.4, 0.6, INF, NAN
    values = [arrays(items) for items in (zeros, near, far, far, inf, inf, nan, nan, zeros)]
    assert passed(values, deadband=0.5) == [0, 2, 4, 6, 8]
    assert passed(values) == [0, 1, 2, 4, 6, 8]
    assert passed([arrays([10.0] * length), arrays([10.9] * length), arrays([11.1] * length)], relative=0.1) == [0, 2]
    assert passed([arrays([INF] * length), arrays([INF] * length), arrays([0.0] * length)], relative=0.1) == [0, 2]
    assert passed([arrays([0.0] * length), arrays([0.0] * (length + 1))], deadband=9) == [0, 1]


def test_unsigned_arrays_do_not_wrap_around() -> None:
    assert passed([np.asarray([5], "uint8"), np.asarray([3], "uint8"), np.asarray([1], "uint8")], deadband=3) == [0, 2]


def test_numpy_scalars_are_numbers() -> None:
    assert passed([np.float32(1.0), np.float32(1.4), np.int16(2), np.asarray(2.1)], deadband=0.5) == [0, 2]
    assert passed([np.bool_(True), np.bool_(True), np.bool_(False)], deadband=5) == [0, 2]


def test_an_image_of_another_shape_is_a_change() -> None:
    assert passed([np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((3, 2))]) == [0, 1]
    assert passed([np.asarray(["a", "b"]), np.asarray(["a", "b"]), np.asarray(["a", "c"])]) == [0, 2]


def test_severity_alone_is_a_change() -> None:
    assert passed([update("x", 1.0), update("x", 1.0, severity=1), update("x", 1.0, severity=1)], deadband=9) == [0, 1]


def test_each_pv_and_plain_values_are_compared_separately() -> None:
    assert passed([update("x", 1), update("y", 2), update("x", 1), update("y", 3)]) == [0, 1, 3]
    found: list[Any] = []
    rx.from_iterable(series("x", [1, 1, 2])).pipe(value(), changed()).subscribe(found.append)
    assert found == [1, 2]


def test_each_subscription_has_its_own_state() -> None:
    stream = rx.of(1, 1).pipe(changed())
    for _ in range(2):
        found: list[int] = []
        stream.subscribe(found.append)
        assert found == [1]


@pytest.mark.parametrize("bound", [-1, NAN, INF])
def test_invalid_bounds_raise_at_the_call(bound: float) -> None:
    with pytest.raises(ValueError, match="deadband"):
        changed(bound)
    with pytest.raises(ValueError, match="relative"):
        changed(relative=bound)


def test_each_pv_may_have_a_deadband_of_its_own() -> None:
    items = [update(pv, value) for value in (1.0, 1.5, 2.5) for pv in ("a", "b", "c")]
    found: list[Any] = []
    rx.from_iterable(items).pipe(changed(deadband={"a": 1.0, "pva://b": 5.0})).subscribe(found.append)
    assert [(item.name, item.value) for item in found] == [
        ("a", 1.0),
        ("b", 1.0),
        ("c", 1.0),
        ("c", 1.5),
        ("a", 2.5),
        ("c", 2.5),
    ]
    with pytest.raises(ValueError, match="deadband of 'a' must be"):
        changed(deadband={"a": -1.0})
