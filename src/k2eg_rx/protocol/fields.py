"""Reads the standard fields of a PV's structure: alarm, enum, limits, display, table.

Each function takes a decoded structure and accepts any content: a field that is absent or of another type than the
EPICS V4 Normative Types give it counts as absent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from k2eg_rx.protocol.structures import Severity, severity_of

Range = tuple[float, float]

_CA_PRECISION = re.compile(r"F\d*\.(\d+)")  # `display.format` of Channel Access, such as "F6.3"
_SIGNIFICANT = 6  # digits of a number whose PV has no precision: those of a 32-bit float
_MAX_PRECISION = 17  # decimals that a double can tell apart; a gateway may send any number
_MAX_FIXED = 1e9  # above, a fixed number of decimals shows digits that a reader does not compare


@dataclass(frozen=True, slots=True)
class Alarm:
    """A PV's alarm.

    Attributes:
        severity: The severity; NO_ALARM where the PV has no alarm field.
        status: The alarm status of the Normative Types: 0 none, 1 device, 2 driver, 3 record, 4 db, 5 conf,
            6 undefined, 7 client.
        message: The alarm's text, such as ``HIHI``; may be empty.
    """

    severity: Severity = Severity.NO_ALARM
    status: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The ranges that a PV declares for its value, each ``(low, high)`` or None where the PV has none.

    Attributes:
        display: The range to show, such as the axis of a plot.
        control: The range that may be written.
        alarm: Outside of it the PV is in MAJOR alarm, by default. NaN is an end without limit.
        warning: Outside of it the PV is in MINOR alarm, by default. NaN is an end without limit.
    """

    display: Range | None = None
    control: Range | None = None
    alarm: Range | None = None
    warning: Range | None = None


def _part(structure: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = structure.get(name)
    return cast("Mapping[str, Any]", part) if isinstance(part, dict) else {}


def alarm_of(structure: Mapping[str, Any]) -> Alarm:
    """Returns a structure's alarm."""
    part = _part(structure, "alarm")
    status, message = part.get("status"), part.get("message")
    return Alarm(
        severity_of(structure),
        status if isinstance(status, int) else 0,
        message if isinstance(message, str) else "",
    )


def choice_of(structure: Mapping[str, Any]) -> tuple[int, list[Any]] | None:
    """Returns an enum's index and its choices, or None if the PV is not an enum."""
    value = structure.get("value")
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, object]", value)
    index, choices = fields.get("index"), fields.get("choices")
    return (index, cast("list[Any]", choices)) if isinstance(index, int) and isinstance(choices, list) else None


def label_of(structure: Mapping[str, Any]) -> str | None:
    """Returns the label of an enum's index, or None if the PV is not an enum or has no label for the index."""
    choice = choice_of(structure)
    if choice is None:
        return None
    index, choices = choice
    label = choices[index] if 0 <= index < len(choices) else None
    return label if isinstance(label, str) else None


def columns_of(structure: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Returns the columns of an NTTable by field name, or None if the PV is not a table.

    The keys are the names that a put takes, not the table's ``labels``, which are for display.
    """
    labels, columns = structure.get("labels"), structure.get("value")
    if not isinstance(labels, list) or not isinstance(columns, dict):
        return None
    named = cast("dict[str, object]", columns)
    if not all(isinstance(column, list) for column in named.values()):
        return None
    return cast("dict[str, list[Any]]", named)


def units_of(structure: Mapping[str, Any]) -> str:
    """Returns the engineering units, or an empty string."""
    units = _part(structure, "display").get("units")
    return units if isinstance(units, str) else ""


def precision_of(structure: Mapping[str, Any]) -> int | None:
    """Returns the number of decimals to show, or None if the PV does not declare one."""
    display = _part(structure, "display")
    precision, form = display.get("precision"), display.get("format")
    if isinstance(precision, int):
        return max(precision, 0)
    found = _CA_PRECISION.fullmatch(form) if isinstance(form, str) else None
    return int(found[1]) if found else None


def _range(part: Mapping[str, Any], low: str, high: str) -> Range | None:
    ends = part.get(low), part.get(high)
    if not all(isinstance(end, int | float) for end in ends):
        return None
    numbers = cast("Range", ends)
    return None if all(math.isnan(end) for end in numbers) else numbers


def limits_of(structure: Mapping[str, Any]) -> Limits | None:
    """Returns the ranges that a structure declares, or None if it declares none."""
    value_alarm = _part(structure, "valueAlarm")
    limits = Limits(
        _range(_part(structure, "display"), "limitLow", "limitHigh"),
        _range(_part(structure, "control"), "limitLow", "limitHigh"),
        _range(value_alarm, "lowAlarmLimit", "highAlarmLimit"),
        _range(value_alarm, "lowWarningLimit", "highWarningLimit"),
    )
    return None if limits == Limits() else limits


def format_number(value: float, precision: int | None = None) -> str:
    """Returns a number as text: booleans and integers as JSON has them, floats with the PV's decimals.

    Args:
        value: The number.
        precision: The decimals; with None or 0, which is what a record without PREC has, six significant digits.
    """
    if not isinstance(value, float):
        return json.dumps(value)
    if not precision or not math.isfinite(value):
        return f"{value:.{_SIGNIFICANT}g}"
    precision = min(precision, _MAX_PRECISION)
    if 0 < abs(value) < 10.0**-precision or abs(value) >= _MAX_FIXED:
        return f"{value:.{precision}e}"
    return f"{value:.{precision}f}"


def shortened(text: str, width: int) -> str:
    """Returns a text in one line of at most so many characters: control characters escaped, the middle left out."""
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    if len(line) <= width:
        return line
    kept = max(width - 3, 0)
    return f"{line[: kept - kept // 2]}...{line[len(line) - kept // 2 :]}"


def _count(items: Sequence[object], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def described(structure: Mapping[str, Any]) -> str:
    """Returns a description of the kind of a structure's value, for error messages."""
    value = structure.get("value")
    if isinstance(value, list):
        return f"an array of {_count(cast('list[object]', value), 'element')}"
    if isinstance(value, str):
        return f"the string {shortened(repr(value), 40)}"
    if isinstance(value, dict):
        return "a table" if columns_of(structure) is not None else "a structure"
    return "a structure without a field 'value'" if value is None else f"the number {value!r}"


def summary(structure: Mapping[str, Any]) -> str:
    """Returns a short form of a value for `repr`: a number with units, a label, or the size of an array or table."""
    value = structure.get("value")
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):
        return f"{format_number(value, precision_of(structure))} {units_of(structure)}".rstrip()
    if isinstance(value, list):
        return f"array({len(cast('list[object]', value))})"
    if (choice := choice_of(structure)) is not None:
        label = label_of(structure)
        return f"enum({choice[0]})" if label is None else repr(label)
    columns = columns_of(structure)
    if columns is not None:
        rows = max(map(len, columns.values()), default=0)
        return f"table({rows} x {len(columns)})"
    fields = cast("Mapping[str, Any]", value) if isinstance(value, dict) else structure
    return repr(value) if isinstance(value, str) else f"structure({_count(list(fields), 'field')})"
