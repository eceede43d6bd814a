"""Converts a plain Python or numpy value to the fields that a put sends, checked against the PV's type.

The type is what the gateway reported, or else is inferred from the PV as last read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from k2eg_rx.protocol.field_types import (
    ArrayType,
    EnumType,
    FieldType,
    ScalarType,
    StructureType,
    TableType,
)
from k2eg_rx.protocol.plain_values import plain
from k2eg_rx.protocol.structures import Structure
from k2eg_rx.protocol.type_rules import TypeMismatch, shown

_LIMITS = ("display", "control", "valueAlarm")  # the fields of an NTScalar whose numbers are of the value's own type


def _floats(part: object) -> Iterator[float]:
    """Yields the floats in a structure; of each array those among its first 100 elements, because arrays are long."""
    if isinstance(part, float):
        yield part
    elif isinstance(part, dict):
        for item in cast("dict[str, Any]", part).values():
            yield from _floats(item)
    elif isinstance(part, list):
        yield from (item for item in islice(cast("list[Any]", part), 100) if isinstance(item, float))


def _integers(structure: Structure) -> tuple[str, str]:
    """Returns the types of a decoded integer: as the PV's scalar value, and elsewhere or in arrays.

    Some gateways send a whole float as an integer, so that its type may be either, a ``number``. A scalar value counts
    as an integer unless the rest of the structure indicates a float. Elsewhere it counts as a number: arrays of zeros
    are common, and a gateway refuses a float for an integer itself.
    """
    limits = {name: structure[name] for name in _LIMITS if isinstance(structure.get(name), dict)}
    display: Structure = limits.get("display", {})
    form = display.get("format")
    if isinstance(form, str) and form:  # Channel Access: "I12", "F6.0"
        return ("integer", "integer") if form.startswith("I") else ("number", "number")
    if any(number.is_integer() for number in _floats(structure)):
        return "integer", "integer"  # a gateway that sends one whole float as a float sends all of them as floats
    precision = display.get("precision")
    has_decimals = any(True for _ in _floats(limits)) or (isinstance(precision, int) and precision > 0)
    return "number" if has_decimals else "integer", "number"


def _inferred(kind: type, integer: str) -> str:
    """Returns the name of a scalar's type, inferred from the Python type of a decoded value."""
    if kind is int:
        return integer
    return {bool: "boolean", float: "double", str: "string"}.get(kind, "any")


def _array(current: object, reported: object, integer: str) -> ArrayType:
    if isinstance(reported, str):
        return ArrayType(ScalarType(reported.removesuffix("[]")))
    items = cast("list[Any]", current) if isinstance(current, list) else []
    kinds = {_inferred(kind, integer) for kind in set(map(type, items))}
    if "double" in kinds:
        kinds.discard(integer)  # some of the floats are whole
    return ArrayType(ScalarType(kinds.pop() if len(kinds) == 1 else "any"))


def _type(
    current: object, reported: object, integers: tuple[str, str], *, is_table: bool = False, sends_labels: bool = False
) -> FieldType:
    """Returns a field's type as reported, or else inferred from its current value."""
    if isinstance(current, dict) and reported not in ("union", "any"):
        parts = cast("Structure", current)
        inner = cast("Mapping[str, Any]", reported if isinstance(reported, Mapping) else {})
        if is_table:
            return TableType({name: _array(column, inner.get(name), integers[1]) for name, column in parts.items()})
        if reported == "enum" or parts.keys() == {"index", "choices"}:
            return EnumType(tuple(parts.get("choices", ())), sends_labels)
        elsewhere = (integers[1], integers[1])
        return StructureType(
            {name: _type(part, inner.get(name), elsewhere, sends_labels=sends_labels) for name, part in parts.items()}
        )
    if isinstance(current, list) or (isinstance(reported, str) and reported.endswith("[]")):
        return _array(cast("object", current), reported, integers[1])
    return ScalarType(reported if isinstance(reported, str) else _inferred(type(cast("object", current)), integers[0]))


def _names_fields(given: object, whole: StructureType, of_value: FieldType) -> bool:
    """Whether a value is a map of the PV's fields rather than of the parts of its ``value`` field."""
    if not isinstance(given, dict):
        return False
    names = cast("Structure", given)
    if names and names.keys() <= set(of_value.names):
        return isinstance(names.get("value"), dict)  # a table may have a column `value`, which is not a map
    return names.keys() <= whole.fields.keys() or not (of_value.names or of_value.is_open)


def fields_for(
    value: Any, structure: Structure, types: Mapping[str, Any] | None, pv_uri: str, *, sends_labels: bool = False
) -> dict[str, Any]:
    """Returns the fields that a put of a plain value sends.

    Args:
        value: A number, string, boolean, list, tuple, or what `plain` makes one of; for an enum an index or a label;
            for a table a map from column to list, or a list of rows; or a map of the PV's fields.
        structure: The PV as last read.
        types: The pvData types of its fields as the gateway reported them: ``{"value": "short[]"}``, for a table
            ``{"value": {"column": "double[]"}}``. None infers them from the structure, integers with 64 bits.
        pv_uri: The PV, for the error.
        sends_labels: Whether labels of enums are sent as they are, to a gateway that finds their index.

    Raises:
        ValueError: The value does not fit the PV. The text has the PV, its type, the value and the reason.
    """
    reported = types or {}
    integers, has_labels = _integers(structure), "labels" in structure
    fields = {
        name: _type(
            part,
            reported.get(name),
            integers,
            is_table=has_labels and name == "value",
            sends_labels=sends_labels,
        )
        for name, part in structure.items()
    }
    whole = StructureType(fields)
    of_value = fields.get("value", whole)
    is_typed_bytes = isinstance(value, bytes) and isinstance(reported.get("value"), str)
    given: object = value
    try:
        if not is_typed_bytes:  # bytes fit arrays of characters only, if these are known
            given = plain(value)
        if "value" not in fields or _names_fields(given, whole, of_value):
            return whole.convert(given)
        return {"value": of_value.convert(given)}
    except TypeMismatch as error:
        raise ValueError(f"{pv_uri} ({of_value}): cannot put {shown(given)}, which {error}") from None
