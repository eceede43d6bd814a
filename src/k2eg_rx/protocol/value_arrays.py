"""Lossless numpy arrays of PV values: mixed or oversized numbers become objects, never rounded floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_EXACT = 2**53  # every integer up to here is exact as a float64
_NOT_A_TIME = -(2**63)  # NaT in numpy
_MOST = 2**63 - 1


def array_of(items: Sequence[object]) -> Array:
    """Returns items as a one-dimensional array.

    Its type is boolean, int64, uint64 or float64. Integers mixed with floats become floats if all of them are exact.
    All other items, strings included, are objects.
    """
    kinds = set(map(type, items))
    if kinds <= {float}:
        return np.array(items, dtype=np.float64)
    if kinds == {bool}:
        return np.array(items, dtype=np.bool_)
    if kinds == {int}:
        return _integers(cast("Sequence[int]", items))
    if kinds == {int, float} and all(_is_exact(item) for item in cast("Sequence[float]", items)):
        return np.array(items, dtype=np.float64)
    return objects(items)


def objects(items: Sequence[object]) -> Array:
    """Returns items as an array of objects."""
    array: Array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item  # one by one: numpy would make two dimensions of a list of lists
    return array


def _is_exact(number: float) -> bool:
    return isinstance(number, float) or -_EXACT <= number <= _EXACT


def _integers(items: Sequence[int]) -> Array:
    low, high = min(items), max(items)  # numpy 1 wraps integers that do not fit
    if low >= -(2**63) and high < 2**63:
        return np.array(items, dtype=np.int64)
    if low >= 0 and high < 2**64:
        return np.array(items, dtype=np.uint64)
    return objects(items)


def cell(value: object) -> Any:
    """Returns a value in the form of a frame: with arrays in place of lists, in structures and tables too."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return objects([cell(item) for item in items]) if {dict, list} & set(map(type, items)) else array_of(items)
    if isinstance(value, dict):
        return {name: cell(item) for name, item in cast("dict[str, object]", value).items()}
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    return value


def times(nanoseconds: Sequence[int | None]) -> NDArray[np.datetime64]:
    """Returns times since the Unix epoch as ``datetime64[ns]``; NaT for None and for times after the year 2262."""
    numbers = [_NOT_A_TIME if time is None or not -_MOST <= time <= _MOST else time for time in nanoseconds]
    return np.array(numbers, dtype=np.int64).view("datetime64[ns]")


def with_gaps(items: Sequence[object]) -> Array:
    """Returns items as a one-dimensional array, in which None is NaN if the others are numbers."""
    present = [item for item in items if item is not None]
    if len(present) == len(items):
        return array_of(items)
    numbers = array_of(present)
    if present and numbers.dtype.kind in "iuf":
        return array_of([float("nan") if item is None else item for item in items])
    return objects(items)


def stacked(rows: Sequence[Array | None]) -> Array:
    """Returns arrays of one length as a two-dimensional array, with rows of NaN or None in place of None."""
    present = [row for row in rows if row is not None]
    kinds = {row.dtype for row in present}
    gaps = len(present) < len(rows)
    if len(kinds) == 1 and (not gaps or kinds == {np.dtype(np.float64)}):
        dtype = next(iter(kinds))
    elif all(_fits_floats(row) for row in present):
        dtype = np.dtype(np.float64)
    else:
        dtype = np.dtype(object)
    array: Array = np.full((len(rows), len(present[0])), np.nan if dtype == np.float64 else None if gaps else 0, dtype)
    for place, row in enumerate(rows):
        if row is not None:
            array[place] = row
    return array


def _fits_floats(row: Array) -> bool:
    if row.dtype.kind not in "iu":
        return row.dtype == np.float64
    return row.size == 0 or (int(row.min()) >= -_EXACT and int(row.max()) <= _EXACT)
