"""Conversion of Channel Access values and checks of puts, without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aioca
import numpy as np
import pytest

from k2eg_rx.gateway.epics.ca_values import ChannelType, checked_put, structure_of, types_of
from k2eg_rx.gateway.epics.provider import ProviderError


class Number(float):
    """A number with attributes, like those of aioca."""


class Text(str):
    """A string with attributes, like those of aioca."""


class Elements(np.ndarray):
    """An array with attributes, like those of aioca."""


def timed(held: Any, severity: int = 0, status: int = 0, stamp: tuple[int, int] = (1_700_000_000, 5)) -> Any:
    value: Any
    if isinstance(held, list):
        value = np.array(held).view(Elements)
    else:
        value = Text(held) if isinstance(held, str) else Number(held)
    value.severity, value.status, value.raw_stamp = severity, status, stamp
    return value


def limits(**others: Any) -> SimpleNamespace:
    return SimpleNamespace(
        units="mA",
        lower_disp_limit=-10,
        upper_disp_limit=10,
        lower_ctrl_limit=-9,
        upper_ctrl_limit=9,
        lower_alarm_limit=-8,
        lower_warning_limit=-6,
        upper_warning_limit=6,
        upper_alarm_limit=8,
        **others,
    )


def channel(datatype: int, elements: int = 1, name: str = "x", *, signed: bool = False) -> ChannelType:
    return ChannelType.of(name, datatype, elements, signed=signed)


def test_a_double_has_display_control_and_alarm_limits() -> None:
    structure = structure_of(channel(aioca.DBR_DOUBLE), timed(1.25), limits(precision=3))
    assert structure == {
        "value": 1.25,
        "timeStamp": {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 5, "userTag": 0},
        "alarm": {"severity": 0, "status": 0, "message": ""},
        "display": {"limitLow": -10.0, "limitHigh": 10.0, "description": "", "format": "F9.3", "units": "mA"},
        "control": {"limitLow": -9.0, "limitHigh": 9.0, "minStep": 0.0},
        "valueAlarm": {
            "active": False,
            "lowAlarmLimit": -8.0,
            "lowWarningLimit": -6.0,
            "highWarningLimit": 6.0,
            "highAlarmLimit": 8.0,
            "lowAlarmSeverity": 0,
            "lowWarningSeverity": 0,
            "highWarningSeverity": 0,
            "highAlarmSeverity": 0,
            "hysteresis": 0,
        },
    }
    assert list(structure) == ["value", "timeStamp", "alarm", "display", "control", "valueAlarm"]
    assert type(structure["value"]) is float
    assert type(structure["display"]["limitLow"]) is float


@pytest.mark.parametrize(
    ("datatype", "shown"),
    [
        (aioca.DBR_CHAR, "I4"),
        (aioca.DBR_SHORT, "I6"),
        (aioca.DBR_LONG, "I12"),
        (aioca.DBR_FLOAT, "F6.0"),
        (aioca.DBR_DOUBLE, "F6.0"),
    ],
)
def test_formats_follow_the_type(datatype: int, shown: str) -> None:
    structure = structure_of(channel(datatype), timed(3), limits())
    assert structure["display"]["format"] == shown
    whole = datatype not in (aioca.DBR_FLOAT, aioca.DBR_DOUBLE)
    assert type(structure["value"]) is type(structure["valueAlarm"]["lowAlarmLimit"]) is (int if whole else float)


def test_arrays_have_display_only_and_are_plain_numpy() -> None:
    structure = structure_of(channel(aioca.DBR_SHORT, 5), timed([1, 2]), limits())
    assert list(structure) == ["value", "timeStamp", "alarm", "display"]
    assert type(structure["value"]) is np.ndarray
    assert structure["value"].tolist() == [1, 2]


def test_characters_are_signed_if_the_record_says_so() -> None:
    held = timed([72, 255])
    held = held.astype(np.uint8)
    held.severity, held.status, held.raw_stamp = 0, 0, (0, 0)
    assert structure_of(channel(aioca.DBR_CHAR, 20), held, limits())["value"].tolist() == [72, 255]
    assert structure_of(channel(aioca.DBR_CHAR, 20, signed=True), held, limits())["value"].tolist() == [72, -1]


def test_a_single_character_has_its_sign_too() -> None:
    for signed, value in ((False, 200), (True, -56)):
        held = channel(aioca.DBR_CHAR, signed=signed)
        structure = structure_of(held, timed(200), limits())
        assert (structure["value"], types_of(held, structure)["value"]) == (value, "byte" if signed else "ubyte")
        assert check(held, value) == (200, None)


def test_enums_and_strings_have_no_limits() -> None:
    control = SimpleNamespace(enums=["Off", "On"])
    enum = structure_of(channel(aioca.DBR_ENUM), timed(1), control)
    assert enum["value"] == {"index": 1, "choices": ["Off", "On"]}
    text = structure_of(channel(aioca.DBR_STRING), timed("hello"), None)
    assert text["value"] == "hello"
    assert type(text["value"]) is str
    texts = structure_of(channel(aioca.DBR_STRING, 4), timed(["a", "b"]), None)
    assert texts["value"] == ["a", "b"]
    long = structure_of(channel(aioca.DBR_CHAR, 200, "x.DESC$"), timed("long"), limits())
    assert long["value"] == "long"
    for structure in (enum, text, texts, long):
        assert list(structure) == ["value", "timeStamp", "alarm"]


def test_an_array_of_enums_is_an_array_of_numbers() -> None:
    held = channel(aioca.DBR_ENUM, 3)
    assert types_of(held, structure_of(held, timed([0, 1]), SimpleNamespace(enums=[])))["value"] == "ushort[]"


@pytest.mark.parametrize(
    ("condition", "status", "message"),
    [(0, 0, ""), (3, 1, "HIHI"), (9, 2, "COMM"), (12, 3, "CALC"), (17, 6, "UDF"), (20, 4, "READ_ACCESS"), (99, 6, "")],
)
def test_alarms_have_a_message_and_a_status(condition: int, status: int, message: str) -> None:
    structure = structure_of(channel(aioca.DBR_STRING), timed("x", severity=3, status=condition), None)
    assert structure["alarm"] == {"severity": 3, "status": status, "message": message}


def test_a_record_never_processed_has_timestamp_zero() -> None:
    structure = structure_of(channel(aioca.DBR_STRING), timed("x", stamp=(631152000, 0)), None)
    assert structure["timeStamp"] == {"secondsPastEpoch": 0, "nanoseconds": 0, "userTag": 0}


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (channel(aioca.DBR_DOUBLE), "double"),
        (channel(aioca.DBR_SHORT, 5), "short[]"),
        (channel(aioca.DBR_ENUM), "enum"),
        (channel(aioca.DBR_CHAR), "ubyte"),
        (channel(aioca.DBR_CHAR, 20), "ubyte[]"),
        (channel(aioca.DBR_CHAR, 20, signed=True), "byte[]"),
        (channel(aioca.DBR_CHAR, 40, "x.DESC$"), "string"),
        (channel(aioca.DBR_STRING, 4), "string[]"),
    ],
)
def test_types_have_pvdata_names(held: ChannelType, kind: str) -> None:
    assert types_of(held, {"value": 1, "alarm": {}}) == {"value": kind, "alarm": "structure"}


def test_a_channel_without_access_is_refused() -> None:
    with pytest.raises(ProviderError, match="x: the server gives no access to it"):
        channel(7)


def check(held: ChannelType, value: object, choices: list[str] | None = None) -> tuple[Any, int | None]:
    return checked_put(held, value, "my:pv", choices or [])


def refusal(held: ChannelType, value: object, choices: list[str] | None = None) -> str:
    with pytest.raises(ProviderError) as caught:
        check(held, value, choices)
    return str(caught.value)


def test_puts_are_of_the_channels_type() -> None:
    assert check(channel(aioca.DBR_DOUBLE), 3) == (3.0, None)
    assert check(channel(aioca.DBR_LONG), 7.0) == (7, None)
    assert check(channel(aioca.DBR_ENUM), "On", ["Off", "On"]) == (1, None)
    assert check(channel(aioca.DBR_STRING), "hello") == ("hello", None)
    assert check(channel(aioca.DBR_STRING, 4), ["a", "b"]) == (["a", "b"], None)
    assert check(channel(aioca.DBR_CHAR, 9, "x.DESC$"), "hello") == ("hello\0", aioca.DBR_CHAR_STR)


def test_arrays_are_put_as_numpy_and_signed_characters_as_unsigned() -> None:
    array, datatype = check(channel(aioca.DBR_SHORT, 5), [1, -2])
    assert (array.dtype, array.tolist(), datatype) == (np.int16, [1, -2], None)
    signed, _ = check(channel(aioca.DBR_CHAR, 5, signed=True), [1, -1])
    assert (signed.dtype, signed.tolist()) == (np.uint8, [1, 255])
    assert check(channel(aioca.DBR_CHAR, 5), b"Hi")[0].tolist() == [72, 105]
    assert len(check(channel(aioca.DBR_DOUBLE, 5), [])[0]) == 0


@pytest.mark.parametrize(
    ("held", "value", "why"),
    [
        (channel(aioca.DBR_DOUBLE), "2", "is of type double; '2' is not a number"),
        (channel(aioca.DBR_DOUBLE), True, "is of type double; True is not a number"),
        (channel(aioca.DBR_DOUBLE), None, "is of type double; None is no value"),
        (channel(aioca.DBR_DOUBLE), [1.0], "is of type double; [1.0] is not a scalar"),
        (channel(aioca.DBR_LONG), 7.5, "is of type int; 7.5 is not a whole number"),
        (channel(aioca.DBR_LONG), 2**31, "is of type int; 2147483648 is not between"),
        (channel(aioca.DBR_DOUBLE, 3), 1.0, "is of type double[]; 1.0 is not an array"),
        (channel(aioca.DBR_DOUBLE, 3), [1, 2, 3, 4], "has 4 elements; there is room for 3"),
        (channel(aioca.DBR_CHAR, 5), [-1], "is not between 0 and 255"),
        (channel(aioca.DBR_CHAR, 5, signed=True), [200], "is not between -128 and 127"),
        (channel(aioca.DBR_STRING), 12, "is of type string; 12 is not a string"),
        (channel(aioca.DBR_STRING), "µ" * 20, "is longer than the 39 bytes"),
        (channel(aioca.DBR_STRING, 4), ["a", "b" * 40], "is longer than the 39 bytes"),
        (channel(aioca.DBR_CHAR, 9, "x.DESC$"), "x" * 9, "is longer than the 8 bytes"),
        (channel(aioca.DBR_ENUM), 2, "is of type enum; 2 is not an index of its 2 labels: 'Off', 'On'"),
        (channel(aioca.DBR_ENUM), "Maybe", "is of type enum; 'Maybe' is not one of its labels: 'Off', 'On'"),
    ],
)
def test_values_that_do_not_fit_are_refused(held: ChannelType, value: object, why: str) -> None:
    text = refusal(held, value, ["Off", "On"])
    assert text.startswith("my:pv: the field 'value' ")
    assert why in text
