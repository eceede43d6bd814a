"""Sets the fields of a put in a p4p value, after checking all of them against their types.

Thread safety: functions are pure; they run on p4p's worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from k2eg_rx.gateway.epics.provider import ProviderError
from k2eg_rx.gateway.epics.pv_types import NOTHING_TO_PUT, checked_array, refusal
from k2eg_rx.gateway.epics.pva_values import KINDS, Spec, ValueReader, is_enum, is_table, kind_of, members_of, spec_of
from k2eg_rx.protocol import (
    TypeMismatch,
    array_of,
    check_columns,
    check_names,
    checked_choice,
    checked_scalar,
    map_of,
)

# The element type of an array in a variant union, by the Python type of its first element.
_VARIANT_KINDS: dict[type, str] = {bool: "boolean", int: "long", float: "double", str: "string"}


class _Assignments:
    """The values to set, by dotted path; collected first, so that nothing is set if one of them does not fit."""

    def __init__(self, pv_name: str, current: Any) -> None:
        self._pv_name = pv_name
        self._current = current
        self.values: dict[str, Any] = {}

    def collect(self, spec: Spec, fields: Mapping[str, Any], prefix: str = "") -> None:
        members = members_of(spec)
        for name, item in fields.items():
            if name not in members:
                continue
            path, member = f"{prefix}{name}", members[name]
            try:
                if is_enum(member):
                    self._collect_choice(path, member, item)
                elif kind_of(member) == "structure":
                    inner = map_of(item)
                    if is_table(spec) and name == "value":
                        check_columns(members_of(member), inner)
                    self.collect(member, inner, f"{path}.")
                else:
                    self.values[path] = _checked(member, item)
            except TypeMismatch as error:
                raise refusal(self._pv_name, path, kind_of(member), item, error) from None

    def _collect_choice(self, path: str, spec: Spec, item: object) -> None:
        choices: list[str] = ValueReader(spec).read(self._current[path])["choices"]
        if isinstance(item, Mapping) and "choices" in item:  # as a get returns it
            given = list(map(str, checked_array("string", map_of(cast("object", item))["choices"])))
            if given != choices:
                self.values[f"{path}.choices"] = choices = given
        self.values[f"{path}.index"] = checked_choice(cast("object", item), choices)


def _checked(spec: Spec, item: object) -> Any:
    """Returns an item in the form that p4p accepts for a field of a type."""
    match spec:
        case "v":
            return _variant(item)
        case "av":
            return [_variant(element) for element in array_of(item)]
        case ("S", _, _):
            return _structure(spec, item)
        case ("aS", _, _):
            return [_structure(spec, element) for element in array_of(item)]
        case ("U", _, _):
            return _union(spec, item)
        case ("aU", _, _):
            return [_union(spec, element) for element in array_of(item)]
        case str() as code:
            check: Callable[[str, object], Any] = checked_array if len(code) > 1 else checked_scalar
            return check(KINDS[code[-1]], item)
        case _:
            raise TypeMismatch("cannot be put")


def _structure(spec: Spec, item: object) -> dict[str, Any]:
    members, given = members_of(spec), map_of(item)
    check_names("field", members, given)
    return {name: _checked(members[name], element) for name, element in given.items()}


def _union(spec: Spec, item: object) -> tuple[str, Any]:
    members, given = members_of(spec), list(map_of(item).items())
    if len(given) != 1 or given[0][0] not in members:
        raise TypeMismatch(f"does not select one of {', '.join(members)}")
    name, held = given[0]
    return name, _checked(members[name], held)


def _variant(item: object) -> Any:
    held: Any = item
    if isinstance(item, Mapping) and list(map_of(held)) == [""]:
        held = held[""]
    if isinstance(held, bool | int | float | str):
        return held
    elements = array_of(held)
    first: type | None = type(elements[0]) if elements else None  # pyright: ignore[reportUnknownVariableType]
    kind = _VARIANT_KINDS.get(cast("type", first))
    if kind is None:
        raise TypeMismatch("is neither a scalar nor an array of one kind of scalar")
    return checked_array(kind, elements)


def fill(value: Any, fields: Mapping[str, Any], pv_name: str) -> None:
    """Sets the named fields of a value.

    Args:
        value: The PV's current value; the fields are set and marked in it.
        fields: Values by field name; nested maps for structures. Unknown fields are ignored, as by the deployed
            gateway, unless all are unknown.
        pv_name: The PV name, for errors.

    Raises:
        ProviderError: A value does not fit its field's type, or no field is known.
    """
    if not all(isinstance(name, str) for name in cast("Mapping[object, Any]", fields)):
        raise ProviderError(f"{pv_name}: the names of fields are strings")
    assignments = _Assignments(pv_name, value)
    assignments.collect(spec_of(value), fields)
    if not assignments.values:
        raise ProviderError(NOTHING_TO_PUT)
    for path, item in assignments.values.items():
        value[path] = item
