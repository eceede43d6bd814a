"""Values of a column in the parts in which they were decoded, and their joining: numbers, enums, texts, anything else.

No number is rounded: numbers of several types become floats where all of them are exact, and else objects.

Thread safety: immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.protocol.arrays import with_arrays
from k2eg_rx.protocol.fields import choice_of
from k2eg_rx.protocol.value_arrays import array_of, cell, objects, stacked

Array: TypeAlias = NDArray[Any]
Labels: TypeAlias = tuple[str, ...] | None

_EXACT = 2**53  # every integer up to here is exact as a float64
_INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Numbers, or waveforms of one length as rows."""

    array: Array

    def cut(self, part: slice) -> Numbers:
        """Returns some of them."""
        return Numbers(self.array[part])


@dataclass(frozen=True, slots=True, eq=False)
class Enums:
    """Indices of an enum and its choices, of any type."""

    index: Array
    choices: Sequence[object]

    def cut(self, part: slice) -> Enums:
        """Returns some of them."""
        return Enums(self.index[part], self.choices)

    def label(self, index: int) -> str:
        """Returns the label of an index; the index as text if it has none."""
        label = self.choices[index] if 0 <= index < len(self.choices) else None
        return label if isinstance(label, str) else str(index)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Texts, waveforms of several lengths, tables, structures, or values of several types."""

    items: Sequence[object]

    def cut(self, part: slice) -> Cells:
        """Returns some of them."""
        return Cells(self.items[part])


Values: TypeAlias = Numbers | Enums | Cells


def numbers_of(array: Array) -> Numbers:
    """Returns numbers of any width as those that Python has: 64 bits."""
    kind = array.dtype.kind
    if kind == "u" and (array.dtype.itemsize < 8 or array.size == 0 or int(array.max()) <= _INT64[1]):
        return Numbers(array.astype(np.int64))
    return Numbers(array.astype({"i": np.int64, "f": np.float64}.get(kind, array.dtype), copy=False))


def values_of(items: Sequence[object]) -> Values:
    """Returns values as a gateway sends them."""
    kinds = set(map(type, items))
    if kinds <= {bool, int, float}:
        return Numbers(array_of(items))
    if kinds == {list} and (rows := _rows([_cell(item) for item in items])) is not None:
        return Numbers(rows)
    choices = [choice_of({"value": item}) for item in items] if kinds == {dict} else [None]
    known = [choice for choice in choices if choice is not None and _INT64[0] <= choice[0] <= _INT64[1]]
    if len(known) < len(items):
        return Cells(items)
    runs = [(labels, list(run)) for labels, run in groupby(known, lambda choice: choice[1])]
    return _merged([Enums(np.array([index for index, _ in run], np.int64), labels) for labels, run in runs])


def same_values(one: Values, other: Values) -> bool:
    """Whether values are equal, of one type, and in one form; NaN equals itself."""
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        first, second = one.array, other.array
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(one, Enums) and isinstance(other, Enums):
        return one.index.tolist() == other.index.tolist() and one.choices == other.choices
    return False


def column_values(parts: Sequence[Values], *, as_floats: bool) -> tuple[Array, Labels]:
    """Returns the values of a column, and the labels that they are the indices of, if they are.

    Args:
        parts: The values in order.
        as_floats: Whether integers become floats if all of them are exact.
    """
    enums = [part for part in parts if isinstance(part, Enums)]
    if len(enums) == len(parts):
        merged = _merged(enums)
        return merged.index, tuple(merged.label(index) for index in range(len(merged.choices)))
    arrays = [part.array for part in parts if isinstance(part, Numbers)]
    if len(arrays) == len(parts) and len({array.shape[1:] for array in arrays}) == 1:
        return _joined(arrays, as_floats=as_floats), None
    items = [item for part in parts for item in _items(part)]
    if set(map(type, items)) == {str}:
        places: dict[str, int] = {}
        index = [places.setdefault(text, len(places)) for text in cast("list[str]", items)]
        return np.array(index, np.int64), tuple(places)
    cells = [_cell(item) for item in items]
    rows = _rows(cells)
    return (objects(cells) if rows is None else rows), None


def _joined(arrays: Sequence[Array], *, as_floats: bool) -> Array:
    if len({array.dtype for array in arrays}) == 1:
        array = np.concatenate(arrays)
    elif arrays[0].ndim == 1:
        array = array_of([number for part in arrays for number in part.tolist()])
    else:
        array = stacked([row for part in arrays for row in part])
    if not as_floats or array.dtype.kind not in "iu":
        return array
    exact = array.size == 0 or (int(array.min()) >= -_EXACT and int(array.max()) <= _EXACT)
    return array.astype(np.float64) if exact else array


def _merged(enums: Sequence[Enums]) -> Enums:
    """Returns enums as one. Where their choices differ, it has all labels, and the indices are those of the labels."""
    first = enums[0]
    if all(each.choices == first.choices for each in enums):
        return Enums(np.concatenate([each.index for each in enums]), first.choices)
    places: dict[str, int] = {}
    for number in range(len(first.choices)):
        places.setdefault(first.label(number), len(places))
    indices = [
        [places.setdefault(each.label(index), len(places)) for index in cast("list[int]", each.index.tolist())]
        for each in enums
    ]
    return Enums(np.array([place for index in indices for place in index], np.int64), list(places))


def _items(part: Values) -> Sequence[object]:
    if isinstance(part, Cells):
        return part.items
    if isinstance(part, Enums):
        choices = list(part.choices)
        return [{"index": index, "choices": choices} for index in cast("list[int]", part.index.tolist())]
    return part.array.tolist() if part.array.ndim == 1 else list(part.array)


def _cell(value: object) -> Any:
    """Returns a value with its lists of numbers as arrays, that of an image in the type that it names."""
    found: Any = with_arrays(cast("object", value)) if isinstance(value, dict) else None
    return found if hasattr(found, "dtype") else cell(cast("object", value))


def _rows(cells: Sequence[object]) -> Array | None:
    """Returns arrays of one length as rows; None for anything else."""
    arrays = [cast("Array", each) for each in cells if isinstance(each, np.ndarray)]
    if not arrays or len(arrays) < len(cells) or len({array.shape for array in arrays}) > 1:
        return None
    return stacked(arrays)
