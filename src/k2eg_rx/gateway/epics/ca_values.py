"""From Channel Access's two halves to one structure: value, time and alarm come with one request, limits with another.

In: aioca's values of FORMAT_TIME and FORMAT_CTRL. Out: `Structure`s in the layout of the deployed gateway, `TypeMap`s,
and what aioca takes for a put. Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aioca
import numpy as np

from k2eg_rx.gateway.epics.provider import ProviderError, TypeMap
from k2eg_rx.gateway.epics.pv_types import checked_array, refusal
from k2eg_rx.protocol import EPICS_EPOCH, Structure, TypeMismatch, checked_choice, checked_scalar

# The native types of Channel Access (db_access.h) by their pvData names. DBR_CHAR is unsigned (dbr_char_t).
_KINDS: dict[int, str] = {
    aioca.DBR_STRING: "string",
    aioca.DBR_SHORT: "short",
    aioca.DBR_FLOAT: "float",
    aioca.DBR_ENUM: "enum",
    aioca.DBR_CHAR: "ubyte",
    aioca.DBR_LONG: "int",
    aioca.DBR_DOUBLE: "double",
}
# How a panel would print a number of that type: width, and for floating point the digits after the point.
_FORMATS = {"ubyte": "I4", "byte": "I4", "short": "I6", "int": "I12"}
_FLOATING = ("float", "double")

# Alarm conditions in the order of menuAlarmStat, and which of the Normative Types' alarm status (0 none, 1 device,
# 2 driver, 3 record, 4 db, 6 undefined) the deployed gateway gives for each.
_ALARMS: tuple[tuple[str, int], ...] = (
    ("", 0),
    ("READ", 1),
    ("WRITE", 1),
    ("HIHI", 1),
    ("HIGH", 1),
    ("LOLO", 1),
    ("LOW", 1),
    ("STATE", 1),
    ("COS", 1),
    ("COMM", 2),
    ("TIMEOUT", 2),
    ("HWLIMIT", 1),
    ("CALC", 3),
    ("SCAN", 3),
    ("LINK", 3),
    ("SOFT", 3),
    ("BAD_SUB", 3),
    ("UDF", 6),
    ("DISABLE", 4),
    ("SIMM", 4),
    ("READ_ACCESS", 4),
    ("WRITE_ACCESS", 4),
)
_UNKNOWN_ALARM = ("", 6)
_NEVER = (EPICS_EPOCH, 0)  # the stamp of a record that was never processed

# MAX_STRING_SIZE of EPICS is 40 with the terminating zero.
LONGEST_STRING = 39


@dataclass(frozen=True, slots=True)
class ChannelType:
    """What a channel holds.

    Attributes:
        kind: The pvData name of an element's type.
        elements: How many it can hold.
        long_string: Whether it is an array of characters that stands for one string (``NAME.DESC$``).
    """

    kind: str
    elements: int
    long_string: bool = False

    @classmethod
    def of(cls, name: str, datatype: int, elements: int, *, signed: bool = False) -> ChannelType:
        """Returns the layout of a channel.

        Args:
            name: The channel's name.
            datatype: Its native type's number.
            elements: How many of these it holds.
            signed: Whether its characters are numbers with a sign, which Channel Access does not tell.
        """
        if datatype not in _KINDS:
            raise ProviderError(f"{name}: the server gives no access to it")
        kind = _KINDS[datatype]
        if kind == "ubyte":
            if name.endswith("$"):
                return cls("string", elements, long_string=True)
            kind = "byte" if signed else "ubyte"
        if kind == "enum" and elements != 1:
            kind = "ushort"  # their labels cannot be had
        return cls(kind, elements)

    @property
    def is_array(self) -> bool:
        """Whether its value is a list."""
        return self.elements != 1 and not self.long_string

    @property
    def has_control(self) -> bool:
        """Whether there are limits, units or labels to be asked for."""
        return self.kind != "string"

    @property
    def type_name(self) -> str:
        """The pvData name of its value's type."""
        return f"{self.kind}[]" if self.is_array else self.kind


def _value(layout: ChannelType, value: Any) -> Any:
    if not layout.is_array:
        return str(value) if layout.kind == "string" else float(value) if layout.kind in _FLOATING else int(value)
    if layout.kind == "string":
        return value.tolist()
    array = value.view(np.ndarray)
    return array.view(np.int8) if layout.kind == "byte" else array


def _alarm(value: Any) -> Structure:
    condition: int = value.status
    message, status = _ALARMS[condition] if condition < len(_ALARMS) else _UNKNOWN_ALARM
    return {"severity": value.severity, "status": status, "message": message}


def _time(value: Any) -> Structure:
    seconds, nanoseconds = (0, 0) if value.raw_stamp == _NEVER else value.raw_stamp
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}


def _display(layout: ChannelType, control: Any) -> Structure:
    precision = max(0, getattr(control, "precision", 0))
    return {
        "limitLow": float(control.lower_disp_limit),
        "limitHigh": float(control.upper_disp_limit),
        "description": "",
        "format": _FORMATS.get(layout.kind, f"F{6 + precision}.{precision}"),
        "units": control.units,
    }


def _value_alarm(layout: ChannelType, control: Any) -> Structure:
    limit = float if layout.kind in _FLOATING else int
    return {
        "active": False,
        "lowAlarmLimit": limit(control.lower_alarm_limit),
        "lowWarningLimit": limit(control.lower_warning_limit),
        "highWarningLimit": limit(control.upper_warning_limit),
        "highAlarmLimit": limit(control.upper_alarm_limit),
        "lowAlarmSeverity": 0,
        "lowWarningSeverity": 0,
        "highWarningSeverity": 0,
        "highAlarmSeverity": 0,
        "hysteresis": 0,
    }


def structure_of(layout: ChannelType, value: Any, control: Any) -> Structure:
    """Returns a PV as a structure.

    Args:
        layout: What the channel holds.
        value: From a FORMAT_TIME request.
        control: From a FORMAT_CTRL request; not used if the layout has none.
    """
    structure: Structure = {"value": _value(layout, value), "timeStamp": _time(value), "alarm": _alarm(value)}
    if layout.kind == "enum":
        structure["value"] = {"index": structure["value"], "choices": list(control.enums)}
    elif layout.kind not in ("string", "ushort"):
        structure["display"] = _display(layout, control)
        if not layout.is_array:
            structure["control"] = {
                "limitLow": float(control.lower_ctrl_limit),
                "limitHigh": float(control.upper_ctrl_limit),
                "minStep": 0.0,
            }
            structure["valueAlarm"] = _value_alarm(layout, control)
    return structure


def types_of(layout: ChannelType, structure: Structure) -> TypeMap:
    """Returns the types of a PV's fields."""
    return dict.fromkeys(structure, "structure") | {"value": layout.type_name}


def _check_length(text: str, longest: int) -> None:
    if len(text.encode()) > longest:
        raise TypeMismatch(f"is longer than the {longest} bytes that Channel Access carries for it")


def checked_put(layout: ChannelType, value: object, pv_name: str, choices: list[str]) -> tuple[Any, int | None]:
    """Returns a value as aioca takes it for a put, and the type to put it as (None: the channel's own).

    Args:
        layout: What the channel holds.
        value: Plain Python out of MessagePack.
        pv_name: For the error.
        choices: An enum's labels.

    Raises:
        ProviderError: It does not fit.
    """
    try:
        if layout.kind == "enum":
            return checked_choice(value, choices), None
        if layout.is_array:
            return _checked_elements(layout, value), None
        checked = checked_scalar(layout.kind, value)
        if layout.long_string:
            _check_length(str(checked), layout.elements - 1)
            return f"{checked}\0", aioca.DBR_CHAR_STR
        if layout.kind == "string":
            _check_length(str(checked), LONGEST_STRING)
    except TypeMismatch as error:
        raise refusal(pv_name, "value", layout.type_name, value, error) from None
    return checked, None


def _checked_elements(layout: ChannelType, value: object) -> Any:
    elements = checked_array(layout.kind, value)
    if len(elements) > layout.elements:
        raise TypeMismatch(f"has {len(elements)} elements; there is room for {layout.elements}")
    if isinstance(elements, list):
        for text in elements:
            _check_length(text, LONGEST_STRING)
        return elements
    return elements.view(np.uint8) if layout.kind == "byte" else elements
