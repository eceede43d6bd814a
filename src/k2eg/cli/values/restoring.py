"""Decides what a restore writes: compares saved values with present ones, and makes values that PVs accept.

Nothing here writes. A value that does not fit the PV exactly is a reason not to write it, never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from k2eg.cli.values.saved_values import SavedValue
from k2eg.cli.values.verification import is_written
from k2eg_rx import PVData
from k2eg_rx.texts import shown


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from another to be the same.

    Attributes:
        number: The difference, or the part of the saved value; 0 for equal values only.
        is_relative: Whether it is a part of the saved value.
    """

    number: float = 0.0
    is_relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Returns the tolerance that a text such as ``0.01`` or ``1%`` stands for.

        Raises:
            ValueError: It is none.
        """
        is_relative = text.strip().endswith("%")
        try:
            number = float(text.strip().removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            raise ValueError(f"must be a number such as 0.01, or a part such as 1%, got {text!r}")
        return cls(number / 100 if is_relative else number, is_relative)

    def includes(self, wanted: float, found: float) -> bool:
        """Returns whether a number is near enough to the saved one."""
        limit = self.number * abs(wanted) if self.is_relative else self.number
        return wanted == found or abs(wanted - found) <= limit


def fitting(entry: SavedValue, present: PVData) -> object:
    """Returns a saved value as the PV takes it: of its present value's type.

    Raises:
        ValueError: It has no such form; the text says why.
    """
    if not entry.has_value:
        raise ValueError("it had no value when it was saved")
    if not entry.has_meaning:
        raise ValueError(f"its value was {entry.severity} when it was saved")
    if present.choices is not None:
        return _label(entry.value, present.choices)
    value = present.value
    if isinstance(value, list):
        return _list(entry, cast("list[object]", value))
    convert = next((convert for kind, convert in _CONVERSIONS.items() if type(value) is kind), None)
    if convert is None:
        raise ValueError("only numbers, texts, enums and arrays are restored, not tables and structures")
    return convert(entry.value, entry.is_text)


def _label(value: object, choices: list[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"it has no label {shown(value)}, only {', '.join(map(repr, choices))}")
    if choices.count(value) > 1:
        raise ValueError(f"several of its choices have the label {value!r}")
    return value


def _bool(value: object, is_text: bool) -> bool:
    found = {"true": True, "false": False}.get(value.strip().lower()) if is_text and isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError(f"it needs true or false, got {shown(value)}")
    return found


def _int(value: object, is_text: bool) -> int:
    try:
        if is_text and isinstance(value, str) and "_" not in value:
            return int(value)
    except ValueError:  # such as 5.0 or 1E3, as spreadsheets write them
        value = _float(value, is_text)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"it needs a whole number, got {shown(value)}")
    return value


def _float(value: object, is_text: bool) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(cast("Any", value)) if is_number or (is_text and "_" not in str(value)) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        raise ValueError(f"it needs a number, got {shown(value)}")
    if not math.isfinite(number):
        raise ValueError(f"{number} is not written to a machine")
    return number


def _str(value: object, is_text: bool) -> str:  # noqa: ARG001 - as the others
    if not isinstance(value, str):
        raise ValueError(f"it needs a text, got {shown(value)}")
    return value


_CONVERSIONS: dict[type, Callable[[object, bool], object]] = {bool: _bool, int: _int, float: _float, str: _str}


def _list(entry: SavedValue, present: list[object]) -> list[object]:
    value = entry.value
    if entry.is_text:
        try:
            value = json.loads(cast("str", value))
        except (ValueError, RecursionError):
            raise ValueError(f"it needs an array such as [1, 2], got {shown(value)}") from None
    elements = cast("list[object]", value) if isinstance(value, list) else []
    if not elements:
        raise ValueError(f"it needs an array with elements, got {shown(entry.value)}")
    kinds = {type(element) for element in present}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    convert = None if kind is None else _CONVERSIONS.get(kind)
    if convert is None:
        raise ValueError("the type of its elements is not known, as it is empty or holds structures")
    return [convert(element, False) for element in elements]


def is_same(wanted: object, found: PVData, tolerance: Tolerance) -> bool:
    """Returns whether a PV has a value, which `fitting` returned, within the tolerance."""
    if is_written(wanted, found):
        return True
    value = found.value
    if isinstance(wanted, list):
        theirs = cast("list[object]", value) if isinstance(value, list) else []
        ours = cast("list[object]", wanted)
        return len(ours) == len(theirs) and all(_is_near(*pair, tolerance) for pair in zip(ours, theirs, strict=True))
    return found.choices is None and _is_near(wanted, value, tolerance)


def _is_near(wanted: object, found: object, tolerance: Tolerance) -> bool:
    if isinstance(wanted, bool) or not (isinstance(wanted, int | float) and isinstance(found, int | float)):
        return wanted == found
    return tolerance.includes(wanted, found)
