"""Fields that a put sets in a p4p value, and refused puts, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from p4p import Type, Value
from p4p.nt import NTEnum, NTScalar, NTTable

from k2eg_rx.gateway.epics.provider import ProviderError
from k2eg_rx.gateway.epics.pva_puts import fill
from k2eg_rx.gateway.epics.pva_values import ValueReader, spec_of

CUSTOM = Type(
    [
        ("a", "i"),
        ("sub", ("S", None, [("x", "d"), ("arr", "ad"), ("flag", "?"), ("deep", ("S", None, [("s", "s")]))])),
        ("list", ("aS", None, [("k", "s"), ("v", "l")])),
        ("u", ("U", None, [("i", "i"), ("st", ("S", None, [("q", "i")]))])),
        ("us", ("aU", None, [("i", "i"), ("s", "s")])),
        ("any", "v"),
        ("anys", "av"),
        ("choice", ("S", "enum_t", [("index", "i"), ("choices", "as")])),
    ]
)


def put(value: Any, fields: Any) -> Any:
    """Returns the paths of the fields that a put would send: those marked as changed."""
    value.unmark()
    fill(value, fields, "my:pv")
    return value.changedSet()


def refusal(value: Any, fields: Any) -> str:
    value.unmark()
    with pytest.raises(ProviderError) as caught:
        fill(value, fields, "my:pv")
    assert not value.changedSet(), "a refused put must set nothing"
    return str(caught.value)


def scalar(code: str) -> Any:
    return NTScalar(code, display=True).wrap([0.0] if code.startswith("a") else 0)


def choice() -> Any:
    return NTEnum().wrap({"index": 0, "choices": ["A", "B", "C"]})


def table() -> Any:
    return NTTable([("name", "s"), ("n", "i")]).wrap([{"name": "x", "n": 1}, {"name": "y", "n": 2}])


def custom() -> Any:
    return Value(CUSTOM, {"choice": {"index": 1, "choices": ["A", "B"]}, "sub": {"x": 1.5}})


def test_only_the_named_fields_are_set() -> None:
    value = custom()
    assert put(value, {"a": 3, "sub": {"flag": True, "deep": {"s": "x"}}}) == {"a", "sub.flag", "sub.deep.s"}
    assert (value["a"], value["sub.flag"], value["sub.deep.s"], value["sub.x"]) == (3, True, "x", 1.5)


def test_unknown_fields_are_ignored_unless_all_are_unknown() -> None:
    assert put(scalar("d"), {"value": 2, "foo": 1}) == {"value"}
    for fields in ({"foo": 1}, {}, {"display": {"nope": 1}}):
        assert refusal(scalar("d"), fields) == "No fields to update in the provided Msgpack object"


def test_field_names_must_be_strings() -> None:
    assert refusal(scalar("d"), {1: 2.0}) == "my:pv: the names of fields are strings"


def test_a_value_that_does_not_fit_names_pv_field_type_and_value() -> None:
    assert refusal(scalar("i"), {"value": 7.5}) == (
        "my:pv: the field 'value' is of type int; 7.5 is not a whole number"
    )
    assert refusal(scalar("ad"), {"value": 5.0}) == "my:pv: the field 'value' is of type double[]; 5.0 is not an array"
    assert "'sub.deep.s' is of type string; 3 is not a string" in refusal(custom(), {"sub": {"deep": {"s": 3}}})
    assert "'sub' is of type structure; 3 is not a map of fields" in refusal(custom(), {"sub": 3})


def test_nothing_is_set_if_a_later_field_does_not_fit() -> None:
    assert "'sub.x'" in refusal(custom(), {"a": 3, "sub": {"flag": True, "x": "no"}})


@pytest.mark.parametrize("chosen", [2, "C", {"index": 2}, {"index": "C"}, {"index": 2, "choices": ["A", "B", "C"]}])
def test_an_enum_takes_index_and_label(chosen: object) -> None:
    value = choice()
    assert put(value, {"value": chosen}) == {"value.index"}
    assert value["value.index"] == 2


@pytest.mark.parametrize("chosen", [3, -1, "D", {"index": 3}, {"index": "D"}, {}, None, [0], 0.5])
def test_an_enum_refuses_unknown_choices(chosen: object) -> None:
    assert "my:pv: the field 'value' is of type enum; " in refusal(choice(), {"value": chosen})


def test_an_enum_takes_new_labels() -> None:
    value = choice()
    assert put(value, {"value": {"index": 3, "choices": ["A", "B", "C", "D"]}}) == {"value.index", "value.choices"}
    assert "labels: 'A'" in refusal(choice(), {"value": {"index": 1, "choices": ["A"]}})


def test_nested_enums_are_recognized() -> None:
    value = custom()
    assert put(value, {"choice": "A"}) == {"choice.index"}
    assert value["choice.index"] == 0


def test_a_table_takes_the_columns_given() -> None:
    value = table()
    assert put(value, {"value": {"name": ["a"], "n": [1.0]}}) == {"value.name", "value.n"}
    assert put(table(), {"value": {"n": [4, 5, 6]}}) == {"value.n"}
    assert put(table(), {"labels": ["Name", "Number"], "value": {"n": []}}) == {"labels", "value.n"}


def test_a_tables_columns_have_known_names_and_one_length() -> None:
    assert "has a column 'zzz'; there are name, n" in refusal(table(), {"value": {"zzz": [1]}})
    lengths = refusal(table(), {"value": {"name": ["a"], "n": [1, 2]}})
    assert lengths.endswith("has columns of different lengths: {'name': 1, 'n': 2}")
    assert "is not an array" in refusal(table(), {"value": {"name": "ab", "n": [1, 2]}})
    assert "'value.n' is of type int[]" in refusal(table(), {"value": {"n": ["x"]}})


def test_unions_variants_and_arrays_of_structures_are_put_as_read() -> None:
    fields: dict[str, Any] = {
        "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
        "u": {"st": {"q": 5}},
        "us": [{"i": 1}, {"s": "x"}],
        "any": {"": "text"},
        "anys": [{"": 1.5}, 2, "x"],
    }
    value = custom()
    assert put(value, fields) == set(fields)
    read = ValueReader(spec_of(value)).read(value)
    assert {name: read[name] for name in fields} == fields | {"anys": [{"": 1.5}, {"": 2}, {"": "x"}]}


def test_a_variant_takes_arrays_of_one_type() -> None:
    for elements in ([1, 2], [1.5], ["x"], [True]):
        value = custom()
        put(value, {"any": elements})
        assert list(value["any"]) == elements


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"u": {}}, "does not select one of i, st"),
        ({"u": {"i": 1, "st": {}}}, "does not select one of i, st"),
        ({"u": {"nope": 1}}, "does not select one of i, st"),
        ({"u": 5}, "is not a map of fields"),
        ({"u": {"i": "x"}}, "is not a number"),
        ({"u": {"st": {"nope": 1}}}, "has a field 'nope'; there are q"),
        ({"us": [{"i": 1}, 2]}, "is not a map of fields"),
        ({"us": {"i": 1}}, "is not an array"),
        ({"list": [{"k": 1}]}, "is not a string"),
        ({"list": [{"zzz": 1}]}, "has a field 'zzz'; there are k, v"),
        ({"list": {"k": "a"}}, "is not an array"),
        ({"any": None}, "is not an array"),
        ({"any": []}, "is neither a scalar nor an array of one kind of scalar"),
        ({"any": [1, "x"]}, "which is not a number"),
        ({"any": {"x": 1}}, "is not an array"),
    ],
)
def test_invalid_unions_variants_and_arrays_are_refused(fields: Any, why: str) -> None:
    assert why in refusal(custom(), fields)
