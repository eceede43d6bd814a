"""Which values fit which pvData type: the one rule table for puts, used by client and gateway.

A value fits if the PV then reads back as a value equal to the given one, within the precision of the type. So 7.0 fits
an int and 7.5 does not, 2**24 + 1 does not fit a float, a boolean and an integer 0 or 1 stand for each other.
Gateways have to be strict because EPICS libraries are not: they round, wrap, and empty arrays.
"""

from __future__ import annotations

import math
import re
import reprlib
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from k2eg_rx.texts import printable

INTEGER_BITS = {"byte": 8, "short": 16, "int": 32, "long": 64}
INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    **{name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in INTEGER_BITS.items()},
    **{f"u{name}": (0, 2**bits - 1) for name, bits in INTEGER_BITS.items()},
    "integer": (-(2**63), 2**64 - 1),  # what MessagePack can carry
}
_LARGEST = {"float": 3.4028234663852886e38, "double": math.inf}  # the largest finite binary32; any float is a double
_EXACT = {"float": 2**24, "double": 2**53}  # each integer up to here is a float of that type

_DIGITS = re.compile(r"\s*[0-9]{1,9}\s*")  # an index as text

_long_values_shortened = reprlib.Repr()
_long_values_shortened.maxstring = _long_values_shortened.maxother = 80  # keeps an error message on one line


class TypeMismatch(ValueError):
    """A value does not fit a type. The text is a predicate that follows the value: "is not a number"."""


def shown(value: object) -> str:
    """Returns a value for an error message: its `repr` in one line, shortened."""
    return printable(_long_values_shortened.repr(value))


def _checked_boolean(value: object) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise TypeMismatch("is neither true nor false")


def _checked_string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeMismatch("is not a string")
    return value


def _checked_integer(kind: str, value: object) -> int:
    if isinstance(value, float):
        if not value.is_integer():  # NaN and the infinities are not integers either
            raise TypeMismatch("is not a whole number")
    elif not isinstance(value, int):
        raise TypeMismatch("is not a number")
    lowest, highest = INTEGER_RANGES[kind]
    if not lowest <= value <= highest:
        raise TypeMismatch(f"is not between {lowest} and {highest}")
    return int(value)


def _is_exact(kind: str, value: int) -> bool:
    """Whether an integer is a float of that type, without rounding."""
    try:
        number = float(value)
        return int(struct.unpack("f", struct.pack("f", number))[0] if kind == "float" else number) == value
    except OverflowError:
        return False


def _checked_float(kind: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeMismatch("is not a number")
    if isinstance(value, int):
        if abs(value) > _EXACT[kind] and not _is_exact(kind, value):
            raise TypeMismatch(f"cannot be held exactly by a {kind}")
        return float(value)
    if math.isfinite(value) and abs(value) > _LARGEST[kind]:
        raise TypeMismatch(f"is too large for a {kind}")
    return value


def _checked_number(value: object) -> int | float:
    """Checks a value for a PV of unknown numeric type; whole numbers become integers, which every type takes."""
    lowest, highest = INTEGER_RANGES["integer"]
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
        return value
    number = _checked_float("double", value)
    return int(number) if number.is_integer() and lowest <= number <= highest else number


# By the names of pvData's scalar types (pvData Reference). "integer" and "number" are for PVs whose type is inferred
# from a decoded value: an integer of unknown width, and a number that may be an integer or a float.
_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "boolean": _checked_boolean,
    "string": _checked_string,
    "number": _checked_number,
    "float": partial(_checked_float, "float"),
    "double": partial(_checked_float, "double"),
    **{name: partial(_checked_integer, name) for name in INTEGER_RANGES},
}


def has_rules(kind: str) -> bool:
    """Whether values of a type are checked; those of others, such as unions, are passed on as they are."""
    return kind in _CHECKS


def checked_scalar(kind: str, value: object) -> bool | int | float | str:
    """Returns a value as a scalar of a type.

    Args:
        kind: The pvData name of the type.
        value: A Python value, as decoded from MessagePack.

    Raises:
        TypeMismatch: It is of another kind, out of range, or would lose digits.
    """
    if value is None:
        raise TypeMismatch("is no value")
    if isinstance(value, list | tuple | dict):
        raise TypeMismatch("is not a scalar")
    return _CHECKS[kind](value)


def _converted_at_once(kind: str, elements: Sequence[Any]) -> list[Any] | None:
    """Converts elements of one Python type without a loop in Python; None if they have to be checked one by one."""
    types = set(map(type, elements))
    if kind in INTEGER_RANGES and types == {int}:
        lowest, highest = INTEGER_RANGES[kind]
        return list(elements) if lowest <= min(elements) and max(elements) <= highest else None
    if kind in _EXACT and types == {float}:
        # a NaN makes comparisons false or hides a large number; such arrays are checked one by one
        fits = kind == "double" or (-_LARGEST[kind] <= min(elements) and max(elements) <= _LARGEST[kind])
        return list(elements) if fits and (kind == "double" or not any(map(math.isnan, elements))) else None
    if kind in _EXACT and types == {int}:
        return list(map(float, elements)) if -_EXACT[kind] <= min(elements) and max(elements) <= _EXACT[kind] else None
    return list(elements) if types == ({str} if kind == "string" else {bool} if kind == "boolean" else set()) else None


def checked_elements(kind: str, value: object) -> list[Any]:
    """Returns a value as the elements of an array of a type.

    Args:
        kind: The pvData name of an element's type.
        value: A list or tuple; bytes for arrays of characters (``byte``, ``ubyte``).

    Raises:
        TypeMismatch: It is not an array, or an element does not fit.
    """
    if value is None:
        raise TypeMismatch("is no value")
    if isinstance(value, bytes) and kind in ("byte", "ubyte"):
        return memoryview(value).cast("b" if kind == "byte" else "B").tolist()
    if not isinstance(value, list | tuple):
        raise TypeMismatch("is not an array")
    elements = cast("Sequence[Any]", value)
    converted = _converted_at_once(kind, elements) if elements else []
    return converted if converted is not None else [_checked_element(kind, *item) for item in enumerate(elements)]


def _checked_element(kind: str, index: int, element: object) -> Any:
    try:
        return checked_scalar(kind, element)
    except TypeMismatch as error:
        raise TypeMismatch(f"has at [{index}] {shown(element)}, which {error}") from None


def checked_choice(value: object, choices: Sequence[str]) -> int:
    """Returns the index of an enum's choice.

    Args:
        value: An index, a label, or a map with either as ``index``, as a get returns it. A text that is no label may be
            an index in digits, as for caput; not in a map.
        choices: The enum's labels. If there are none, because a server hides them, any index that is not negative fits.

    Raises:
        TypeMismatch: There is no such choice.
    """
    known = ", ".join(map(repr, choices))
    given = cast("Mapping[str, object]", value).get("index") if isinstance(value, Mapping) else value
    if isinstance(given, str):
        if given in choices:
            return list(choices).index(given)
        if isinstance(value, Mapping) or not _DIGITS.fullmatch(given):
            raise TypeMismatch(f"is not one of its labels: {known}")
        given = int(given)
    value = given
    try:
        index = int(checked_scalar("int", value))
    except TypeMismatch:
        raise TypeMismatch("is neither an index nor a label") from None
    if index < 0 or (choices and index >= len(choices)):
        raise TypeMismatch(f"is not an index of its {len(choices)} labels: {known}")
    return index


def check_names(what: str, known: Mapping[str, object], given: Mapping[str, object]) -> None:
    """Checks that a map names only known fields or columns.

    Raises:
        TypeMismatch: It names another one.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeMismatch(f"has a {what} {unknown[0]!r}; there are {', '.join(known)}")


def check_columns(known: Mapping[str, object], given: Mapping[str, object]) -> None:
    """Checks that a map is some columns of a table, of equal length.

    Raises:
        TypeMismatch: It names another column, has a column that is not an array, or columns of different lengths.
    """
    check_names("column", known, given)
    lengths = {label: len(array_of(column)) for label, column in given.items()}
    if len(set(lengths.values())) > 1:
        raise TypeMismatch(f"has columns of different lengths: {lengths}")


def array_of(value: object) -> list[Any]:
    """Returns a value as a list. Raises `TypeMismatch` if it is not an array."""
    if not isinstance(value, list | tuple):
        raise TypeMismatch("is not an array")
    return list(cast("Sequence[Any]", value))


def map_of(value: object) -> Mapping[str, Any]:
    """Returns a value as a map of fields. Raises `TypeMismatch` if it is not a map."""
    if not isinstance(value, Mapping):
        raise TypeMismatch("is not a map of fields")
    return cast("Mapping[str, Any]", value)
