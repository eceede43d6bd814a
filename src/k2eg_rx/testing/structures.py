"""Builds PVs' structures from plain or numpy values, in the layout of IOCs and gateways.

numpy is not imported: any object with `tolist` counts as an array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from k2eg_rx.protocol import NANOSECONDS, Severity, Structure, nanoseconds_of, plain
from k2eg_rx.pv import Protocol

START = 1_767_225_600 * NANOSECONDS
"""The default EPICS time, 2026-01-01T00:00:00Z; fixed, so that tests are reproducible."""

# Choices of display.form (EPICS V4 Normative Types, display_t), as QSRV sends them.
_FORMS = ("Default", "String", "Binary", "Decimal", "Hex", "Exponential", "Engineering")
_NO_LIMITS = (math.nan, math.nan, math.nan, math.nan)

Timestamp = int | datetime | None


def nanoseconds(timestamp: int | datetime) -> int:
    """Returns a time in integer nanoseconds since the Unix epoch.

    Raises:
        ValueError: It is a datetime without a time zone, or no time.
    """
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError(f"timestamp must have a time zone, such as datetime.UTC, got {timestamp}")
        return nanoseconds_of(timestamp)
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"timestamp must be integer nanoseconds since the Unix epoch or a datetime, got {timestamp!r}")
    return timestamp


def time_stamp(timestamp: int | datetime) -> Structure:
    """Returns a PV's ``timeStamp`` field."""
    seconds, rest = divmod(nanoseconds(timestamp), NANOSECONDS)
    return {"secondsPastEpoch": seconds, "nanoseconds": rest, "userTag": 0}


def alarm(severity: Severity | int = Severity.NO_ALARM, message: str = "", status: int = 0) -> Structure:
    """Returns a PV's ``alarm`` field.

    Raises:
        ValueError: The severity does not exist.
    """
    return {"severity": int(Severity(severity)), "status": status, "message": message}


def choice(value: object, choices: Sequence[str]) -> Structure:
    """Returns an enum's ``value`` field.

    Args:
        value: The index, the label, or a mapping with the ``index``.
        choices: The labels.

    Raises:
        ValueError: The choice does not exist.
    """
    labels = list(choices)
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("index")
    index: object = labels.index(value) if isinstance(value, str) and value in labels else plain(value)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(labels):
        raise ValueError(f"value must be a label or an index of {', '.join(map(repr, labels))}, got {value!r}")
    return {"index": index, "choices": labels}


def _numbers(value: object) -> type[int] | type[float] | None:
    """Returns int or float for a numeric value or array; None for others (a boolean, a string)."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    kinds = set(map(type, items))
    if kinds <= {int} and kinds:
        return int
    return float if kinds <= {int, float} else None  # an empty array counts as floats


def _labels(value: object) -> Structure:
    """Returns the ``labels`` field of a table; no field for other values."""
    if not isinstance(value, Mapping):
        return {}
    columns = cast("Mapping[str, Any]", value)
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError(f"a mapping must be a table, from column to list, got {value!r}; pass a structure as `fields`")
    return {"labels": list(columns)}


def _numeric_fields(
    value: object,
    kind: type[int] | type[float],
    protocol: Protocol,
    *,
    units: str,
    limits: tuple[float, float] | None,
    description: str,
) -> Structure:
    """Returns the fields ``display``, ``control`` and ``valueAlarm`` of a numeric PV."""
    low, high = (kind(limit) for limit in limits or (0, 0))
    display: Structure = {"limitLow": low, "limitHigh": high}
    if protocol == "ca":
        # Channel Access has no description, and a printf-like format instead of the form
        display |= {"description": "", "format": "I12" if kind is int else "F6.0", "units": units}
    else:
        display |= {"description": description, "units": units, "precision": 0}
        display["form"] = {"index": 0, "choices": list(_FORMS)}
    fields: Structure = {"display": display}
    if protocol == "ca" and isinstance(value, list):
        return fields
    lowest, lower, higher, highest = _NO_LIMITS if kind is float else (0, 0, 0, 0)
    fields["control"] = {"limitLow": low, "limitHigh": high, "minStep": kind(0)}
    fields["valueAlarm"] = {
        "active": False,
        "lowAlarmLimit": lowest,
        "lowWarningLimit": lower,
        "highWarningLimit": higher,
        "highAlarmLimit": highest,
        "lowAlarmSeverity": 0,
        "lowWarningSeverity": 0,
        "highWarningSeverity": 0,
        "highAlarmSeverity": 0,
        "hysteresis": 0.0,
    }
    return fields


def structure(
    value: object = None,
    *,
    severity: Severity | int = Severity.NO_ALARM,
    message: str = "",
    status: int = 0,
    timestamp: Timestamp = START,
    units: str = "",
    limits: tuple[float, float] | None = None,
    description: str = "",
    choices: Sequence[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    protocol: Protocol = "pva",
) -> Structure:
    """Returns a PV's structure as an IOC serves it.

    Args:
        value: A number, boolean or string; a list or array of them; a mapping from column to list for a table; an
            enum's index or label; None for a structure without ``value``.
        severity: The alarm's severity.
        message: The alarm's message, such as ``HIHI``.
        status: The alarm's status.
        timestamp: EPICS time: integer nanoseconds since the Unix epoch, or a datetime with a time zone; None for a PV
            without timestamp.
        units: Engineering units.
        limits: Lowest and highest value, for display and control.
        description: The description.
        choices: The labels of an enum.
        fields: Further fields, or replacements of those above.
        protocol: The protocol whose layout to use.

    Raises:
        ValueError: An argument is invalid.
    """
    given: object = choice(value, choices) if choices is not None else plain(value)
    made = _labels(given) if choices is None else {}
    if given is not None:
        made["value"] = given
    parts: list[Structure] = [{"alarm": alarm(severity, message, status)}]
    if timestamp is not None:
        parts.append({"timeStamp": time_stamp(timestamp)})
    for part in reversed(parts) if protocol == "ca" else parts:
        made |= part
    kind = _numbers(given)
    if kind is not None:
        made |= _numeric_fields(given, kind, protocol, units=units, limits=limits, description=description)
    elif protocol == "pva" and choices is not None:
        made["display"] = {"description": description}
    elif protocol == "pva" and isinstance(given, str | list):
        made["display"] = {"description": description, "units": units}
    return made | plain(dict(fields or {}))
