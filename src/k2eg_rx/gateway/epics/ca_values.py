"""Converts Channel Access values to structures with the deployed gateway's fields, and checks values to put.

Channel Access delivers a PV in two parts: FORMAT_TIME has value, time and alarm, FORMAT_CTRL limits, units and labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aioca
import numpy as np

from k2eg_rx.gateway.epics.provider import ProviderError, TypeMap
from k2eg_rx.gateway.epics.pv_types import checked_array, refusal
from k2eg_rx.protocol import EPICS_EPOCH, Structure, TypeMismatch, checked_choice, checked_scalar

# pvData names of the native Channel Access types (db_access.h). DBR_CHAR is unsigned (dbr_char_t).
_KINDS: dict[int, str] = {
    aioca.DBR_STRING: "string",
    aioca.DBR_SHORT: "short",
    aioca.DBR_FLOAT: "float",
    aioca.DBR_ENUM: "enum",
    aioca.DBR_CHAR: "ubyte",
    aioca.DBR_LONG: "int",
    aioca.DBR_DOUBLE: "double",
}
# The display format of integers by type, with the width.
_FORMATS = {"ubyte": "I4", "byte": "I4", "short": "I6", "int": "I12"}
_FLOATING = ("float", "double")

# Alarm conditions in the order of menuAlarmStat, with the alarm status of the Normative Types (0 none, 1 device,
# 2 driver, 3 record, 4 db, 6 undefined) that the deployed gateway reports for each.
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
_NEVER = (EPICS_EPOCH, 0)  # the timestamp of a record that was never processed

_SIGN = 0x80  # the bit of a character that is its sign, if it has one
LONGEST_STRING = 39  # bytes: MAX_STRING_SIZE of EPICS without the terminating zero


@dataclass(frozen=True, slots=True)
class ChannelType:
    """The type of a channel's value.

    Attributes:
        kind: The pvData name of the element type.
        elements: The maximum number of elements.
        long_string: Whether it is a string stored as a character array (``NAME.DESC$``).
    """

    kind: str
    elements: int
    long_string: bool = False

    @classmethod
    def of(cls, name: str, datatype: int, elements: int, *, signed: bool = False) -> ChannelType:
        """Returns the type of a channel.

        Args:
            name: The channel name.
            datatype: The number of its native type.
            elements: The maximum number of elements.
            signed: Whether characters are signed numbers, which Channel Access does not report.

        Raises:
            ProviderError: The client has no read access.
        """
        if datatype not in _KINDS:
            raise ProviderError(f"{name}: the server gives no access to it")
        kind = _KINDS[datatype]
        if kind == "ubyte":
            if name.endswith("$"):
                return cls("string", elements, long_string=True)
            kind = "byte" if signed else "ubyte"
        if kind == "enum" and elements != 1:
            kind = "ushort"  # Channel Access has no labels for arrays of enums
        return cls(kind, elements)

    @property
    def is_array(self) -> bool:
        """Whether the value is an array."""
        return self.elements != 1 and not self.long_string

    @property
    def count(self) -> int:
        """How many elements to request: 0 for those that there are, which for an empty text is none at all."""
        return 1 if self.elements == 1 else 0

    @property
    def has_control(self) -> bool:
        """Whether FORMAT_CTRL has limits, units or labels."""
        return self.kind != "string"

    @property
    def type_name(self) -> str:
        """The pvData name of the value's type."""
        return f"{self.kind}[]" if self.is_array else self.kind


def _value(channel: ChannelType, value: Any) -> Any:
    if not channel.is_array:
        if channel.kind == "byte":
            return (int(value) ^ _SIGN) - _SIGN
        return str(value) if channel.kind == "string" else float(value) if channel.kind in _FLOATING else int(value)
    if channel.kind == "string":
        return value.tolist()
    array = value.view(np.ndarray)
    return array.view(np.int8) if channel.kind == "byte" else array


def _alarm(value: Any) -> Structure:
    condition: int = value.status
    message, status = _ALARMS[condition] if condition < len(_ALARMS) else _UNKNOWN_ALARM
    return {"severity": value.severity, "status": status, "message": message}


def _time(value: Any) -> Structure:
    seconds, nanoseconds = (0, 0) if value.raw_stamp == _NEVER else value.raw_stamp
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}


def _display(channel: ChannelType, control: Any) -> Structure:
    precision = max(0, getattr(control, "precision", 0))
    return {
        "limitLow": float(control.lower_disp_limit),
        "limitHigh": float(control.upper_disp_limit),
        "description": "",
        "format": _FORMATS.get(channel.kind, f"F{6 + precision}.{precision}"),
        "units": control.units,
    }


def _value_alarm(channel: ChannelType, control: Any) -> Structure:
    limit = float if channel.kind in _FLOATING else int
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


def structure_of(channel: ChannelType, value: Any, control: Any) -> Structure:
    """Returns a PV as a structure.

    Args:
        channel: The channel's type.
        value: The FORMAT_TIME part.
        control: The FORMAT_CTRL part; unused for channels without one.
    """
    structure: Structure = {"value": _value(channel, value), "timeStamp": _time(value), "alarm": _alarm(value)}
    if channel.kind == "enum":
        structure["value"] = {"index": structure["value"], "choices": list(control.enums)}
    elif channel.kind not in ("string", "ushort"):
        structure["display"] = _display(channel, control)
        if not channel.is_array:
            structure["control"] = {
                "limitLow": float(control.lower_ctrl_limit),
                "limitHigh": float(control.upper_ctrl_limit),
                "minStep": 0.0,
            }
            structure["valueAlarm"] = _value_alarm(channel, control)
    return structure


def types_of(channel: ChannelType, structure: Structure) -> TypeMap:
    """Returns the types of a PV's fields."""
    return dict.fromkeys(structure, "structure") | {"value": channel.type_name}


def _check_length(text: str, longest: int) -> None:
    if len(text.encode()) > longest:
        raise TypeMismatch(f"is longer than the {longest} bytes that Channel Access carries for it")


def checked_put(channel: ChannelType, value: object, pv_name: str, choices: list[str]) -> tuple[Any, int | None]:
    """Returns a value in the form that aioca accepts, and the type to put it as (None: the channel's own).

    Args:
        channel: The channel's type.
        value: The value, as decoded from MessagePack.
        pv_name: The PV name, for errors.
        choices: The labels of an enum.

    Raises:
        ProviderError: The value does not fit the channel.
    """
    try:
        if channel.kind == "enum":
            return checked_choice(value, choices), None
        if channel.is_array:
            return _checked_elements(channel, value), None
        checked = checked_scalar(channel.kind, value)
        if channel.long_string:
            _check_length(str(checked), channel.elements - 1)
            return f"{checked}\0", aioca.DBR_CHAR_STR
        if channel.kind == "string":
            _check_length(str(checked), LONGEST_STRING)
        if channel.kind == "byte":
            checked = int(checked) % 256  # as the unsigned character with the same bits
    except TypeMismatch as error:
        raise refusal(pv_name, "value", channel.type_name, value, error) from None
    return checked, None


def _checked_elements(channel: ChannelType, value: object) -> Any:
    elements = checked_array(channel.kind, value)
    if len(elements) > channel.elements:
        raise TypeMismatch(f"has {len(elements)} elements; there is room for {channel.elements}")
    if isinstance(elements, list):
        for text in elements:
            _check_length(text, LONGEST_STRING)
        return elements
    return elements.view(np.uint8) if channel.kind == "byte" else elements
