"""A plain Python or numpy value into the fields that a put of it sends, checked against the PV's type.

In: the value, the PV as last read, and its types if the gateway told them. Out: a map of fields, or a ValueError
that names the PV, its type and the value. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from k2eg_rx.protocol.field_types import (
    ArrayType,
    EnumType,
    FieldType,
    Refusal,
    ScalarType,
    StructureType,
    TableType,
    shown,
)
from k2eg_rx.protocol.structures import Structure
from k2eg_rx.protocol.values import plain

_LIMITS = ("display", "control", "valueAlarm")  # the fields of an NTScalar whose numbers are of the value's own type


def _floats(part: object) -> Iterator[float]:
    """Yields the floats in a structure; of an array those among the first 100, for arrays are long."""
    if isinstance(part, float):
        yield part
    elif isinstance(part, dict):
        for item in cast("dict[str, Any]", part).values():
            yield from _floats(item)
    elif isinstance(part, list):
        yield from (item for item in islice(cast("list[Any]", part), 100) if isinstance(item, float))


def _integers(structure: Structure) -> tuple[str, str]:
    """Returns what an integer is that a structure has as its value, and what one is elsewhere and in arrays.

    Some gateways send a whole float as an integer, so that it may be either, a ``number``. A single value is taken
    for an integer unless something speaks for a float; elsewhere it has the benefit of the doubt, for arrays of zeros
    are common, and a gateway refuses a float for an integer by itself.
    """
    limits = {name: structure[name] for name in _LIMITS if isinstance(structure.get(name), dict)}
    display: Structure = limits.get("display", {})
    form = display.get("format")
    if isinstance(form, str) and form:  # Channel Access: "I12", "F6.0"
        return ("integer", "integer") if form.startswith("I") else ("number", "number")
    if any(number.is_integer() for number in _floats(structure)):
        return "integer", "integer"  # a gateway that sends one whole float as a float sends all of them so
    precision = display.get("precision")
    speaks = any(True for _ in _floats(limits)) or (isinstance(precision, int) and precision > 0)
    return "number" if speaks else "integer", "number"


def _inferred(kind: type, integer: str) -> str:
    """Returns the name of a scalar's type, from the type of what is decoded of it."""
    if kind is int:
        return integer
    return {bool: "boolean", float: "double", str: "string"}.get(kind, "any")


def _array(current: object, told: object, integer: str) -> ArrayType:
    if isinstance(told, str):
        return ArrayType(ScalarType(told.removesuffix("[]")))
    items = cast("list[Any]", current) if isinstance(current, list) else []
    kinds = {_inferred(kind, integer) for kind in set(map(type, items))}
    if "double" in kinds:
        kinds.discard(integer)  # whole floats among others
    return ArrayType(ScalarType(kinds.pop() if len(kinds) == 1 else "any"))


def _type(current: object, told: object, integers: tuple[str, str], is_table: bool = False) -> FieldType:
    """Returns a field's type, told or inferred from what it holds now."""
    if isinstance(current, dict) and told not in ("union", "any"):
        parts = cast("Structure", current)
        inner = cast("Mapping[str, Any]", told if isinstance(told, Mapping) else {})
        if is_table:
            return TableType({name: _array(column, inner.get(name), integers[1]) for name, column in parts.items()})
        if told == "enum" or parts.keys() == {"index", "choices"}:
            return EnumType(tuple(parts.get("choices", ())))
        elsewhere = (integers[1], integers[1])
        return StructureType({name: _type(part, inner.get(name), elsewhere) for name, part in parts.items()})
    if isinstance(current, list) or (isinstance(told, str) and told.endswith("[]")):
        return _array(cast("object", current), told, integers[1])
    return ScalarType(told if isinstance(told, str) else _inferred(type(cast("object", current)), integers[0]))


def _names_fields(given: object, whole: StructureType, of_value: FieldType) -> bool:
    """Whether a value is a map of the PV's fields, rather than of the parts that its ``value`` is made of."""
    if not isinstance(given, dict):
        return False
    names = cast("Structure", given)
    if names and names.keys() <= set(of_value.names):
        return isinstance(names.get("value"), dict)  # a table may have a column of that name, but no map in it
    return names.keys() <= whole.fields.keys() or not (of_value.names or of_value.is_open)


def fields_for(value: Any, structure: Structure, types: Mapping[str, Any] | None, pv_uri: str) -> dict[str, Any]:
    """Returns the fields that a put of a plain value sends.

    Args:
        value: A number, string, boolean, list, tuple, numpy array or scalar; for an enum an index or a label; for a
            table a map from column to list; or a map of the PV's fields.
        structure: The PV as last read.
        types: The pvData types of its fields if the gateway told them: ``{"value": "short[]"}``, of a table
            ``{"value": {"column": "double[]"}}``. Else they are inferred from the structure, integers then of 64 bits.
        pv_uri: The PV, for the error.

    Raises:
        ValueError: The value does not fit the PV. The text names the PV, its type, the value, and what is wrong.
    """
    told = types or {}
    integers, has_labels = _integers(structure), "labels" in structure
    fields = {
        name: _type(part, told.get(name), integers, is_table=has_labels and name == "value")
        for name, part in structure.items()
    }
    whole = StructureType(fields)
    of_value = fields.get("value", whole)
    given: object = plain(value)
    try:
        if "value" not in fields or _names_fields(given, whole, of_value):
            return whole.convert(given)
        return {"value": of_value.convert(given)}
    except Refusal as refused:
        raise ValueError(f"{pv_uri} ({of_value}): cannot put {shown(given)}: {refused}") from None
