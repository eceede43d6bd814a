"""The types of a PV's fields, and the conversion of plain values for a put.

Scalars, arrays and enums follow `type_rules`. Tables and structures are stricter here than in a gateway, which passes
over fields that it does not know: a plain value has to name known fields, and all columns of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from k2eg_rx.protocol.type_rules import (
    TypeMismatch,
    array_of,
    check_columns,
    check_names,
    checked_choice,
    checked_elements,
    checked_scalar,
    has_rules,
    map_of,
    shown,
)


class FieldType(Protocol):
    """The type of a field."""

    @property
    def names(self) -> Sequence[str]:
        """The names of its parts, if its value is a map; otherwise empty."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it takes any value, because the type is not known or not checked."""
        ...

    def convert(self, value: Any) -> Any:
        """Returns what a put sends for a value. Raises `TypeMismatch`."""
        ...


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A scalar; a type that has no rules, such as a union, is left to the gateway."""

    type: str
    names: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        return not has_rules(self.type)

    def __str__(self) -> str:
        return self.type

    def convert(self, value: Any) -> Any:
        if self.is_open and value is not None:
            return value
        return checked_scalar(self.type, value)


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array of scalars of one type."""

    element: ScalarType
    names: Sequence[str] = ()
    is_open: bool = False

    def __str__(self) -> str:
        return f"array of {self.element}"

    def convert(self, value: Any) -> list[Any]:
        if not self.element.is_open:
            return checked_elements(self.element.type, value)
        elements = array_of(value)
        for index, element in enumerate(elements):
            if element is None:
                raise TypeMismatch(f"has at [{index}] None, which is no value")
        return elements


@dataclass(frozen=True, slots=True)
class EnumType:
    """An NTEnum's value. A put always sends a map with the index: deployed gateways read anything else as 0.

    Attributes:
        choices: The labels, which may have changed meanwhile.
        sends_labels: Whether a put sends a label as it is, for the gateway to find its index when it writes.
        names: The names of its parts.
        is_open: False: its values are checked.
    """

    choices: Sequence[str]
    sends_labels: bool = False
    names: Sequence[str] = ("index", "choices")
    is_open: bool = False

    def __str__(self) -> str:
        return f"enum of {', '.join(map(str, self.choices))}"

    def convert(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            check_names("field", dict.fromkeys(self.names), fields)
            if fields.get("choices", list(self.choices)) != list(self.choices):
                raise TypeMismatch("has other labels; the labels of an enum cannot be changed by a plain value")
        index = checked_choice(cast("object", value), self.choices)
        label = self._label(cast("object", value), index) if self.sends_labels else None
        return {"index": index if label is None else label}

    def _label(self, value: object, index: int) -> str | None:
        """Returns the label that a value names, or None if it names an index."""
        if isinstance(value, dict):  # with the labels, as a get returned it, the label is meant
            fields = cast("dict[str, Any]", value)
            value = self.choices[index] if fields.get("choices") else fields["index"]
        return value if isinstance(value, str) and list(self.choices).count(value) == 1 else None


@dataclass(frozen=True, slots=True)
class TableType:
    """An NTTable's value: columns of equal length, all of which are required."""

    columns: Mapping[str, ArrayType]
    is_open: bool = False

    @property
    def names(self) -> Sequence[str]:
        return list(self.columns)

    def __str__(self) -> str:
        return f"table of {', '.join(self.columns)}"

    def convert(self, value: Any) -> dict[str, Any]:
        given = _columns(value)
        check_names("column", self.columns, given)
        missing = [name for name in self.columns if name not in given]
        if missing:
            raise TypeMismatch(f"lacks {', '.join(missing)}; all columns are required")
        converted = {name: _part(name, column, given[name]) for name, column in self.columns.items()}
        check_columns(self.columns, converted)
        return converted


def _columns(value: object) -> dict[str, Any]:
    """Returns a table given as columns, or as rows: a list of maps that have the same columns, as p4p returns a table.

    Raises:
        TypeMismatch: It is neither.
    """
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    rows: list[Any] = cast("list[Any]", value) if isinstance(value, list) else []
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise TypeMismatch("is not a map from column to array, nor a list of rows")
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise TypeMismatch(f"has in row {number} other columns than in row 0: {', '.join(map(str, row))}")
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True, slots=True)
class StructureType:
    """Fields by name; a put may name some of them."""

    fields: Mapping[str, FieldType]
    is_open: bool = False

    @property
    def names(self) -> Sequence[str]:
        return list(self.fields)

    def __str__(self) -> str:
        return f"structure of {', '.join(self.fields)}"

    def convert(self, value: Any) -> dict[str, Any]:
        given = map_of(value)
        check_names("field", self.fields, given)
        if not given:
            raise TypeMismatch(f"names no field; there are {', '.join(self.fields)}")
        return {name: _part(name, self.fields[name], item) for name, item in given.items()}


def _part(name: str, of: FieldType, value: Any) -> Any:
    try:
        return of.convert(value)
    except TypeMismatch as error:
        raise TypeMismatch(f"has in {name!r} ({of}) {shown(value)}, which {error}") from None
