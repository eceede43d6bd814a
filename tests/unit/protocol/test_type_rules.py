"""Which values fit which pvData type, and the texts of refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol.type_rules import INTEGER_RANGES, TypeMismatch, checked_choice, checked_elements, checked_scalar

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
        ("int", True, 1),
        ("ulong", 2**64 - 1, 2**64 - 1),
        ("string", "µA", "µA"),
        ("string", "", ""),
        ("boolean", True, True),
        ("boolean", 0, False),
        ("float", 2**30, float(2**30)),
    ],
)
def test_a_scalar_that_fits_is_converted(kind: str, value: object, expected: object) -> None:
    checked = checked_scalar(kind, value)
    assert checked == expected
    assert type(checked) is type(expected)


def test_nan_and_the_infinities_are_floats() -> None:
    checked: Any = checked_scalar("double", math.nan)
    assert math.isnan(checked)
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
        ("int", 1e30, "is not between -2147483648 and 2147483647"),
        ("string", 12, "is not a string"),
        ("string", b"bytes", "is not a string"),
        ("string", True, "is not a string"),
        ("boolean", 2, "is neither true nor false"),
        ("boolean", "true", "is neither true nor false"),
    ],
)
def test_a_scalar_that_does_not_fit_is_refused(kind: str, value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_scalar(kind, value)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_go_to_their_limits_and_no_further(kind: str) -> None:
    lowest, highest = INTEGER_RANGES[kind]
    assert checked_scalar(kind, lowest) == lowest
    assert checked_scalar(kind, highest) == highest
    assert checked_elements(kind, [lowest, highest]) == [lowest, highest]
    for beyond in (lowest - 1, highest + 1):
        with pytest.raises(TypeMismatch, match="is not between"):
            checked_scalar(kind, beyond)
        with pytest.raises(TypeMismatch, match=r"has at \[1\]"):
            checked_elements(kind, [0, beyond])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("double", [1.5, -2.5], [1.5, -2.5]),
        ("double", [1, 2], [1.0, 2.0]),
        ("double", [1, 2.5], [1.0, 2.5]),
        ("double", [math.inf, 1.0], [math.inf, 1.0]),
        ("float", [1.5, 2.25], [1.5, 2.25]),
        ("float", [1, -2], [1.0, -2.0]),
        ("float", [2**30], [float(2**30)]),
        ("short", [1.0, 2], [1, 2]),
        ("short", [True, 2], [1, 2]),
        ("boolean", [True, 0], [True, False]),
        ("long", (1, 2**62), [1, 2**62]),
        ("string", ("a", "bb"), ["a", "bb"]),
        ("double", [], []),
    ],
)
def test_elements_become_those_of_the_type(kind: str, value: Any, expected: list[Any]) -> None:
    assert repr(checked_elements(kind, value)) == repr(expected)


def test_bytes_are_an_array_of_characters_and_of_nothing_else() -> None:
    assert checked_elements("ubyte", b"Hi\xff") == [72, 105, 255]
    assert checked_elements("byte", b"Hi\xff") == [72, 105, -1]
    with pytest.raises(TypeMismatch, match="is not an array"):
        checked_elements("short", b"Hi")


def test_a_nan_in_an_array_of_floats_does_not_hide_what_is_too_large() -> None:
    assert math.isnan(checked_elements("float", [math.nan, 1.0])[0])
    for elements in ([math.nan, 1e39], [1e39, math.nan], [1.0, math.nan, -1e39]):
        with pytest.raises(TypeMismatch, match="is too large for a float"):
            checked_elements("float", elements)


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
        ("int", [1, 1.5], r"has at \[1\] 1.5, which is not a whole number"),
        ("string", ["a", 1], r"has at \[1\] 1, which is not a string"),
        ("boolean", [True, 2], r"has at \[1\] 2, which is neither true nor false"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(kind: str, value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_elements(kind, value)


@pytest.mark.parametrize(
    "value", [2, 2.0, "Two", {"index": 2}, {"index": "Two"}, {"index": 2, "choices": ["Zero", "One", "Two"]}]
)
def test_a_choice_is_an_index_a_label_or_both_as_read(value: object) -> None:
    assert checked_choice(value, ["Zero", "One", "Two"]) == 2


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "is not an index of its 3 labels: 'Zero', 'One', 'Two'"),
        (-1, "is not an index of its 3 labels: 'Zero', 'One', 'Two'"),
        ("Three", "is not one of its labels: 'Zero', 'One', 'Two'"),
        ({"index": "Three"}, "is not one of its labels: 'Zero', 'One', 'Two'"),
        ({}, "is neither an index nor a label"),
        (None, "is neither an index nor a label"),
        (1.5, "is neither an index nor a label"),
        ([1], "is neither an index nor a label"),
    ],
)
def test_an_unknown_choice_is_refused(value: object, why: str) -> None:
    with pytest.raises(TypeMismatch, match=f"^{why}$"):
        checked_choice(value, ["Zero", "One", "Two"])


@pytest.mark.parametrize(("value", "index"), [("2", 1), ("5", 2), (2, 2), ("0", 0), ("3", 3), (" 3 ", 3)])
def test_a_text_is_a_label_first_and_then_an_index(value: object, index: int) -> None:
    assert checked_choice(value, ["1", "2", "5", "10"]) == index


@pytest.mark.parametrize("value", ["4", "-1", "1.0", "", {"index": "0"}, "²"])
def test_a_text_that_is_neither_a_label_nor_an_index_is_refused(value: object) -> None:
    with pytest.raises(TypeMismatch):
        checked_choice(value, ["1", "2", "5", "10"])


def test_without_labels_any_index_fits_but_no_label() -> None:
    assert checked_choice(7, []) == 7
    with pytest.raises(TypeMismatch):
        checked_choice("Seven", [])


ELEMENTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@given(st.sampled_from([*INTEGER_RANGES, "boolean", "string", "float", "double", "number"]), st.lists(ELEMENTS))
def test_an_array_fits_if_each_element_does(kind: str, elements: list[Any]) -> None:
    def checked(element: object) -> object:
        return checked_scalar(kind, element)

    try:
        expected = list(map(checked, elements))
    except TypeMismatch:
        with pytest.raises(TypeMismatch):
            checked_elements(kind, elements)
    else:
        assert repr(checked_elements(kind, elements)) == repr(expected)
