"""What a put of a plain value sends, for PVs as a deployed gateway answered for them, and what is refused.

The structures are recorded ones (`tests/data/recorded.jsonl`): no types are reported with them. Where types are
reported, they have the form in which this project's gateway reports them.
"""

from __future__ import annotations

import base64
import json
import math
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol.msgpack_codec import pack, unpack
from k2eg_rx.protocol.put_conversion import fields_for

RECORDED = Path(__file__).parents[2] / "data" / "recorded.jsonl"


@cache
def structures() -> dict[str, dict[str, Any]]:
    """Every PV that was read as MessagePack, by its URI."""
    found: dict[str, dict[str, Any]] = {}
    for message in map(json.loads, RECORDED.read_text().splitlines()):
        if message["kind"] == "reply" and message["headers"] == [["k2eg-ser-type", "Msgpack"]]:
            body: Any = unpack(base64.b64decode(message["value_b64"]))
            for name, part in body.items():
                if isinstance(part, dict):
                    uri = message["key"] if "://" in message["key"] else f"pva://{name}"
                    found.setdefault(uri, cast("dict[str, Any]", part))
    return found


def sent(value: Any, uri: str, types: dict[str, Any] | None = None) -> dict[str, Any]:
    return fields_for(value, structures()[uri], types, uri)


def refusal(value: Any, uri: str) -> str:
    with pytest.raises(ValueError, match="cannot put") as caught:
        sent(value, uri)
    return str(caught.value)


def same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)  # tells 1, 1.0 and True apart


# PV as recorded, value, what is to be sent
ACCEPTED: list[tuple[str, Any, Any]] = [
    ("pva://t:ao", 2.5, 2.5),
    ("pva://t:ao", 3, 3.0),
    ("pva://t:ao", np.float32(0.5), 0.5),
    ("pva://t:ao", np.int16(4), 4.0),
    ("pva://t:ao", np.array(4), 4.0),
    ("pva://t:ao", math.inf, math.inf),
    ("ca://t:nan", 1, 1.0),
    ("pva://t:lout", 7, 7),
    ("pva://t:lout", 7.0, 7),
    ("pva://t:lout", np.uint8(7), 7),
    ("pva://t:lout", True, 1),
    ("ca://t:lout", -5, -5),
    ("pva://t:str", "new", "new"),
    ("pva://t:str", np.str_("new"), "new"),
    ("pva://P:BOOL", False, False),
    ("pva://P:BOOL", 1, True),
    ("pva://P:BOOL", np.bool_(True), True),
    ("pva://t:bi", 1, {"index": 1}),
    ("pva://t:bi", "On", {"index": 1}),
    ("pva://t:bi", True, {"index": 1}),
    ("pva://t:bi", {"index": 0}, {"index": 0}),
    ("ca://t:mbbo", "Two", {"index": 2}),
    ("ca://t:mbbo", np.int64(2), {"index": 2}),
    ("pva://P:ENUM", {"index": "C", "choices": ["A", "B", "C"]}, {"index": 2}),
    ("pva://t:wfd", [1.5, 2, -3], [1.5, 2.0, -3.0]),
    ("pva://t:wfd", (1, 2), [1.0, 2.0]),
    ("pva://t:wfd", np.array([1.5, 2.5]), [1.5, 2.5]),
    ("pva://t:wfd", np.arange(2), [0.0, 1.0]),
    ("pva://t:wfd", [], []),
    ("pva://t:wfl", [1, 2.0], [1, 2]),
    ("ca://t:wfl", np.array([1, -2], dtype="int8"), [1, -2]),
    ("pva://t:wfuc", b"Hi", [72, 105]),
    ("pva://t:wfst", ["a", "bb"], ["a", "bb"]),
]


@pytest.mark.parametrize(("uri", "value", "expected"), ACCEPTED)
def test_a_value_that_fits_is_sent_in_the_type_of_the_pv(uri: str, value: Any, expected: Any) -> None:
    fields = sent(value, uri)
    assert same(fields, {"value": expected})
    assert unpack(pack(fields)) == fields


# PV as recorded, value, the type's name in the error, why
REFUSED: list[tuple[str, Any, str, str]] = [
    ("pva://t:ao", "4.5", "double", "cannot put '4.5', which is not a number"),
    ("pva://t:ao", True, "double", "is not a number"),
    ("pva://t:ao", None, "double", "is no value"),
    ("pva://t:ao", [1, 2], "double", "is not a scalar"),
    ("pva://t:ao", 1j, "double", "is not a number"),
    ("pva://t:ao", 10**400, "double", "cannot be held exactly by a double"),
    ("pva://t:lout", 7.9, "integer", "is not a whole number"),
    ("ca://t:lout", 7.9, "integer", "is not a whole number"),
    ("pva://t:lout", math.nan, "integer", "is not a whole number"),
    ("pva://t:lout", math.inf, "integer", "is not a whole number"),
    ("pva://t:lout", "7", "integer", "is not a number"),
    ("pva://t:lout", 2**64, "integer", "is not between -9223372036854775808 and 18446744073709551615"),
    ("pva://t:lout", [7], "integer", "is not a scalar"),
    ("pva://t:str", 12, "string", "is not a string"),
    ("pva://P:BOOL", 2, "boolean", "is neither true nor false"),
    ("pva://P:BOOL", "true", "boolean", "is neither true nor false"),
    ("pva://t:bi", "Maybe", "enum of Off, On", "is not one of its labels: 'Off', 'On'"),
    ("pva://t:bi", 2, "enum of Off, On", "is not an index of its 2 labels"),
    ("pva://t:bi", -1, "enum of Off, On", "is not an index of its 2 labels"),
    ("pva://t:bi", 0.5, "enum of Off, On", "is neither an index nor a label"),
    ("pva://t:bi", [1], "enum of Off, On", "is neither an index nor a label"),
    ("pva://t:bi", {"choices": ["A"]}, "enum of Off, On", "has other labels"),
    ("pva://t:bi", {"index": 0, "choices": ["A"]}, "enum of Off, On", "has other labels"),
    ("pva://t:wfd", 5.0, "array of double", "cannot put 5.0, which is not an array"),
    ("pva://t:wfd", "text", "array of double", "is not an array"),
    ("pva://t:wfd", np.array(5.0), "array of double", "is not an array"),
    ("pva://t:wfd", [1.0, "x"], "array of double", "has at [1] 'x', which is not a number"),
    ("pva://t:wfd", [[1.0], [2.0]], "array of double", "has at [0]"),
    ("pva://t:wfd", [1.0, None], "array of double", "None"),
    ("pva://t:wfl", [1, 2.5], "array of integer", "has at [1] 2.5, which is not a whole number"),
    ("pva://t:wfst", ["a", 1], "array of string", "has at [1]"),
    ("pva://t:ao", {"valu": 1}, "double", "has a field 'valu'; there are value, alarm"),
    ("pva://t:ao", {}, "double", "names no field; there are value, alarm"),
    ("pva://t:ao", {"value": "x"}, "double", "has in 'value' (double) 'x', which is not a number"),
    ("pva://t:ao", {"value": 1, "alarm": {"severity": "x"}}, "double", "'severity'"),
]


@pytest.mark.parametrize(("uri", "value", "kind", "why"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_with_pv_and_type(uri: str, value: Any, kind: str, why: str) -> None:
    text = refusal(value, uri)
    assert text.startswith(f"{uri} ({kind}): cannot put ")
    assert why in text


def test_the_error_shortens_a_long_value() -> None:
    with pytest.raises(ValueError, match=r"cannot put \[0, 1, 2, 3, 4, 5, \.\.\.\], which is not a scalar"):
        sent(list(range(10_000)), "pva://t:ao")


def test_named_fields_are_sent_by_name() -> None:
    fields = sent({"value": 2, "display": {"description": "changed", "limitLow": -1}}, "pva://t:ao")
    assert same(fields, {"value": 2.0, "display": {"description": "changed", "limitLow": -1.0}})


def test_a_structure_takes_some_of_its_fields() -> None:
    fields = sent({"a": 99, "sub": {"x": 8, "flag": False}, "list": [{"k": "z", "v": 5}]}, "pva://P:CUSTOM")
    assert same(fields, {"a": 99, "sub": {"x": 8.0, "flag": False}, "list": [{"k": "z", "v": 5}]})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (5, "is not a map of fields"),
        ({"zzz": 5}, "has a field 'zzz'"),
        (
            {"sub": {"zzz": 5}},
            "has in 'sub' (structure of x, arr, flag) {'zzz': 5}, which has a field 'zzz'",
        ),
        ({"sub": 5}, "is not a map of fields"),
        ({"sub": {"arr": 5}}, "is not an array"),
        ({"a": None}, "None"),
    ],
)
def test_a_structure_refuses_unknown_fields(value: Any, why: str) -> None:
    text = refusal(value, "pva://P:CUSTOM")
    assert text.startswith("pva://P:CUSTOM (structure of a, b, sub")
    assert why in text


TABLE = "pva://P:TABLE"
COLUMNS = {"element": ["A", "B"], "device_name": ["a", "b"], "s": [1, 2.5], "n": [3, 4]}
SENT = {"element": ["A", "B"], "device_name": ["a", "b"], "s": [1.0, 2.5], "n": [3, 4]}


@pytest.mark.parametrize("value", [COLUMNS, {"value": COLUMNS}, dict(reversed(COLUMNS.items()))])
def test_a_table_takes_its_columns(value: Any) -> None:
    assert same(sent(value, TABLE), {"value": SENT})


def test_a_table_takes_arrays_and_labels() -> None:
    columns = COLUMNS | {"s": np.array([1.0, 2.5]), "n": np.array([3, 4])}
    fields = sent({"labels": ["E", "D", "S", "N"], "value": columns}, TABLE)
    assert fields == {"labels": ["E", "D", "S", "N"], "value": SENT}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"s": [1.0]}, "lacks element, device_name, n; all columns are required"),
        (COLUMNS | {"z": [1, 2]}, "has a column 'z'; there are element, device_name, s, n"),
        ({"z": [1, 2]}, "has a column 'z'; there are element, device_name, s, n"),
        (COLUMNS | {"s": [1.0]}, "has columns of different lengths: {'element': 2, 'device_name': 2, 's': 1, 'n': 2}"),
        (COLUMNS | {"s": 1.0}, "has in 's' (array of double) 1.0, which is not an array"),
        (COLUMNS | {"s": ["x", "y"]}, "has in 's' (array of double) ['x', 'y'], which has at [0] 'x'"),
        ({}, "names no field"),
        ([[1], [2]], "is not a map from column to array"),
        (5, "is not a map from column to array"),
    ],
)
def test_a_table_refuses_other_columns(value: Any, why: str) -> None:
    text = refusal(value, TABLE)
    assert text.startswith("pva://P:TABLE (table of element, device_name, s, n): cannot put ")
    assert why in text


def test_a_table_may_have_a_column_named_value() -> None:
    table = {"labels": ["value"], "value": {"value": [1.5]}}
    assert fields_for({"value": [2.5]}, table, None, TABLE) == {"value": {"value": [2.5]}}
    assert fields_for({"value": {"value": [2.5]}}, table, None, TABLE) == {"value": {"value": [2.5]}}


def test_an_empty_column_or_array_takes_any_elements() -> None:
    table: dict[str, Any] = {"labels": ["a"], "value": {"a": []}}
    assert fields_for({"a": ["x", "y"]}, table, None, TABLE) == {"value": {"a": ["x", "y"]}}
    assert fields_for([1.5], {"value": []}, None, TABLE) == {"value": [1.5]}


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("byte", -128, 127),
        ("ubyte", 0, 255),
        ("short", -32768, 32767),
        ("ushort", 0, 65535),
        ("int", -(2**31), 2**31 - 1),
        ("uint", 0, 2**32 - 1),
        ("long", -(2**63), 2**63 - 1),
        ("ulong", 0, 2**64 - 1),
    ],
)
def test_a_reported_integer_has_its_exact_range(kind: str, low: int, high: int) -> None:
    for value in (low, high):
        assert fields_for(value, {"value": 0}, {"value": kind}, "pva://x") == {"value": value}
        assert fields_for([value], {"value": [0]}, {"value": f"{kind}[]"}, "pva://x") == {"value": [value]}
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=rf"pva://x \({kind}\): .* is not between {low} and {high}"):
            fields_for(value, {"value": 0}, {"value": kind}, "pva://x")
        with pytest.raises(ValueError, match=rf"pva://x \(array of {kind}\): .* has at \[0\] {value}, which is not"):
            fields_for([value], {"value": [0]}, {"value": f"{kind}[]"}, "pva://x")


def reported(value: Any, current: Any, kind: Any) -> Any:
    return fields_for(value, {"value": current}, {"value": kind}, "pva://x")["value"]


def test_reported_types_take_precedence_over_inferred_ones() -> None:
    assert same(reported(2, 0, "double"), 2.0)
    assert same(reported(1.5, 0, "double"), 1.5)
    assert same(reported([1, 2], [], "double[]"), [1.0, 2.0])
    assert same(reported(True, 0, "boolean"), True)
    assert same(reported("B", {"index": 0, "choices": ["A", "B"]}, "enum"), {"index": 1})
    assert reported({"i": 5}, {"s": "x"}, "union") == {"i": 5}
    assert reported([1, "x"], None, "any") == [1, "x"]
    assert reported([{"a": 1}], [], "structure[]") == [{"a": 1}]
    with pytest.raises(ValueError, match=r"\(int\): .* not a whole number"):
        reported(1.5, 0, "int")
    with pytest.raises(ValueError, match=r"\(array of structure\): .* is not an array"):
        reported(5, [], "structure[]")


def test_an_integer_that_a_float_would_round_is_refused() -> None:
    assert same(reported(2**24, 0.5, "float"), float(2**24))
    with pytest.raises(ValueError, match=r"\(float\): cannot put 16777217, which cannot be held exactly by a float"):
        reported(2**24 + 1, 0.5, "float")
    with pytest.raises(ValueError, match="cannot be held exactly by a double"):
        reported(2**53 + 1, 0.5, "double")


def test_bytes_fit_arrays_of_characters() -> None:
    assert fields_for(b"H\xff", {"value": []}, {"value": "ubyte[]"}, "pva://x") == {"value": [72, 255]}
    assert fields_for(b"H\xff", {"value": []}, {"value": "byte[]"}, "pva://x") == {"value": [72, -1]}
    with pytest.raises(ValueError, match=r"array of short\): cannot put b'H', which is not an array"):
        fields_for(b"H", {"value": []}, {"value": "short[]"}, "pva://x")


def test_reported_columns_of_a_table_are_checked_by_their_types() -> None:
    table: dict[str, Any] = {"labels": ["a"], "value": {"a": []}}
    types = {"value": {"a": "short[]"}}
    assert fields_for({"a": [1.0]}, table, types, TABLE) == {"value": {"a": [1]}}
    with pytest.raises(ValueError, match=r"'a' .array of short. \[40000\], which has at \[0\] 40000"):
        fields_for({"a": [40_000]}, table, types, TABLE)


def test_a_reported_float_refuses_what_would_become_infinite() -> None:
    assert reported(3.0e38, 0.5, "float") == 3.0e38
    assert reported(-math.inf, 0.5, "float") == -math.inf
    assert math.isnan(reported(math.nan, 0.5, "float"))
    with pytest.raises(ValueError, match="is too large for a float"):
        reported(1e39, 0.5, "float")


# Some builds of the deployed gateway send whole floats as integers. What tells a float that is 0 from an integer?
FLOAT_LIMITS = {"valueAlarm": {"lowAlarmLimit": math.nan, "hysteresis": 0}}


@pytest.mark.parametrize(
    "rest",
    [
        FLOAT_LIMITS,
        {"display": {"limitLow": -0.5, "limitHigh": 10}},
        {"display": {"limitLow": 0, "precision": 3}},
        {"display": {"format": "F8.3", "limitLow": 0.0}},
    ],
)
def test_an_integer_that_may_be_a_float_takes_one(rest: dict[str, Any]) -> None:
    pv = {"value": 0, **rest}
    assert same(fields_for(1.5, pv, None, "pva://x"), {"value": 1.5})
    assert same(fields_for(2.0, pv, None, "pva://x"), {"value": 2})
    assert same(fields_for(2**53 + 1, pv, None, "pva://x"), {"value": 2**53 + 1})
    assert same(fields_for(1e300, pv, None, "pva://x"), {"value": 1e300})
    with pytest.raises(ValueError, match=r"pva://x \(number\)"):
        fields_for("1.5", pv, None, "pva://x")


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"alarm": {"severity": 0}},
        {"display": {"limitLow": 0, "limitHigh": 10, "precision": 0}},
        {"display": {"format": "I12", "limitLow": 0.0}},
        {"valueAlarm": {"lowAlarmLimit": 0, "hysteresis": 0.0}},  # 0.0 is sent as a float: floats are
        {"display": {"limitLow": -0.5}, "valueAlarm": {"hysteresis": 0.0}},
    ],
)
def test_an_integer_without_sign_of_a_float_stays_an_integer(rest: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pva://x \(integer\): .* not a whole number"):
        fields_for(1.5, {"value": 0, **rest}, None, "pva://x")


def test_an_array_of_integers_may_be_one_of_floats() -> None:
    zeros: dict[str, Any] = {"value": [0, 0]}
    assert fields_for([1.5], zeros, None, "pva://x") == {"value": [1.5]}
    assert fields_for({"a": [1.5]}, {"labels": ["a"], "value": {"a": [0]}}, None, "pva://x") == {"value": {"a": [1.5]}}
    with pytest.raises(ValueError, match="array of integer"):
        fields_for([1.5], zeros | {"valueAlarm": {"hysteresis": 0.0}}, None, "pva://x")


def test_an_array_of_floats_and_integers_is_one_of_floats() -> None:
    assert same(fields_for([3], {"value": [1.5, 2]}, None, "pva://x"), {"value": [3.0]})
    with pytest.raises(ValueError, match="array of double"):
        fields_for(["x"], {"value": [1.5, 2]}, None, "pva://x")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
PVS = st.sampled_from(sorted(structures()))


@given(PVS, ANYTHING)
def test_any_value_is_sent_or_refused_with_the_pv(uri: str, value: Any) -> None:
    try:
        fields = sent(value, uri)
    except ValueError:
        assert refusal(value, uri).startswith(f"{uri} (")
    else:
        assert fields.keys() <= structures()[uri].keys()


@given(PVS)
def test_a_read_value_can_be_put_back(uri: str) -> None:
    structure = structures()[uri]
    if "value" in structure:
        assert same(unpack(pack(sent(structure["value"], uri))), {"value": put_form(structure["value"])})


def put_form(value: Any) -> Any:
    """An enum's choices are not sent."""
    is_enum = isinstance(value, dict) and "choices" in value
    return {"index": cast("Any", value)["index"]} if is_enum else cast("Any", value)
