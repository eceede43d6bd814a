"""What may be put into a PV of which type: nothing that would not read back as given.

In: a type by its EPICS pvData name, and plain Python out of MessagePack. Out: what the EPICS libraries take, or a
`TypeMismatch` that says why not. Pure; any thread.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.gateway.epics.provider import ProviderError

# The deployed gateway's words, which its clients may look for.
NOTHING_TO_PUT = "No fields to update in the provided Msgpack object"

# pvData's numeric types (pvData Reference, "Scalar types") and how numpy calls them.
DTYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "byte": np.dtype(np.int8),
    "ubyte": np.dtype(np.uint8),
    "short": np.dtype(np.int16),
    "ushort": np.dtype(np.uint16),
    "int": np.dtype(np.int32),
    "uint": np.dtype(np.uint32),
    "long": np.dtype(np.int64),
    "ulong": np.dtype(np.uint64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
_INTEGERS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for name, dtype in DTYPES.items() if dtype.kind in "iu"
}
_LARGEST = {name: float(np.finfo(DTYPES[name]).max) for name in ("float", "double")}
_EXACT = {name: 2 ** (np.finfo(DTYPES[name]).nmant + 1) for name in _LARGEST}  # up to here each integer is a float
_CHARACTERS = ("byte", "ubyte")  # arrays of these also come as bytes

Array = NDArray[Any] | list[str]


class TypeMismatch(ValueError):
    """A value does not fit a type. The text says why, in words that follow the value."""


def refusal(pv_name: str, field: str, kind: str, value: object, why: object) -> ProviderError:
    """Returns the error for a value that is not put, naming the PV, its type and the value."""
    return ProviderError(f"{pv_name}: the field {field!r} is of type {kind}; {reprlib.repr(value)} {why}")


def _checked_integer(kind: str, value: object) -> int:
    if isinstance(value, float):
        if not value.is_integer():  # neither are NaN and the infinities
            raise TypeMismatch("is not a whole number")
        value = int(value)
    if not isinstance(value, int):
        raise TypeMismatch("is not a number")
    lowest, highest = _INTEGERS[kind]
    if not lowest <= value <= highest:
        raise TypeMismatch(f"is not between {lowest} and {highest}")
    return value


def _checked_float(kind: str, value: object) -> float:
    if isinstance(value, int):
        if abs(value) > _LARGEST[kind] or int(DTYPES[kind].type(value)) != value:
            raise TypeMismatch(f"cannot be held exactly by a {kind}")
        return float(value)
    if not isinstance(value, float):
        raise TypeMismatch("is not a number")
    if math.isfinite(value) and abs(value) > _LARGEST[kind]:
        raise TypeMismatch(f"is too large for a {kind}")
    return value


def checked_scalar(kind: str, value: object) -> bool | int | float | str:
    """Returns a value as a scalar of a type.

    Raises:
        TypeMismatch: It is of another kind, out of range, or would lose something.
    """
    if value is None:
        raise TypeMismatch("is no value")
    if isinstance(value, list | tuple | dict | np.ndarray):
        raise TypeMismatch("is not a scalar")
    if kind == "string":
        if not isinstance(value, str):
            raise TypeMismatch("is not a string")
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            raise TypeMismatch("is neither true nor false")
        return value
    if isinstance(value, bool):
        raise TypeMismatch("is not a number")
    return _checked_integer(kind, value) if kind in _INTEGERS else _checked_float(kind, value)


def _fits_at_once(kind: str, elements: Sequence[Any]) -> bool:
    """Whether all elements are of the type's own Python type and in range, found out without a loop in Python."""
    types = set(map(type, elements))
    if kind in _INTEGERS:
        lowest, highest = _INTEGERS[kind]
        return types == {int} and lowest <= min(elements) and max(elements) <= highest
    if kind in _LARGEST and types in ({int}, {float}):
        # With a NaN among them this may be false; then each is looked at.
        bound = (_EXACT if types == {int} else _LARGEST)[kind]
        return -bound <= min(elements) and max(elements) <= bound
    return types == ({str} if kind == "string" else {bool} if kind == "boolean" else set())


def checked_array(kind: str, value: object) -> Array:
    """Returns a value as an array of a type: a numpy array, or a list of strings.

    Raises:
        TypeMismatch: It is no array, or an element does not fit.
    """
    if isinstance(value, bytes) and kind in _CHARACTERS:
        return np.frombuffer(value, dtype=DTYPES[kind])
    if isinstance(value, np.ndarray):
        value = cast("NDArray[Any]", value).tolist()
    if value is None:
        raise TypeMismatch("is no value")
    if not isinstance(value, list | tuple):
        raise TypeMismatch("is not an array")
    elements = cast("Sequence[Any]", value)
    if elements and not _fits_at_once(kind, elements):
        checked: list[Any] = []
        for index, element in enumerate(elements):
            try:
                checked.append(checked_scalar(kind, element))
            except TypeMismatch as error:
                raise TypeMismatch(f"has at [{index}] {reprlib.repr(element)}, which {error}") from None
        elements = checked
    return list(elements) if kind == "string" else np.array(elements, dtype=DTYPES[kind])


def checked_choice(value: object, choices: Sequence[str]) -> int:
    """Returns the index of an enum's choice.

    Args:
        value: An index, a label, or the map ``{"index": N}`` as a get returns it.
        choices: The enum's labels; where there are none, any index that is not negative goes.

    Raises:
        TypeMismatch: There is no such choice.
    """
    known = ", ".join(map(repr, choices))
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("index")
        if isinstance(value, str):
            raise TypeMismatch("has a label where the index is expected")
    if isinstance(value, str):
        if value not in choices:
            raise TypeMismatch(f"is not one of its labels: {known}")
        return list(choices).index(value)
    try:
        index = int(checked_scalar("int", value))
    except TypeMismatch:
        raise TypeMismatch("is neither an index nor a label") from None
    if index < 0 or (choices and index >= len(choices)):
        raise TypeMismatch(f"is not an index of its {len(choices)} labels: {known}")
    return index
