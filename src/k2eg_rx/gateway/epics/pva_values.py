"""From p4p's values to structures: all of PVAccess's types, in the server's order of fields.

In: `p4p.Value`s, and their types as `p4p.Type.aspy` gives them. Out: `Structure`s with numpy arrays, and `TypeMap`s.
Pure; any thread, but a `ValueReader` is for one at a time.

`Value.todict` is done in C and right for everything but unions, of which it loses which member was selected, and some
empty arrays. Only those are done here; a union by trying which member can be looked up (``value["u->member"]``).

Of a subscription's updates only what has changed is read: mostly the value and its time, out of some forty fields.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import p4p

from k2eg_rx.gateway.epics.provider import TypeMap
from k2eg_rx.gateway.epics.pv_types import DTYPES
from k2eg_rx.protocol import Structure

# The letters of p4p.Type and the names of pvData.
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

# "d", "ad", ...; ("S", id, [(name, spec), ...]), and the same with "aS", "U", "aU".
Spec = Any
Members = dict[str, Spec]
_Step = Callable[[Any, str], Any]

# p4p gives None for an array of numbers that was never set, or is a union's member and empty.
_EMPTY = {f"a{letter}": np.empty(0, DTYPES[kind]) for letter, kind in KINDS.items() if kind in DTYPES}
_value_class: Any = p4p.Value

_WITHOUT_REFERENCES = 2  # marshal's version that writes equal types as equal bytes
_MOST_TYPES = 1000  # a site has some dozens
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
    """Whether a type is that of an enum's value: an index into choices."""
    return _code(spec) == "S" and {"index", "choices"} <= members_of(spec).keys()


def is_table(spec: Spec) -> bool:
    """Whether a PV's type is an NTTable, whose ``value`` has the columns."""
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
        path: The field that was selected from it, if any: then its type is that of ``value``.
    """
    if path:
        for step in path.split("."):
            spec = members_of(spec)[step]
        return {"value": kind_of(spec)}
    types: TypeMap = {name: kind_of(member) for name, member in members_of(spec).items()}
    if is_table(spec):
        types["value"] = {label: kind_of(column) for label, column in members_of(members_of(spec)["value"]).items()}
    return types


def _plain(spec: Spec) -> _Step:
    """Returns how to read a field on its own."""
    if isinstance(spec, str):
        if spec in _EMPTY:
            return lambda value, path: _EMPTY[spec] if (array := value[path]) is None else array
        return lambda value, path: value[path]
    if spec[0] == "S":
        return lambda value, path: value[path].todict()
    return lambda value, path: [element.todict() for element in value[path]]


def _special(spec: Spec) -> _Step | None:
    """Returns how to read a field that `Value.todict` does not read right; None if it does."""
    match spec:
        case str() if spec in _EMPTY:
            return _plain(spec)
        case "v":
            return lambda value, path: _variant(value[path])
        case "av":
            return lambda value, path: [_variant(element) for element in value[path]]
        case ("S", _, _):
            inner = _structure(members_of(spec))
            return inner and (lambda value, path: inner(value[path]))
        case ("aS", _, _):
            inner = _structure(members_of(spec))
            return inner and (lambda value, path: [inner(element) for element in value[path]])
        case ("U", _, _):
            return _union(members_of(spec))
        case ("aU", _, _):
            union = _union(members_of(spec))
            return lambda value, path: [union(value, f"{path}[{index}]") for index in range(len(value[path]))]
        case _:
            return None


def _structure(members: Mapping[str, Spec]) -> Callable[[Any], Structure] | None:
    steps = [(name, step) for name, spec in members.items() if (step := _special(spec)) is not None]
    if not steps:
        return None

    def read(value: Any) -> Structure:
        structure: Structure = value.todict()
        for name, step in steps:
            structure[name] = step(value, name)
        return structure

    return read


def _union(members: Mapping[str, Spec]) -> _Step:
    # The member selected last comes first: it is mostly the same again, and a wrong guess costs an exception in C++.
    steps = [(name, _special(spec) or _plain(spec)) for name, spec in members.items()]

    def read(value: Any, path: str) -> Structure:
        for index, (name, step) in enumerate(steps):
            selected = f"{path}->{name}"
            if value.get(selected, _ABSENT) is not _ABSENT:
                if index:
                    steps.insert(0, steps.pop(index))
                return {name: step(value, selected)}
        return {}

    return read


def _variant(held: Any) -> Structure:
    if isinstance(held, _value_class):
        return {"": ValueReader(spec_of(held)).read(held)}
    if isinstance(held, list) and held and isinstance(held[0], _value_class):
        elements = cast("list[Any]", held)
        reader = ValueReader(spec_of(elements[0]))
        return {"": [reader.read(element) for element in elements]}
    return {"": held}


class ValueReader:
    """Reads the values of one type. Make a new one when the type may have changed: at each connection."""

    def __init__(self, spec: Spec) -> None:
        self._read = _structure(members_of(spec))

    def read(self, value: Any) -> Structure:
        """Returns a value as a structure of its own, which later updates do not change."""
        return self._read(value) if self._read is not None else value.todict()


class ValueReaderCache:
    """Reads values of which each may be of another type, as those of gets; what a type asks for is found out once.

    Belongs to one thread.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[ValueReader, TypeMap]] = {}

    def read(self, value: Any) -> tuple[Structure, TypeMap, Spec]:
        """Returns a value as a structure of its own, the types of its fields, and its type."""
        spec = spec_of(value)
        key = marshal.dumps(spec, _WITHOUT_REFERENCES)  # much quicker than what it saves
        if key not in self._known:
            if len(self._known) >= _MOST_TYPES:
                self._known.clear()
            self._known[key] = ValueReader(spec), types_of(spec)
        reader, types = self._known[key]
        return reader.read(value), types, spec


# What to read for an update: the fields that are read whole, and of structures of scalars the members that changed. At
# last a field that has not, if there is one.
_Plan = tuple[list[tuple[str, _Step]], list[tuple[str, list[tuple[str, str]]]], str | None]

_MOST_PLANS = 64  # for one PV, whose updates mostly change the same fields


class UpdateReader:
    """Reads the updates of one subscription while it is connected, all of them and in order.

    The library keeps the fields that an update does not carry as they were, and marks those that it does. What was read
    before is part of the next structure too: nobody changes structures.
    """

    def __init__(self, spec: Spec) -> None:
        self._members = members_of(spec)
        self._whole = ValueReader(spec)
        self._plans: dict[frozenset[str], _Plan] = {}
        self._last: Structure | None = None

    def read(self, value: Any) -> Structure:
        """Returns the PV's whole value, after the update of which this is the value."""
        last = self._last
        fields, parts, other = self._plan(frozenset(value.changedSet()))
        # A server may mark the value as a whole. That is not in the set, but then every field counts as changed.
        if last is None or (other is not None and value.changed(other)):
            self._last = structure = self._whole.read(value)
            return structure
        structure = last.copy()
        for name, step in fields:
            structure[name] = step(value, name)
        for name, members in parts:
            structure[name] = part = structure[name].copy()
            for member, path in members:
                part[member] = value[path]
        self._last = structure
        return structure

    def _plan(self, marked: frozenset[str]) -> _Plan:
        """What to read for these marks."""
        try:
            return self._plans[marked]
        except KeyError:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[marked] = _plan(self._members, marked)
            return plan


def _plan(members: Members, marked: frozenset[str]) -> _Plan:
    tops = {path.partition(".")[0] for path in marked}
    fields: list[tuple[str, _Step]] = []
    parts: list[tuple[str, list[tuple[str, str]]]] = []
    for top in sorted(tops):
        spec = members[top]
        paths = [path for path in marked if path.partition(".")[0] == top]
        scalars = _scalars(spec)
        if all(path.partition(".")[2] in scalars for path in paths):
            parts.append((top, [(path.partition(".")[2], path) for path in paths]))
        else:
            fields.append((top, _special(spec) or _plain(spec)))
    return fields, parts, next((name for name in members if name not in tops), None)


def _scalars(spec: Spec) -> set[str]:
    """The members of a structure that are single numbers or strings."""
    if _code(spec) != "S":
        return set()
    return {
        name
        for name, member in members_of(spec).items()
        if isinstance(member, str) and member in KINDS and member != "v"
    }
