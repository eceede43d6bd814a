"""Converts p4p values of all PVAccess types to structures, with fields in the server's order.

`Value.todict` is native and correct, except that it loses the selected member of unions, returns None for some empty
arrays, and fails if a text is not UTF-8. Only those are read here; the selected member of a union is found by trying
(``value["u->member"]``), and the rest in what a value prints.

Of a subscription's updates only changed fields are read: usually value and time, out of some forty fields.

Thread safety: functions are pure; a reader is used by one thread at a time.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import p4p

from k2eg_rx.gateway.epics import pva_printed
from k2eg_rx.gateway.epics.provider import TypeMap
from k2eg_rx.gateway.epics.pv_types import DTYPES
from k2eg_rx.protocol import Structure

# pvData names by p4p.Type letters.
KINDS = {
    "?": "boolean",
    "s": "string",
    "b": "byte",
    "B": "ubyte",
    "h": "short",
    "H": "ushort",
    "i": "int",
    "I": "uint",
    "l": "long",
    "L": "ulong",
    "f": "float",
    "d": "double",
    "v": "any",
    "U": "union",
    "S": "structure",
}
_TABLE = "epics:nt/NTTable:"

# A type as `p4p.Type.aspy` returns it: "d", "ad", ...; ("S", id, [(name, spec), ...]); likewise "aS", "U" and "aU".
Spec = Any
Members = dict[str, Spec]
_FieldReader = Callable[[Any, str], Any]

# p4p returns None for a numeric array that was never set, and for an empty one that is the member of a union.
_EMPTY = {f"a{letter}": np.empty(0, DTYPES[kind]) for letter, kind in KINDS.items() if kind in DTYPES}
_value_class: Any = p4p.Value

_MARSHAL_VERSION = 2  # without references, so that equal types have equal bytes
_MAX_TYPES = 1000  # a site has some dozens
_ABSENT = object()


def spec_of(value: Any) -> Spec:
    """Returns the type of a p4p value."""
    return value.type().aspy()


def _code(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec[0])


def members_of(spec: Spec) -> Members:
    """Returns the fields of a structure, or the members of a union, by name."""
    return dict(spec[2])


def is_enum(spec: Spec) -> bool:
    """Returns whether a type is that of an enum's value: index and choices."""
    return _code(spec) == "S" and {"index", "choices"} <= members_of(spec).keys()


def is_table(spec: Spec) -> bool:
    """Returns whether a PV's type is NTTable, whose ``value`` has a field per column."""
    return isinstance(spec, tuple) and str(cast("tuple[Any, ...]", spec)[1]).startswith(_TABLE)


def kind_of(spec: Spec) -> str:
    """Returns the pvData name of a type."""
    if is_enum(spec):
        return "enum"
    code = _code(spec)
    return KINDS[code[-1]] + ("[]" if len(code) > 1 else "")


def types_of(spec: Spec, path: str = "") -> TypeMap:
    """Returns the types of a PV's fields.

    Args:
        spec: The type of the whole PV.
        path: The path of a selected field; its type is returned as that of ``value``.
    """
    if path:
        for step in path.split("."):
            spec = members_of(spec)[step]
        return {"value": kind_of(spec)}
    types: TypeMap = {name: kind_of(member) for name, member in members_of(spec).items()}
    if is_table(spec):
        types["value"] = {label: kind_of(column) for label, column in members_of(members_of(spec)["value"]).items()}
    return types


def _plain_reader(spec: Spec) -> _FieldReader:
    """Returns a reader for a field."""
    if isinstance(spec, str):
        if spec in _EMPTY:
            return lambda value, path: _EMPTY[spec] if (array := value[path]) is None else array
        return lambda value, path: value[path]
    if spec[0] == "S":
        return lambda value, path: value[path].todict()
    return lambda value, path: [element.todict() for element in value[path]]


def _special_reader(spec: Spec) -> _FieldReader | None:
    """Returns a reader for a field that `Value.todict` converts incorrectly; None if it converts it correctly."""
    match spec:
        case str() if spec in _EMPTY:
            return _plain_reader(spec)
        case "v":
            return lambda value, path: _read_variant(value[path])
        case "av":
            return lambda value, path: [_read_variant(element) for element in value[path]]
        case ("S", _, _):
            inner = _structure_reader(members_of(spec))
            return inner and (lambda value, path: inner(value[path]))
        case ("aS", _, _):
            inner = _structure_reader(members_of(spec))
            return inner and (lambda value, path: [inner(element) for element in value[path]])
        case ("U", _, _):
            return _union_reader(members_of(spec))
        case ("aU", _, _):
            members = members_of(spec)
            return lambda value, path: _read_unions(value, path, value[path], members)
        case _:
            return None


def _structure_reader(members: Mapping[str, Spec]) -> Callable[[Any], Structure] | None:
    readers = [
        (name, read_field) for name, spec in members.items() if (read_field := _special_reader(spec)) is not None
    ]
    if not readers:
        return None

    def read(value: Any) -> Structure:
        structure: Structure = value.todict()
        for name, read_field in readers:
            structure[name] = read_field(value, name)
        return structure

    return read


def _union_reader(members: Mapping[str, Spec]) -> _FieldReader:
    # Most recently selected member first: it is usually selected again, and a wrong guess costs a C++ exception.
    readers = [(name, _special_reader(spec) or _plain_reader(spec)) for name, spec in members.items()]

    def read(value: Any, path: str) -> Structure:
        for index, (name, read_field) in enumerate(readers):
            selected = f"{path}->{name}"
            if value.get(selected, _ABSENT) is not _ABSENT:
                if index:
                    readers.insert(0, readers.pop(index))
                return {name: read_field(value, selected)}
        return {}

    return read


def _read_unions(value: Any, path: str, held: list[Any], members: Members) -> list[Structure]:
    lines = pva_printed.elements(value, path) if held else []
    read: list[Structure] = []
    for index, (each, line) in enumerate(zip(held, lines, strict=True)):
        element = value[f"{path}[{index}]"] if isinstance(each, list) else each  # structures in arrays are lists there
        read.append(_read_element(element, line, members))
    return read


def _read_element(held: Any, line: str, members: Members) -> Structure:
    """Returns an element of an array of unions: by its selected member, or by "" if that cannot be told."""
    if held is None and "null" in line:
        return {}
    return {pva_printed.selected(line, members) or "": _read_variant(held)[""]}


def _read_carefully(value: Any, members: Members) -> Structure:
    """Returns a value of which a text is not UTF-8, read field by field, which takes several times as long."""
    return {name: _read_field_carefully(value, name, spec) for name, spec in members.items()}


def _read_field_carefully(value: Any, name: str, spec: Spec) -> Any:
    match spec:
        case ("S", _, _):
            return _read_carefully(value[name], members_of(spec))
        case ("aS", _, _):
            return [_read_carefully(element, members_of(spec)) for element in value[name]]
        case _:
            pass
    try:
        return (_special_reader(spec) or _plain_reader(spec))(value, name)
    except UnicodeDecodeError:
        pass
    match spec:
        case ("aU", _, _) | "av":
            members = members_of(spec) if isinstance(spec, tuple) else None
            lines = enumerate(pva_printed.elements(value, name))
            return [_read_element_carefully(value, f"{name}[{index}]", line, members) for index, line in lines]
        case _:
            member, text = pva_printed.text(value, name)
            return text if spec in ("s", "as") else {member: text}


def _read_element_carefully(value: Any, path: str, line: str, members: Members | None) -> Structure:
    text = pva_printed.text_of_element(line)
    held = value[path] if text is None else text
    return {"": _read_variant(held)[""]} if members is None else _read_element(held, line, members)


def _read_variant(held: Any) -> Structure:
    if isinstance(held, _value_class):
        return {"": ValueReader(spec_of(held)).read(held)}
    if isinstance(held, list) and held and isinstance(held[0], _value_class):
        elements = cast("list[Any]", held)
        reader = ValueReader(spec_of(elements[0]))
        return {"": [reader.read(element) for element in elements]}
    return {"": held}


class ValueReader:
    """Reads the values of one type. The type of a PV may change at each connection."""

    def __init__(self, spec: Spec) -> None:
        self._members = members_of(spec)
        self._read = _structure_reader(self._members)

    def read(self, value: Any) -> Structure:
        """Returns a value as an independent structure, which later updates do not change."""
        try:
            return self._read(value) if self._read is not None else value.todict()
        except UnicodeDecodeError:
            return _read_carefully(value, self._members)


class ValueReaderCache:
    """Reads values of any type, such as the results of gets; creates a reader once per type.

    Thread safety: belongs to one thread.
    """

    def __init__(self) -> None:
        self._readers: dict[bytes, tuple[ValueReader, TypeMap]] = {}

    def read(self, value: Any) -> tuple[Structure, TypeMap, Spec]:
        """Returns a value as an independent structure, the types of its fields, and its type."""
        spec = spec_of(value)
        key = marshal.dumps(spec, _MARSHAL_VERSION)  # far cheaper than creating a reader
        if key not in self._readers:
            if len(self._readers) >= _MAX_TYPES:
                self._readers.clear()
            self._readers[key] = ValueReader(spec), types_of(spec)
        reader, types = self._readers[key]
        return reader.read(value), types, spec


# What to read for an update: fields to read whole, changed members of structures of scalars, and the name of a field
# that did not change, if there is one.
_Plan = tuple[list[tuple[str, _FieldReader]], list[tuple[str, list[tuple[str, str]]]], str | None]

_MAX_PLANS = 64  # per PV; its updates usually change the same fields


class UpdateReader:
    """Reads the updates of one connection of a subscription; it must be given all of them, in order.

    p4p marks the fields that an update carries and keeps the others as they were. Unchanged parts of the previous
    structure are shared with the next one, because structures are never modified.
    """

    def __init__(self, spec: Spec) -> None:
        self._members = members_of(spec)
        self._whole = ValueReader(spec)
        self._plans: dict[frozenset[str], _Plan] = {}
        self._last: Structure | None = None

    def read(self, value: Any) -> Structure:
        """Returns the PV's whole value after an update."""
        last, self._last = self._last, None  # until this one is read: if that fails, the next one is read whole
        fields, parts, unchanged = self._plan(frozenset(value.changedSet()))
        # A server may mark the whole value; the set does not show it, but then every field counts as changed.
        if last is None or (unchanged is not None and value.changed(unchanged)):
            return self._read_whole(value)
        structure = last.copy()
        try:
            for name, read_field in fields:
                structure[name] = read_field(value, name)
            for name, members in parts:
                structure[name] = part = structure[name].copy()
                for member, path in members:
                    part[member] = value[path]
        except UnicodeDecodeError:
            return self._read_whole(value)
        self._last = structure
        return structure

    def _read_whole(self, value: Any) -> Structure:
        self._last = structure = self._whole.read(value)
        return structure

    def _plan(self, marked: frozenset[str]) -> _Plan:
        """Returns the cached plan for a set of changed fields."""
        try:
            return self._plans[marked]
        except KeyError:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[marked] = _new_plan(self._members, marked)
            return plan


def _new_plan(members: Members, marked: frozenset[str]) -> _Plan:
    tops = {path.partition(".")[0] for path in marked}
    fields: list[tuple[str, _FieldReader]] = []
    parts: list[tuple[str, list[tuple[str, str]]]] = []
    for top in sorted(tops):
        spec = members[top]
        paths = [path for path in marked if path.partition(".")[0] == top]
        scalars = _scalars(spec)
        if all(path.partition(".")[2] in scalars for path in paths):
            parts.append((top, [(path.partition(".")[2], path) for path in paths]))
        else:
            fields.append((top, _special_reader(spec) or _plain_reader(spec)))
    return fields, parts, next((name for name in members if name not in tops), None)


def _scalars(spec: Spec) -> set[str]:
    """Returns the members of a structure that are numbers or strings."""
    if _code(spec) != "S":
        return set()
    return {
        name
        for name, member in members_of(spec).items()
        if isinstance(member, str) and member in KINDS and member != "v"
    }
