"""Values of numpy, pandas and p4p for a put: what is sent, and what is refused because it would not be exact."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas
import pytest
from p4p import Type, Value
from p4p.nt import NTEnum, NTScalar, NTTable

from k2eg_rx.protocol import fields_for, pack, plain
from k2eg_rx.protocol.msgpack_codec import unpack

TABLE = NTTable([("a", "i"), ("b", "s")])
ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
COLUMNS = {"a": [1, 2], "b": ["x", "y"]}
CUSTOM = Type([("x", "i"), ("s", ("S", None, [("y", "d"), ("z", "d")])), ("u", ("U", None, [("m", "i")]))])


def changed(kind: Any, **fields: Any) -> Value:
    """Returns a p4p value of which only some fields are set."""
    value = Value(kind)
    for name, item in fields.items():
        value[name.replace("__", ".")] = item
    return value


def unwrapped(kind: Any, value: Any) -> Any:
    """Returns a value as p4p hands it to a program."""
    return kind.unwrap(kind.wrap(value))


# the value, and what `plain` makes of it
EXACT: list[tuple[Any, Any]] = [
    (np.float32(0.1), 0.10000000149011612),
    (np.longdouble(1.5), 1.5),
    (np.array([1, 2], dtype=np.longdouble), [1.0, 2.0]),
    (np.array([[1, 2], [3, 4]], dtype=np.int8), [[1, 2], [3, 4]]),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.array(["x", "y"]), ["x", "y"]),
    (pandas.Series([1, 2], index=["p", "q"]), [1, 2]),
    (pandas.DataFrame(COLUMNS, index=[7, 8]), COLUMNS),
    (unwrapped(NTScalar("d"), 2.5), 2.5),
    (unwrapped(NTScalar("i"), 3), 3),
    (unwrapped(NTScalar("s"), "text"), "text"),
    (unwrapped(NTScalar("?"), True), 1),
    (unwrapped(NTScalar("ad"), [1.0, 2.0]), [1.0, 2.0]),
    (unwrapped(NTScalar("as"), ["x"]), ["x"]),
    (unwrapped(NTEnum(), {"index": 1, "choices": ["Off", "On"]}), 1),
    (NTScalar("d").wrap(2.5), {"value": 2.5}),
    (NTScalar("ai").wrap([1, 2]), {"value": [1, 2]}),
    (NTScalar("d").wrap(2.5, severity=1, timestamp=5.0), {"value": 2.5}),
    (NTEnum().wrap({"index": 1, "choices": ["Off", "On"]}), {"value": {"index": 1, "choices": ["Off", "On"]}}),
    (changed(NTEnum.buildType(), value__index=1), {"value": {"index": 1}}),
    (TABLE.wrap(ROWS), {"value": COLUMNS}),
    (TABLE.unwrap(TABLE.wrap(ROWS)), ROWS),
    (changed(CUSTOM, x=1, s__z=2.0), {"x": 1, "s": {"z": 2.0}}),
]


@pytest.mark.parametrize(("value", "expected"), EXACT, ids=lambda item: type(item).__name__)
def test_what_is_exact_becomes_a_plain_value(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert unpack(pack({"value": found})) == {"value": expected}


INEXACT: list[tuple[Any, str]] = [
    (np.longdouble(1) / 3, "cannot be held exactly by a double"),
    (np.array([np.longdouble(1) / 3]), "cannot be held exactly by a double"),
    (np.datetime64("2026-01-01T00:00:00", "ns"), "holds times, which PVs do not have"),
    (pandas.Series(pandas.to_datetime(["2026-01-01"])), "holds times"),
    (np.array([1, 2], dtype="m8[ns]"), "holds durations"),
    (np.array([1j]), "holds complex numbers"),
    (pandas.DataFrame({"t": pandas.to_datetime(["2026-01-01"])}), "holds times"),
    (pandas.DataFrame([[1]], columns=[5]), "has a column 5; names of columns must be texts"),
    (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "has a column 'a'; names of columns must be texts, each of them"),
    (changed(NTScalar.buildType("d")), "has no field to write"),
    (changed(NTScalar.buildType("d"), alarm__severity=1), "has no field to write"),
    (changed(CUSTOM), "has no field to write"),
    (changed(CUSTOM, u=("m", 1)), "has in 'u' a union"),
]


@pytest.mark.parametrize(("value", "text"), INEXACT)
def test_what_is_not_exact_is_refused(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plain(value)
    with pytest.raises(ValueError, match=f"pva://x .*: cannot put .*, which {text}"):
        fields_for(value, {"value": 1.5}, {"value": "double"}, "pva://x")


TABLE_PV = {"labels": ["A", "B"], "value": {"a": [0], "b": [""]}}
TABLE_TYPES = {"labels": "string[]", "value": {"a": "int[]", "b": "string[]"}}


@pytest.mark.parametrize(
    "value", [pandas.DataFrame(COLUMNS), TABLE.wrap(ROWS), TABLE.unwrap(TABLE.wrap(ROWS)), ROWS, COLUMNS]
)
def test_a_table_is_put_from_columns_rows_and_frames(value: Any) -> None:
    assert fields_for(value, TABLE_PV, TABLE_TYPES, "pva://t") == {"value": COLUMNS}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pandas.DataFrame({"a": [1.0, None], "b": ["x", "y"]}), r"has at \[1\] nan, which is not a whole number"),
        (pandas.DataFrame({"a": [1]}), "lacks b; all columns are required"),
        ([{"a": 1, "b": "x"}, {"a": 2}], "has in row 1 other columns than in row 0: a"),
        ([1, 2], "is not a map from column to array, nor a list of rows"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fields_for(value, TABLE_PV, TABLE_TYPES, "pva://t")


def test_missing_and_masked_elements_are_refused() -> None:
    array = {"value": [1, 2]}
    for value in (np.ma.array([1, 2], mask=[False, True]), pandas.Series([1, None], dtype="Int64")):
        with pytest.raises(ValueError, match=r"has at \[1\]"):
            fields_for(value, array, {"value": "int[]"}, "pva://x")


def test_no_package_is_imported_for_a_put() -> None:
    script = (
        "import sys\nfrom k2eg.dml import dml\nfrom k2eg_rx.protocol import fields_for, plain\n"
        "plain([1]), plain(object()), fields_for(2.5, {'value': 1.0}, None, 'pva://x')\n"
        "print(sorted({'p4p', 'numpy', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
