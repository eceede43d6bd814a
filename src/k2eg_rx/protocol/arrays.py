"""Arrays of PVs: numpy arrays where numpy is installed, lists otherwise.

numpy is imported on the first call of `numpy_module`, never by importing this module.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

# The union of an NTNDArray: the name of the selected field gives the type (EPICS V4 Normative Types, NTNDArray).
_UNION_TYPES: Mapping[str, str] = {
    "booleanValue": "bool",
    "byteValue": "int8",
    "shortValue": "int16",
    "intValue": "int32",
    "longValue": "int64",
    "ubyteValue": "uint8",
    "ushortValue": "uint16",
    "uintValue": "uint32",
    "ulongValue": "uint64",
    "floatValue": "float32",
    "doubleValue": "float64",
}
_NUMBERS = (int, float)  # bool is an int
_NUMBER_KINDS = "biuf"  # numpy's boolean, integer, unsigned, float


@functools.cache
def numpy_module() -> Any:
    """Returns the numpy module, or None where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def _array(items: Sequence[Any], dtype: str | None = None) -> Any:
    """Returns numbers as a numpy array; a list of anything else as it is."""
    numpy = numpy_module()
    if numpy is None or (items and not isinstance(items[0], _NUMBERS)):
        return items
    try:
        array = numpy.asarray(items, dtype)
    except (ValueError, TypeError, OverflowError):  # starts with numbers and continues with something else
        return items
    return array if array.dtype.kind in _NUMBER_KINDS else items


def with_arrays(value: Any) -> Any:
    """Returns a value with its lists of numbers as numpy arrays, in table columns, structures and unions too.

    Lists of strings and of structures stay lists.
    """
    if isinstance(value, list):
        return _array(cast("list[Any]", value))
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    if len(fields) == 1:
        selected, items = next(iter(fields.items()))
        if selected in _UNION_TYPES and isinstance(items, list):
            return _array(cast("list[Any]", items), _UNION_TYPES[selected])
    return {name: with_arrays(item) for name, item in fields.items()}


def _shape(structure: Mapping[str, Any]) -> list[int]:
    """Returns the shape of an NTNDArray, rows first; its `dimension` field has the fastest index (x) first."""
    match structure.get("dimension"):
        case [{"size": int()}, *_] as dimensions:
            sizes = [dimension.get("size") for dimension in cast("list[dict[str, Any]]", dimensions)]
            return [size for size in reversed(sizes) if isinstance(size, int)]
        case _:
            return []


def value_with_arrays(structure: Mapping[str, Any]) -> Any:
    """Returns a structure's ``value`` with its arrays as numpy arrays, that of an NTNDArray in its shape.

    An image whose data do not fill its dimensions, such as a compressed one, stays flat.
    """
    value = structure["value"]
    if not isinstance(value, list | dict):  # most updates are scalars: checked first
        return value
    value = with_arrays(cast("Any", value))
    shape = _shape(structure)
    if hasattr(value, "reshape") and shape and math.prod(shape) == value.size:
        return value.reshape(shape)
    return value
