"""The types of a PV's fields, and what a plain value becomes in one of them.

In: values of Python's own types. Out: what goes into a put; or a `Refusal`, whose text says what is wrong. Pure; any
thread.

It is strict because gateways are not: the deployed one sets an enum to 0 for a label and empties an array for a
scalar, and reports success.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

_FLOAT_MAX = 3.4028234663852886e38  # the largest finite binary32

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80  # a line of an error's text


def shown(value: object) -> str:
    """Returns a value for an error's text: as Python writes it, long ones shortened."""
    return _shortened.repr(value)


class Refusal(Exception):
    """Why a value does not fit; the text of it."""


def _needed(what: str, value: object) -> Refusal:
    name = type(value).__name__
    return Refusal(f"{what} is needed, not {'an' if name[0] in 'aeiou' else 'a'} {name}")


def _boolean(value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise Refusal("True or False is needed")


def _integer(low: int, high: int, value: Any) -> int:
    """An integer within its range; a bool is 0 or 1, a float has to be whole."""
    if isinstance(value, float):
        if not value.is_integer():
            raise Refusal("an integer is needed, and this is not whole")
    elif not isinstance(value, int):
        raise _needed("an integer", value)
    if not low <= value <= high:
        raise Refusal(f"out of range: {low} to {high}")
    return int(value)


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _needed("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise Refusal("out of range of a double") from None


def _single(value: Any) -> float:
    number = _double(value)
    if _FLOAT_MAX < abs(number) < float("inf"):
        raise Refusal("out of range of a 32-bit float")
    return number


def _number(value: Any) -> int | float:
    """A number for what may be an integer or a float: a whole one as an integer, which either takes."""
    number = _double(value)
    return int(value) if number.is_integer() and _LONGEST[0] <= value <= _LONGEST[1] else number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _needed("a string", value)
    return value


_LONGEST = (-(2**63), 2**64 - 1)  # what MessagePack can carry
_BITS = {"byte": 8, "short": 16, "int": 32, "long": 64}
_RANGES = {
    **{name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in _BITS.items()},
    **{f"u{name}": (0, 2**bits - 1) for name, bits in _BITS.items()},
    "integer": _LONGEST,
}

# By the names of pvData's scalar types. "integer" and "number" are what an integer on the wire may be where no type is
# told: certainly one, or possibly a float.
_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "string": _string,
    "double": _double,
    "float": _single,
    "number": _number,
} | {name: partial(_integer, low, high) for name, (low, high) in _RANGES.items()}


class FieldType(Protocol):
    """What a field holds."""

    @property
    def names(self) -> Sequence[str]:
        """The names of its parts, for what is put as a map; empty for all else."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it takes anything, for its type says too little."""
        ...

    def convert(self, value: Any) -> Any:
        """Returns what is sent for a value. Raises `Refusal`."""
        ...


@dataclass(frozen=True, slots=True)
class ScalarType:
    """One value of a type in `_SCALARS`; a value of another type (a union) is left to the gateway."""

    type: str
    names: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        return self.type not in _SCALARS

    def __str__(self) -> str:
        return self.type

    def convert(self, value: Any) -> Any:
        if value is None:
            raise Refusal("EPICS has no None")
        return value if self.is_open else _SCALARS[self.type](value)


@dataclass(frozen=True, slots=True)
class ArrayType:
    """Any number of values of one type."""

    element: ScalarType
    names: Sequence[str] = ()
    is_open: bool = False

    def __str__(self) -> str:
        return f"array of {self.element}"

    def convert(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _needed("a list or an array", value)
        converted: list[Any] = []
        for place, item in enumerate(cast("list[Any]", value)):
            try:
                converted.append(self.element.convert(item))
            except Refusal as refused:
                raise Refusal(f"element {place}, {shown(item)}: {refused}") from None
        return converted


@dataclass(frozen=True, slots=True)
class EnumType:
    """An NTEnum's value. It is always sent as a map with the index: gateways take anything else for 0."""

    choices: Sequence[str]
    names: Sequence[str] = ("index", "choices")
    is_open: bool = False

    def __str__(self) -> str:
        return f"enum of {', '.join(map(str, self.choices))}"

    def convert(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            if "index" not in fields or not fields.keys() <= set(self.names):
                raise Refusal("an index or a label is needed")
            if fields.get("choices", list(self.choices)) != list(self.choices):
                raise Refusal("its labels cannot be changed by a plain value")
            return self.convert(fields["index"])
        if isinstance(value, str):
            if value not in self.choices:
                raise Refusal("no such label")
            return {"index": self.choices.index(value)}
        # a server may hide its labels, and then every index is as good as another
        return {"index": _integer(0, len(self.choices) - 1 if self.choices else _RANGES["int"][1], value)}


@dataclass(frozen=True, slots=True)
class TableType:
    """An NTTable's value: columns of one length, all of which have to be given."""

    columns: Mapping[str, ArrayType]
    is_open: bool = False

    @property
    def names(self) -> Sequence[str]:
        return list(self.columns)

    def __str__(self) -> str:
        return f"table of {', '.join(self.columns)}"

    def convert(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _needed("a map from column to list", value)
        given = cast("dict[str, Any]", value)
        if given.keys() != self.columns.keys():
            wrong = [f"no {name}" for name in self.columns if name not in given]
            wrong += [f"an unknown {name}" for name in given if name not in self.columns]
            raise Refusal(f"all columns are needed; there is {', '.join(wrong)}")
        converted = {name: _part(name, column, given[name]) for name, column in self.columns.items()}
        lengths = {name: len(column) for name, column in converted.items()}
        if len(set(lengths.values())) > 1:
            raise Refusal(f"the columns differ in length: {lengths}")
        return converted


@dataclass(frozen=True, slots=True)
class StructureType:
    """Fields by name, some of which are enough."""

    fields: Mapping[str, FieldType]
    is_open: bool = False

    @property
    def names(self) -> Sequence[str]:
        return list(self.fields)

    def __str__(self) -> str:
        return f"structure of {', '.join(self.fields)}"

    def convert(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _needed("a map of fields", value)
        given = cast("dict[str, Any]", value)
        unknown = [name for name in given if name not in self.fields]
        if unknown or not given:
            raise Refusal(f"{f'no field {unknown[0]!r}' if unknown else 'no field given'}; it is a {self}")
        return {name: _part(name, self.fields[name], item) for name, item in given.items()}


def _part(name: str, of: FieldType, value: Any) -> Any:
    try:
        return of.convert(value)
    except Refusal as refused:
        raise Refusal(f"{name!r} ({of}): {refused}") from None
