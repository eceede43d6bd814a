"""Conversion of p4p values of all types, without a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from p4p import Type, Value
from p4p.nt import NTEnum, NTNDArray, NTScalar, NTTable

from k2eg_rx.gateway.epics.pva_values import UpdateReader, ValueReader, ValueReaderCache, spec_of, types_of

INNER = ("S", None, [("q", "i"), ("u", ("U", None, [("a", "i"), ("b", "i")]))])
UNION = ("U", None, [("i", "i"), ("s", "s"), ("st", INNER), ("al", "al"), ("las", ("aS", None, [("z", "i")]))])


def read(value: Any) -> Any:
    return plain(ValueReader(spec_of(value)).read(value))


def plain(item: Any) -> Any:
    match item:
        case dict():
            return {name: plain(held) for name, held in item.items()}
        case list():
            return [plain(held) for held in item]
        case np.ndarray():
            return item.tolist()
        case _:
            return item


def of(spec: Any, held: Any) -> Any:
    return read(Value(Type([("f", spec)]), {"f": held}))["f"]


@pytest.mark.parametrize(
    ("code", "held"),
    [
        ("?", True),
        ("s", "µ"),
        ("b", -128),
        ("B", 255),
        ("h", -300),
        ("H", 65535),
        ("i", -7),
        ("I", 2**32 - 1),
        ("l", -(2**63)),
        ("L", 2**64 - 1),
        ("f", 0.5),
        ("d", 0.1),
        ("as", ["a", ""]),
        ("a?", [True, False]),
        ("ab", [-1]),
        ("aB", [255]),
        ("ah", [300, -300]),
        ("al", [2**53 + 1]),
        ("af", [0.5]),
        ("ad", []),
    ],
)
def test_scalars_and_arrays(code: str, held: object) -> None:
    assert of(code, held) == held


def test_an_unset_array_is_empty_at_every_level() -> None:
    array = ("n", "ah")
    value = Value(Type([array, ("sub", ("S", None, [array])), ("list", ("aS", None, [array]))]), {"list": [{}]})
    structure = ValueReader(spec_of(value)).read(value)
    assert plain(structure) == {"n": [], "sub": {"n": []}, "list": [{"n": []}]}
    assert structure["sub"]["n"].dtype == np.int16


def test_numeric_arrays_stay_numpy_and_strings_become_a_list() -> None:
    value = Value(Type([("n", "ah"), ("s", "as")]), {"n": [1, -2], "s": ["x"]})
    structure = ValueReader(spec_of(value)).read(value)
    assert isinstance(structure["n"], np.ndarray)
    assert structure["n"].dtype == np.int16
    assert structure["s"] == ["x"]


@pytest.mark.parametrize(
    ("selected", "structure"),
    [
        (("i", 0), {"i": 0}),
        (("s", ""), {"s": ""}),
        (("st", {"q": 3, "u": ("b", 7)}), {"st": {"q": 3, "u": {"b": 7}}}),
        (("al", [1, 2]), {"al": [1, 2]}),
        (("al", []), {"al": []}),
        (("las", [{"z": 1}, {"z": 2}]), {"las": [{"z": 1}, {"z": 2}]}),
    ],
)
def test_a_union_is_a_map_of_the_selected_member(selected: object, structure: object) -> None:
    assert of(UNION, selected) == structure


def test_a_union_without_selection_is_empty() -> None:
    assert read(Value(Type([("u", UNION)]))) == {"u": {}}


def test_a_reader_follows_a_union_that_selects_another_member() -> None:
    of_type = Type([("u", UNION)])
    values = [Value(of_type, {"u": selected}) for selected in (("i", 1), ("s", "x"), ("i", 2))]
    reader = ValueReader(spec_of(values[0]))
    assert [reader.read(value)["u"] for value in values] == [{"i": 1}, {"s": "x"}, {"i": 2}]


def test_unions_in_arrays() -> None:
    assert of(("aU", None, [("i", "i"), ("s", "s")]), [("i", 0), ("s", "x")]) == [{"i": 0}, {"s": "x"}]
    held = of(("aS", None, [("k", "s"), ("u", UNION)]), [{"k": "one", "u": ("i", 1)}, {"k": "two"}])
    assert held == [{"k": "one", "u": {"i": 1}}, {"k": "two", "u": {}}]


@pytest.mark.parametrize("held", [1.5, "x", 3, None])
def test_a_variant_is_a_map_with_an_empty_name(held: object) -> None:
    assert of("v", held) == {"": held}


def test_variants_hold_structures_and_come_in_arrays() -> None:
    inner = Value(Type([("u", UNION)]), {"u": ("s", "deep")})
    assert of("v", inner) == {"": {"u": {"s": "deep"}}}
    assert of("av", [1, "x", inner]) == [{"": 1}, {"": "x"}, {"": {"u": {"s": "deep"}}}]
    assert of(("S", None, [("deep", ("S", None, [("any", "v")]))]), {"deep": {"any": 5}}) == {"deep": {"any": {"": 5}}}


def test_fields_come_in_the_servers_order() -> None:
    value = Value(Type([("z", "i"), ("any", "v"), ("a", "i"), ("u", UNION)]))
    assert list(read(value)) == ["z", "any", "a", "u"]


def test_a_structure_is_not_changed_by_a_later_update() -> None:
    value = Value(Type([("n", "ad"), ("sub", ("S", None, [("x", "d")]))]), {"n": [1.0], "sub": {"x": 1.0}})
    structure = ValueReader(spec_of(value)).read(value)
    value["n"], value["sub.x"] = [2.0], 2.0
    assert plain(structure) == {"n": [1.0], "sub": {"x": 1.0}}


def test_an_image_has_its_pixels_under_their_type_name() -> None:
    structure = read(NTNDArray().wrap(np.arange(6, dtype=np.uint16).reshape(2, 3)))
    assert structure["value"] == {"ushortValue": [0, 1, 2, 3, 4, 5]}
    assert [dimension["size"] for dimension in structure["dimension"]] == [3, 2]
    assert structure["attribute"][0]["value"] == {"": 0}
    assert structure["codec"] == {"name": "", "parameters": {"": None}}


@pytest.mark.parametrize(
    ("normative", "kind"),
    [
        (NTScalar("d", display=True).wrap(1.0), "double"),
        (NTScalar("ah").wrap([1]), "short[]"),
        (NTEnum().wrap({"index": 0, "choices": ["A"]}), "enum"),
        (NTNDArray().wrap(np.zeros((2, 2))), "union"),
        (NTTable([("name", "s"), ("n", "i")]).wrap([{"name": "x", "n": 1}]), {"name": "string[]", "n": "int[]"}),
    ],
)
def test_the_types_of_normative_types(normative: Any, kind: object) -> None:
    types = types_of(spec_of(normative))
    assert types["value"] == kind
    assert types["alarm"] == "structure"
    assert list(types) == list(normative.keys())


def test_the_types_of_everything_else() -> None:
    members = [("u", UNION), ("us", ("aU", None, [("i", "i")])), ("v", "v"), ("vs", "av"), ("list", ("aS", None, []))]
    spec = spec_of(Value(Type([*members, ("sub", ("S", None, [("x", "L"), ("flags", "a?")]))])))
    assert types_of(spec) == {
        "u": "union",
        "us": "union[]",
        "v": "any",
        "vs": "any[]",
        "list": "structure[]",
        "sub": "structure",
    }
    assert types_of(spec, "sub.x") == {"value": "ulong"}
    assert types_of(spec, "sub.flags") == {"value": "boolean[]"}


RECORD = NTScalar.buildType(
    "d", display=True, control=True, valueAlarm=True, form=True, extra=[("u", UNION), ("n", "ah"), ("inner", INNER)]
)
FIRST = {
    "value": 1.0,
    "alarm": {"severity": 1, "message": "LOW"},
    "timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 6},
    "display": {"units": "mm", "form": {"index": 1, "choices": ["a", "b"]}},
    "u": ("s", "x"),
    "n": [1, 2],
    "inner": {"q": 1},
}
UPDATES: list[dict[str, Any]] = [
    {"value": 2.0, "timeStamp.nanoseconds": 7},
    {"value": 3.0, "timeStamp.nanoseconds": 8},
    {"alarm": {"severity": 0, "status": 0, "message": ""}},
    {"alarm.severity": 2, "alarm.message": "HIGH", "timeStamp.secondsPastEpoch": 6},
    {"display.form.index": 0, "display.units": "m"},
    {"display.form.choices": ["c"]},
    {"u": ("i", 4)},
    {"u": ("st", {"q": 2, "u": ("b", 3)})},
    {"n": [], "inner.q": 9},
    {},
    {"valueAlarm.active": True, "control": {"limitLow": -1.0}},
]


def after(spec: Type, *updates: dict[str, Any]) -> Any:
    """Returns the value after updates as p4p does: whole, with the fields of the last update marked."""
    value = Value(spec, {})
    for update in updates:
        value.unmark()
        for name, held in update.items():
            value[name] = held
    return value


def test_an_update_is_merged_into_the_previous_structure() -> None:
    updates = [FIRST, *UPDATES, *UPDATES]  # the second time with cached plans
    values = [after(RECORD, *updates[: index + 1]) for index in range(len(updates))]
    assert [value.changed() for value in values] == [bool(update) for update in updates]
    reader = UpdateReader(spec_of(values[0]))
    structures = [reader.read(value) for value in values]
    assert [plain(structure) for structure in structures] == [read(value) for value in values]
    assert [list(structure) for structure in structures] == [list(structures[0])] * len(updates)


def test_only_changed_fields_are_read() -> None:
    update = {"value": 2.0, "timeStamp.nanoseconds": 7}
    reader = UpdateReader(RECORD.aspy())
    first, second = reader.read(after(RECORD, FIRST)), reader.read(after(RECORD, FIRST, update))
    assert {name for name in first if first[name] is not second[name]} == {"value", "timeStamp"}


@pytest.mark.parametrize("also", [{}, {"value": 3.0}, {"alarm.severity": 2}])
def test_an_update_marked_as_a_whole_is_read_whole(also: dict[str, Any]) -> None:
    reader = UpdateReader(RECORD.aspy())
    reader.read(after(RECORD, FIRST))
    value = after(RECORD, FIRST, {"value": 2.0, "display.units": "m", "n": [3]}, {})
    value.mark()  # as servers do that send the whole value
    for name, held in also.items():
        value[name] = held
    assert value.changedSet() == set(also)
    assert plain(reader.read(value)) == read(value)
    assert read(value)["display"]["units"] == "m"


def test_the_number_of_cached_plans_is_bounded() -> None:
    names = [f"f{number}" for number in range(100)]
    many = Type([(name, "i") for name in names])
    reader = UpdateReader(many.aspy())
    reader.read(after(many, {}))
    for name in names:
        assert reader.read(after(many, {name: 2}))[name] == 2
    assert len(reader._plans) <= 64


def test_each_value_is_read_by_its_own_type() -> None:
    specs: list[Any] = ["i", "d", "ad", UNION, INNER, ("S", "x", [("q", "d")]), ("S", "y", [("q", "d")])]
    types = [Type([("value", spec)], id="epics:nt/NTScalar:1.0") for spec in specs]
    known = ValueReaderCache()
    for _ in range(2):  # the second time from the cache
        for kind in types:
            value = Value(kind, {})
            structure, fields, spec = known.read(value)
            assert plain(structure) == read(value)
            assert (fields, spec) == (types_of(kind.aspy()), kind.aspy())
    assert len(known._readers) == len(types)


def test_the_number_of_cached_types_is_bounded() -> None:
    known = ValueReaderCache()
    for number in range(1500):
        known.read(Value(Type([(f"f{number}", "i")]), {}))
    assert len(known._readers) <= 1000


BAD = b"20 \xb0C"  # Latin-1
SHOWN = "20 \ufffdC"
TEXT_UNION = ("U", None, [("d", "d"), ("s", "s"), ("as", "as"), ("st", ("S", None, [("t", "s")]))])


@pytest.mark.parametrize(
    ("spec", "held", "expected"),
    [
        ("s", BAD, SHOWN),
        ("as", ["é", BAD, '"\\"\n'], ["é", SHOWN, '"\\"\n']),
        (("S", None, [("t", "s"), ("x", "d")]), {"t": BAD, "x": 1.5}, {"t": SHOWN, "x": 1.5}),
        (("aS", None, [("t", "s")]), [{"t": "a"}, {"t": BAD}], [{"t": "a"}, {"t": SHOWN}]),
        ("v", BAD, {"": SHOWN}),
        ("v", ["a", BAD], {"": ["a", SHOWN]}),
        ("av", [1, BAD, ["a", BAD]], [{"": 1}, {"": SHOWN}, {"": ["a", SHOWN]}]),
        (TEXT_UNION, ("s", BAD), {"s": SHOWN}),
        (TEXT_UNION, ("as", ["a", BAD]), {"as": ["a", SHOWN]}),
        (
            ("aU", None, TEXT_UNION[2]),
            [("d", 1.5), ("s", BAD), ("as", [BAD])],
            [{"d": 1.5}, {"s": SHOWN}, {"as": [SHOWN]}],
        ),
    ],
)
def test_texts_that_are_not_utf8_have_replacement_characters(spec: Any, held: Any, expected: Any) -> None:
    value = Value(Type([("f", spec), ("text", "s"), ("array", "ad")]), {"f": held, "text": "µ", "array": [0.5]})
    assert read(value) == {"f": expected, "text": "µ", "array": [0.5]}


def test_updates_with_such_texts_are_read_in_full() -> None:
    value = NTScalar("d", display=True).wrap(1.0)
    reader = UpdateReader(spec_of(value))
    reader.read(value)
    for number, units, shown in (
        (2.0, "um", "um"),
        (3.0, b"\xb5m", "\ufffdm"),
        (4.0, None, "\ufffdm"),
        (5.0, "m", "m"),
    ):
        value.unmark()
        value["value"] = number
        if units is not None:
            value["display.units"] = units
        update = reader.read(value)
        assert (update["value"], update["display"]["units"]) == (number, shown)


def test_an_update_after_one_that_could_not_be_read_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    value = NTScalar("d", display=True).wrap(1.0)
    reader = UpdateReader(spec_of(value))
    reader.read(value)
    value.unmark()
    value["display.units"] = "mm"
    with monkeypatch.context() as broken:
        broken.setattr(reader, "_plan", lambda _: ([("display", boom)], [], "alarm"))
        with pytest.raises(RuntimeError):
            reader.read(value)
    value.unmark()
    value["value"] = 2.0
    update = reader.read(value)
    assert (update["value"], update["display"]["units"]) == (2.0, "mm")


def boom(_value: Any, _path: str) -> Any:
    raise RuntimeError("boom")
