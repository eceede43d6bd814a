"""Values of other packages in Python's own types: numpy arrays, pandas tables, values of p4p.

None of these packages is imported: an object of one can only be there when its program has imported the package.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from k2eg_rx.protocol.type_rules import TypeMismatch

_PLAIN: frozenset[type] = frozenset({bool, int, float, str, type(None)})
# numpy's kinds of elements that become other values in Python, or lose digits: durations and times, complex, raw bytes
_INEXACT_KINDS = {"m": "durations", "M": "times", "c": "complex numbers", "V": "raw records"}


def plain(value: Any) -> Any:
    """Returns a value in Python's own types.

    Arrays become lists, a DataFrame a map from column to list without its index. A p4p ``Value`` becomes a map of the
    fields that are marked as changed; of a Normative Type only ``value``, because a put does not write the others.
    Bytes become a list of numbers, because the protocol has no binary type: the deployed gateway empties an array that
    is put as binary.

    Raises:
        TypeMismatch: The value has no exact form in Python's own types.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, bytes | bytearray):
        return list(value)
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        # the check of all types first is much faster for arrays of a million numbers
        return list(items) if _PLAIN.issuperset(map(type, items)) else [plain(item) for item in items]
    if _is(value, "p4p", "Value"):
        return _p4p_fields(value)
    if _is(value, "pandas", "DataFrame"):
        return columns(value)
    return _array(value) if hasattr(value, "tolist") else value


def columns(value: Any) -> Any:
    """Returns a DataFrame as a map from column to list; any other value as it is.

    Raises:
        TypeMismatch: A column's name is no text or is there twice, or a column has no exact form.
    """
    if not _is(value, "pandas", "DataFrame"):
        return value
    names = list(value.columns)
    wrong = [name for name in names if not isinstance(name, str) or names.count(name) > 1]
    if wrong:
        raise TypeMismatch(f"has a column {wrong[0]!r}; names of columns must be texts, each of them once")
    return {name: plain(column) for name, column in value.items()}


def _is(value: object, package: str, name: str) -> bool:
    """Whether a value is of a class of a package, which need not be installed."""
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _array(value: Any) -> Any:
    """Returns an array or scalar of numpy or a Series of pandas as a list or a number."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in _INEXACT_KINDS and not getattr(value.dtype, "names", None):  # with names, the elements are rows
        raise TypeMismatch(f"holds {_INEXACT_KINDS[kind]}, which PVs do not have; convert them to numbers or texts")
    listed = value.tolist()
    return _exact(listed) if isinstance(listed, type(value)) else plain(listed)


def _exact(number: Any) -> float:
    """Returns a number that numpy has no Python type for, a ``longdouble``, as a float."""
    as_float = float(number)
    if as_float != number and not math.isnan(as_float):
        raise TypeMismatch("cannot be held exactly by a double")
    return as_float


def _p4p_fields(value: Any) -> dict[str, Any]:
    """Returns the fields of a p4p Value that a put writes."""
    if not str(value.getID()).startswith("epics:nt/"):
        fields = _changed(value)
    elif value.changed("value"):
        fields = {"value": _changed(value)["value"]}
    else:
        fields = {}
    if not fields:
        raise TypeMismatch("has no field to write: p4p marks fields as changed when they are set, and none is marked")
    return fields


def _changed(value: Any) -> dict[str, Any]:
    """Returns the fields of a p4p structure that are marked as changed."""
    types = dict(value.type().aspy()[2])
    changed: dict[str, Any] = {}
    for name in filter(value.changed, value.keys()):
        kind = types[name] if isinstance(types[name], str) else types[name][0]
        if kind in ("U", "v", "aU", "av", "aS"):
            raise TypeMismatch(f"has in {name!r} a union or an array of structures; put a map of the fields instead")
        changed[name] = _changed(value[name]) if kind == "S" else plain(value[name])
    return changed
