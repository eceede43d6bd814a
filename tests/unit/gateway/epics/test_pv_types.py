"""What fits which type, and the words in which the rest is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from k2eg_rx.gateway.epics.pv_types import DTYPES, TypeMismatch, checked_array, checked_choice, checked_scalar, refusal

INTEGERS = ["byte", "ubyte", "short", "ushort", "int", "uint", "long", "ulong"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("double", 1.5, 1.5),
        ("double", 3, 3.0),
        ("double", -(2**53), float(-(2**53))),
        ("float", 0.1, 0.1),
        ("int", 7, 7),
        ("int", 7.0, 7),
        ("ulong", 2**64 - 1, 2**64 - 1),
        ("string", "µA", "µA"),
        ("string", "", ""),
        ("boolean", True, True),
    ],
)
def test_a_scalar_that_fits_is_taken(kind: str, value: object, expected: object) -> None:
    checked = checked_scalar(kind, value)
    assert checked == expected
    assert type(checked) is type(expected)


def test_nan_and_the_infinities_are_floats() -> None:
    assert math.isnan(checked_scalar("double", math.nan))
    assert checked_scalar("float", -math.inf) == -math.inf


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("double", "1.5", "is not a number"),
        ("double", True, "is not a number"),
        ("double", None, "is no value"),
        ("double", [1.0], "is not a scalar"),
        ("double", {"value": 1.0}, "is not a scalar"),
        ("double", b"1", "is not a number"),
        ("double", 2**53 + 1, "cannot be held exactly by a double"),
        ("double", 10**400, "cannot be held exactly by a double"),
        ("float", 2**24 + 1, "cannot be held exactly by a float"),
        ("float", 1e39, "is too large for a float"),
        ("int", 7.5, "is not a whole number"),
        ("int", math.nan, "is not a whole number"),
        ("int", math.inf, "is not a whole number"),
        ("int", "7", "is not a number"),
        ("int", False, "is not a number"),
        ("int", 1e30, "is not between -2147483648 and 2147483647"),
        ("string", 12, "is not a string"),
        ("string", b"bytes", "is not a string"),
        ("string", True, "is not a string"),
        ("boolean", 1, "is neither true nor false"),
        ("boolean", "true", "is neither true nor false"),
    ],
)
def test_a_scalar_that_does_not_fit_is_refused(kind: str, value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_scalar(kind, value)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_go_to_their_limits_and_no_further(kind: str) -> None:
    limits = np.iinfo(DTYPES[kind])
    lowest, highest = int(limits.min), int(limits.max)
    assert checked_scalar(kind, lowest) == lowest
    assert checked_scalar(kind, highest) == highest
    assert np.array_equal(checked_array(kind, [lowest, highest]), np.array([lowest, highest], DTYPES[kind]))
    for beyond in (lowest - 1, highest + 1):
        with pytest.raises(TypeMismatch, match="is not between"):
            checked_scalar(kind, beyond)
        with pytest.raises(TypeMismatch, match=r"has at \[1\]"):
            checked_array(kind, [0, beyond])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("double", [1.5, -2.5]),
        ("double", [1, 2]),
        ("double", [1, 2.5]),
        ("double", [math.inf, 1.0]),
        ("float", [1.5, 2.25]),
        ("float", [1, -2]),
        ("short", [1, -2, 3]),
        ("short", [1.0, 2]),
        ("boolean", [True, False]),
        ("long", (1, 2**62)),
    ],
)
def test_an_array_that_fits_has_the_types_own_elements(kind: str, value: Any) -> None:
    checked = checked_array(kind, value)
    assert isinstance(checked, np.ndarray)
    assert checked.dtype == DTYPES[kind]
    assert checked.tolist() == list(value)


def test_an_array_of_strings_stays_a_list() -> None:
    assert checked_array("string", ("a", "bb")) == ["a", "bb"]


@pytest.mark.parametrize("kind", [*DTYPES, "string"])
def test_an_empty_array_fits_every_type(kind: str) -> None:
    assert len(checked_array(kind, [])) == 0


def test_bytes_are_an_array_of_characters_and_of_nothing_else() -> None:
    assert checked_array("ubyte", b"Hi\xff").tolist() == [72, 105, 255]
    assert checked_array("byte", b"Hi\xff").tolist() == [72, 105, -1]
    with pytest.raises(TypeMismatch, match="is not an array"):
        checked_array("short", b"Hi")


def test_a_nan_in_an_array_of_floats_does_not_hide_what_is_too_large() -> None:
    assert math.isnan(checked_array("float", [math.nan, 1.0])[0])
    for elements in ([math.nan, 1e39], [1e39, math.nan], [1.0, math.nan, -1e39]):
        with pytest.raises(TypeMismatch, match="is too large for a float"):
            checked_array("float", elements)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("double", 5.0, "is not an array"),
        ("double", None, "is no value"),
        ("double", "12", "is not an array"),
        ("double", {"a": 1}, "is not an array"),
        ("double", [1.0, "x"], r"has at \[1\] 'x', which is not a number"),
        ("double", [1.0, None], r"has at \[1\] None, which is no value"),
        ("double", [[1.0], [2.0]], r"has at \[0\] \[1.0\], which is not a scalar"),
        ("int", [1, True], r"has at \[1\] True, which is not a number"),
        ("int", [1, 1.5], r"has at \[1\] 1.5, which is not a whole number"),
        ("string", ["a", 1], r"has at \[1\] 1, which is not a string"),
        ("boolean", [True, 1], r"has at \[1\] 1, which is neither true nor false"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(kind: str, value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_array(kind, value)


@pytest.mark.parametrize("value", [2, 2.0, "Two", {"index": 2}, {"index": 2, "choices": ["Zero", "One", "Two"]}])
def test_a_choice_is_an_index_a_label_or_both_as_read(value: object) -> None:
    assert checked_choice(value, ["Zero", "One", "Two"]) == 2


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "is not an index of its 3 labels: 'Zero', 'One', 'Two'"),
        (-1, "is not an index of its 3 labels: 'Zero', 'One', 'Two'"),
        ("Three", "is not one of its labels: 'Zero', 'One', 'Two'"),
        ({"index": "Two"}, "has a label where the index is expected"),
        ({}, "is neither an index nor a label"),
        (None, "is neither an index nor a label"),
        (True, "is neither an index nor a label"),
        (1.5, "is neither an index nor a label"),
        ([1], "is neither an index nor a label"),
    ],
)
def test_a_choice_there_is_not_is_refused(value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_choice(value, ["Zero", "One", "Two"])


def test_without_labels_any_index_goes_but_no_label() -> None:
    assert checked_choice(7, []) == 7
    with pytest.raises(TypeMismatch):
        checked_choice("Seven", [])


def test_a_refusal_names_the_pv_its_type_and_the_value_shortly() -> None:
    error = refusal("my:pv", "value", "int[]", list(range(10_000)), "is too much")
    assert str(error) == "my:pv: the field 'value' is of type int[]; [0, 1, 2, 3, 4, 5, ...] is too much"
