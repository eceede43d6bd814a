"""Comparison of two values of a PV within a deadband: numbers, strings, enums, arrays, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from k2eg_rx.protocol import numpy_module

_VECTOR_LENGTH = 64  # elements from which numpy is faster than a loop, conversion of two lists included


class _Kind(Enum):
    NUMBER = "number"
    STRUCTURE = "structure"
    ARRAY = "array"
    OTHER = "other"  # strings, booleans, None: compared for equality


def _kind(value: object) -> _Kind:
    if isinstance(value, bool):
        return _Kind.OTHER
    if isinstance(value, int | float):
        return _Kind.NUMBER
    if isinstance(value, dict):
        return _Kind.STRUCTURE
    return _Kind.ARRAY if isinstance(value, list | tuple) or hasattr(value, "dtype") else _Kind.OTHER


def _plain_scalar(value: Any) -> Any:
    return value.item() if getattr(value, "shape", None) == () else value


@dataclass(frozen=True, slots=True)
class Difference:
    """Smallest difference of numbers that counts: it must exceed both bounds.

    Attributes:
        deadband: Bound in the PV's units.
        relative: Bound as a fraction of the earlier value's magnitude.
    """

    deadband: float
    relative: float

    def between(self, last: Any, new: Any) -> bool:
        """Whether two values differ. NaN equals NaN and differs from any number."""
        if type(last) is float and type(new) is float:  # most PVs: checked first, for speed
            return self._between_numbers(last, new)
        last, new = _plain_scalar(last), _plain_scalar(new)
        kind = _kind(last)
        if kind != _kind(new):
            return True
        match kind:
            case _Kind.NUMBER:
                return self._between_numbers(last, new)
            case _Kind.STRUCTURE:
                return self._between_structures(last, new)
            case _Kind.ARRAY:
                return self._between_arrays(last, new)
            case _Kind.OTHER:
                return type(last) is not type(new) or bool(last != new)

    def _between_numbers(self, last: float, new: float) -> bool:
        if last == new or (last != last and new != new):  # noqa: PLR0124 - NaN, of any float type
            return False
        if not (math.isfinite(last) and math.isfinite(new)):
            return True
        return abs(new - last) > max(self.deadband, self.relative * abs(last))

    def _between_structures(self, last: dict[str, Any], new: dict[str, Any]) -> bool:
        if last.keys() != new.keys():
            return True
        if last.keys() == {"index", "choices"}:  # an enum: the deadband does not apply to its index
            return last != new
        return any(self.between(item, new[name]) for name, item in last.items())

    def _between_arrays(self, last: Sequence[Any], new: Sequence[Any]) -> bool:
        if len(last) != len(new) or getattr(last, "shape", None) != getattr(new, "shape", None):
            return True
        if isinstance(last, list) and last == new:
            return False
        numpy = numpy_module()
        if numpy is not None and (len(last) >= _VECTOR_LENGTH or not isinstance(last, list)):
            arrays = numpy.asarray(last), numpy.asarray(new)
            if all(array.dtype.kind in "iuf" for array in arrays):
                return self._between_vectors(numpy, *arrays)
        return any(self.between(one, other) for one, other in zip(_items(last), _items(new), strict=True))

    def _between_vectors(self, numpy: Any, last: Any, new: Any) -> bool:
        same = (last == new) | ((last != last) & (new != new))  # noqa: PLR0124 - NaN
        if self.deadband == 0 and self.relative == 0:
            return not bool(same.all())
        with numpy.errstate(invalid="ignore"):  # infinity minus infinity: excluded by isfinite below
            apart = numpy.abs(numpy.subtract(new, last, dtype=float))
            within = apart <= numpy.maximum(self.deadband, self.relative * numpy.abs(last.astype(float)))
        within &= numpy.isfinite(last) & numpy.isfinite(new)
        return not bool((same | within).all())


def _items(values: Any) -> Sequence[Any]:
    return values.tolist() if hasattr(values, "tolist") else values
