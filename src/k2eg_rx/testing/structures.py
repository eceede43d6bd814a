"""PVs' structures made of plain values, in the layout that IOCs and gateways give them.

In: values of Python or numpy. Out: `Structure`s. Pure; any thread. numpy is not needed for it: an array is whatever has
`tolist`, as numpy's arrays and scalars have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from k2eg_rx.protocol import NANOSECONDS, Severity, Structure, plain
from k2eg_rx.pv import Protocol

START = 1_767_225_600 * NANOSECONDS
"""The EPICS time of what is given none: 2026-01-01T00:00:00Z, so that a test is the same every day."""

# What display.form of a Normative Type offers (normative types, "Extended display"), as QSRV sends it.
_FORMS = ("Default", "String", "Binary", "Decimal", "Hex", "Exponential", "Engineering")
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_TOLD = (math.nan, math.nan, math.nan, math.nan)

Timestamp = int | datetime | None


def nanoseconds(timestamp: int | datetime) -> int:
    """Returns a time in integer nanoseconds since the Unix epoch.

    Raises:
        ValueError: A datetime without a time zone, which is a different time on every machine; or no time at all.
    """
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError(f"the time stamp {timestamp} has no time zone; give it one, such as datetime.UTC")
        return (timestamp - _UNIX_EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"a time stamp is in integer nanoseconds since the Unix epoch or a datetime, not {timestamp!r}"
        )
    return timestamp


def time_stamp(timestamp: int | datetime) -> Structure:
    """Returns a PV's ``timeStamp`` field."""
    seconds, rest = divmod(nanoseconds(timestamp), NANOSECONDS)
    return {"secondsPastEpoch": seconds, "nanoseconds": rest, "userTag": 0}


def alarm(severity: Severity | int = Severity.NO_ALARM, message: str = "", status: int = 0) -> Structure:
    """Returns a PV's ``alarm`` field.

    Raises:
        ValueError: There is no such severity.
    """
    return {"severity": int(Severity(severity)), "status": status, "message": message}


def choice(value: object, choices: Sequence[str]) -> Structure:
    """Returns an enum's ``value`` field.

    Args:
        value: The index or the label, or a map with the ``index``.
        choices: The labels.

    Raises:
        ValueError: There is no such choice.
    """
    labels = list(choices)
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("index")
    index: object = labels.index(value) if isinstance(value, str) and value in labels else plain(value)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(labels):
        raise ValueError(f"{value!r} is neither a label nor an index of {', '.join(map(repr, labels))}")
    return {"index": index, "choices": labels}


def _numbers(value: object) -> type[int] | type[float] | None:
    """Returns what kind of numbers a value has, or None for one that has none (a boolean, a string)."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    kinds = set(map(type, items))
    if kinds <= {int} and kinds:
        return int
    return float if kinds <= {int, float} else None  # an empty array is taken for one of floats


def _labels(value: object) -> Structure:
    """Returns what a table has before its columns; nothing for what is none."""
    if not isinstance(value, Mapping):
        return {}
    columns = cast("Mapping[str, Any]", value)
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError(f"a map is a table, from column to list, not {value!r}; give a structure as `fields`")
    return {"labels": list(columns)}


def _about_numbers(
    value: object,
    kind: type[int] | type[float],
    protocol: Protocol,
    *,
    units: str,
    limits: tuple[float, float] | None,
    description: str,
) -> Structure:
    """Returns the fields that go with a number, or with numbers: how to show it, and within which limits it is."""
    low, high = (kind(limit) for limit in limits or (0, 0))
    display: Structure = {"limitLow": low, "limitHigh": high}
    if protocol == "ca":
        # Channel Access has no description, and how a panel would print it in place of the form
        display |= {"description": "", "format": "I12" if kind is int else "F6.0", "units": units}
    else:
        display |= {"description": description, "units": units, "precision": 0}
        display["form"] = {"index": 0, "choices": list(_FORMS)}
    fields: Structure = {"display": display}
    if protocol == "ca" and isinstance(value, list):
        return fields
    lowest, lower, higher, highest = _NOT_TOLD if kind is float else (0, 0, 0, 0)
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
    """Returns a PV's structure, as an IOC serves it and as it is decoded from the wire.

    Args:
        value: A number, boolean or string; a list or array of them; a map from column to list for a table; an enum's
            index or label. None for a structure that has no ``value``.
        severity: The alarm's severity.
        message: The alarm's text, such as ``HIHI``.
        status: The alarm's status.
        timestamp: EPICS time: integer nanoseconds since the Unix epoch, or a datetime with a time zone. None for a PV
            without one.
        units: Engineering units.
        limits: The lowest and the highest value, for display and control.
        description: What the PV is.
        choices: An enum's labels; given, the PV is one.
        fields: Further fields of the structure, or others in place of those it would have.
        protocol: Whose layout it has: that of PVAccess or of Channel Access.

    Raises:
        ValueError: One of them is not possible.
    """
    given: object = choice(value, choices) if choices is not None else plain(value)
    made = _labels(given) if choices is None else {}
    if given is not None:
        made["value"] = given
    about: list[Structure] = [{"alarm": alarm(severity, message, status)}]
    if timestamp is not None:
        about.append({"timeStamp": time_stamp(timestamp)})
    for part in reversed(about) if protocol == "ca" else about:
        made |= part
    kind = _numbers(given)
    if kind is not None:
        made |= _about_numbers(given, kind, protocol, units=units, limits=limits, description=description)
    elif protocol == "pva" and choices is not None:
        made["display"] = {"description": description}
    elif protocol == "pva" and isinstance(given, str | list):
        made["display"] = {"description": description, "units": units}
    return made | plain(dict(fields or {}))
