"""Value classes for puts."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol.msgpack_codec import unpack
from k2eg_rx.protocol.values import Generic, MessagePackSerializable, NTTable, Scalar, Vector, plain

KINDS: list[Any] = [MessagePackSerializable, Scalar, Generic]

PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "named", "expected"),
    [
        ((42,), {}, {"value": 42}),
        (("value", 42), {}, {"value": 42}),
        (("index", 42), {}, {"index": 42}),
        ((), {"payload": 42}, {"value": 42}),
        ((), {"key": "index", "payload": 42}, {"index": 42}),
        (("index",), {"payload": 42}, {"index": 42}),
        ((42,), {"key": "index"}, {"index": 42}),
        (("text",), {}, {"value": "text"}),
    ],
)
def test_one_argument_is_the_payload_and_two_are_key_and_payload(
    kind: Any, arguments: tuple[Any, ...], named: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert kind(*arguments, **named).to_dict() == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        ((), {"key": "value"}),
        (("value", 1, 2), {}),
        (("value", 1), {"payload": 2}),
        (("value", 1), {"key": "other"}),
        ((1,), {"payload": 2, "key": "k"}),
        ((1,), {"value": 2}),
        ((7, 1), {}),
        (("", 1), {}),
    ],
)
def test_other_arguments_are_refused(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Scalar"):
        Scalar(*arguments, **named)


def test_the_documented_vector_needs_no_key() -> None:
    assert Vector([1, 2, 3, 4]).to_dict() == {"value": [1, 2, 3, 4]}
    assert Vector("samples", [1, 2]).to_dict() == {"samples": [1, 2]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (np.array([1.5, 2.0]), [1.5, 2.0]),
        (np.array([True, False]), [True, False]),
        ([np.int16(3), np.float32(0.5)], [3, 0.5]),
        (b"Hi", [72, 105]),
        ([], []),
    ],
)
def test_a_vector_takes_every_kind_of_sequence(payload: Any, expected: list[Any]) -> None:
    assert Vector(payload).to_dict() == {"value": expected}


def test_a_vector_of_a_generator_can_be_sent_twice() -> None:
    vector = Vector(n for n in (1, 2))
    assert vector.to_dict() == vector.to_dict() == {"value": [1, 2]}


@pytest.mark.parametrize("payload", [5, 1.5, "text", True, None, {"a": 1}])
def test_a_vector_of_a_single_value_is_refused(payload: Any) -> None:
    with pytest.raises(ValueError, match="a Vector takes a list"):
        Vector(payload)


def test_a_vector_of_an_array_without_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="a Vector takes a list"):
        Vector(np.array(5)).to_dict()


@pytest.mark.parametrize("value", [np.int64(42), np.array(42), np.uint8(42)])
def test_numpy_scalars_become_numbers(value: Any) -> None:
    assert Scalar(value).to_dict() == {"value": 42}
    assert type(Scalar(value).to_dict()["value"]) is int


def test_numpy_inside_maps_and_lists_becomes_plain() -> None:
    value = {"a": np.float64(1.5), "b": [np.bool_(True)], "c": {"d": np.arange(2)}, "e": (1, b"\x01")}
    assert plain(value) == {"a": 1.5, "b": [True], "c": {"d": [0, 1]}, "e": [1, [1]]}


def test_bytes_are_sent_as_numbers() -> None:
    assert unpack(Generic(b"Hi").to_msgpack()) == {"value": [72, 105]}


@given(PLAIN)
def test_packed_values_unpack_to_themselves(value: Any) -> None:
    generic = Generic("value", value)
    assert unpack(generic.to_msgpack()) == generic.to_dict() == {"value": value}
    assert base64.b64decode(generic.to_base_64(), validate=True) == generic.to_msgpack()


@pytest.mark.parametrize("value", [2**64, object(), 1 + 2j, {1, 2}])
def test_a_value_that_messagepack_cannot_express_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be encoded as MessagePack"):
        Scalar(value).to_msgpack()


def test_a_subclass_is_packed_by_its_to_dict() -> None:
    class Point(MessagePackSerializable):
        def to_dict(self) -> dict[str, Any]:
            return {"x": self.payload[0], "y": self.payload[1]}

    assert unpack(Point((1, 2)).to_msgpack()) == {"x": 1, "y": 2}


def test_repr_shows_key_and_payload() -> None:
    assert repr(Scalar(42)) == "Scalar('value', 42)"


@pytest.fixture
def table() -> NTTable:
    return NTTable(labels=["element", "s"])


def test_a_table_is_sent_column_by_column(table: NTTable) -> None:
    table.set_column("s", np.array([0.0, 1.5]))
    table.set_column("element", ("SOL9000", "XC99"))
    assert table.to_dict() == {"value": {"element": ["SOL9000", "XC99"], "s": [0.0, 1.5]}}
    assert list(table.to_dict()["value"]) == ["element", "s"]
    assert unpack(base64.b64decode(table.to_base_64())) == table.to_dict()


def test_a_table_can_go_to_another_field() -> None:
    table = NTTable(["a"], key="table")
    table.set_column("a", [1])
    assert table.to_dict() == {"table": {"a": [1]}}


@pytest.mark.parametrize(
    "records",
    [
        [{"element": "A", "s": 1.0}, {"s": 2.0, "element": "B"}],
        [("A", 1.0), ["B", 2.0]],
        np.array([("A", 1.0), ("B", 2.0)], dtype=[("element", "U4"), ("s", "f8")]),
        (record for record in [("A", 1.0), ("B", 2.0)]),
    ],
)
def test_a_table_wraps_rows(table: NTTable, records: Any) -> None:
    assert table.wrap(records) is table
    assert table.to_dict() == {"value": {"element": ["A", "B"], "s": [1.0, 2.0]}}


@pytest.mark.parametrize(
    "make",
    [
        lambda payload: NTTable(labels=["element", "s"], payload=payload),
        lambda payload: NTTable(["element", "s"], "value", payload),
        lambda payload: NTTable("value", ["element", "s"], payload),
        lambda payload: NTTable("value", labels=["element", "s"], payload=payload),
    ],
)
@pytest.mark.parametrize(
    "payload",
    [
        [{"element": "A", "s": 1.0}, {"s": 2.0, "element": "B"}],
        [("A", 1.0), ["B", 2.0]],
        {"s": np.array([1.0, 2.0]), "element": ("A", "B")},
        pandas.DataFrame({"element": ["A", "B"], "s": [1.0, 2.0]}, index=[7, 8]),
    ],
)
def test_a_table_is_made_with_its_rows_or_columns(make: Any, payload: Any) -> None:
    assert make(payload).to_dict() == {"value": {"element": ["A", "B"], "s": [1.0, 2.0]}}


def test_columns_name_the_labels_of_a_table() -> None:
    table = NTTable(payload={"b": [1], "a": [2]})
    assert (table.labels, table.to_dict()) == (["b", "a"], {"value": {"b": [1], "a": [2]}})


def test_columns_are_set_one_after_another() -> None:
    table = NTTable("value", ["a", "b"]).set_column("a", [1]).set_column("b", [2])
    assert table.to_dict() == {"value": {"a": [1], "b": [2]}}


@pytest.mark.parametrize(
    ("arguments", "named", "text"),
    [
        ((), {}, "labels must be a list of column names"),
        ((["a"],), {"labels": ["b"]}, "NTTable takes labels, key and payload"),
        ((["a"],), {"columns": {}}, "NTTable takes labels, key and payload"),
        ((["a"], "value", [], 5), {}, "NTTable takes labels, key and payload"),
        ((["a"],), {"payload": 5}, "a table takes a list of rows, columns by label or a DataFrame, got 5"),
        ((["a"],), {"payload": "text"}, "a table takes a list of rows"),
        ((["a"],), {"payload": {"b": [1]}}, "no column 'b'; the columns are a"),
        ((["a"],), {"payload": [{"b": 1}]}, "row 0 has b; the columns are a"),
        ((["a"],), {"payload": pandas.DataFrame([[1]])}, "has a column 0; names of columns must be texts"),
    ],
)
def test_a_table_that_is_not_one_is_refused(arguments: Any, named: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NTTable(*arguments, **named)


def test_a_table_without_rows_has_empty_columns(table: NTTable) -> None:
    assert table.wrap([]).to_dict() == {"value": {"element": [], "s": []}}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"element": "A"}, "row 1 has element; the columns are element, s"),
        ({"element": "A", "s": 1, "z": 2}, "row 1 has element, s, z"),
        (["A"], "row 1 has 1 values for 2 columns"),
        ("AB", "row 1 must be a map or a sequence, got 'AB'"),
    ],
)
def test_a_row_of_another_shape_is_refused(table: NTTable, record: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        table.wrap([("A", 1.0), record])
    assert table.payload == {}


def test_an_unknown_label_is_refused(table: NTTable) -> None:
    with pytest.raises(ValueError, match="no column 'z'; the columns are element, s"):
        table.set_column("z", [1])


@pytest.mark.parametrize("data", [5, "text", np.array(5), None])
def test_a_column_of_a_single_value_is_refused(table: NTTable, data: Any) -> None:
    with pytest.raises(ValueError, match="column 's' takes a list"):
        table.set_column("s", data)


def test_columns_of_different_length_are_refused_when_the_table_is_put(table: NTTable) -> None:
    table.set_column("element", ["A", "B"])
    table.set_column("s", [1.0])
    with pytest.raises(ValueError, match=r"same length, got \{'element': 2, 's': 1\}"):
        table.to_base_64()


def test_a_missing_column_is_refused_when_the_table_is_put(table: NTTable) -> None:
    table.set_column("s", [1.0])
    with pytest.raises(ValueError, match="no data for element"):
        table.to_dict()


@pytest.mark.parametrize(
    ("labels", "text"),
    [([], "list of column names"), ("ab", "got the string"), ([1], "column names"), (["a", "a"], "a more than once")],
)
def test_labels_must_be_unique_names(labels: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NTTable(labels=labels)
