"""PV values: accessors, conversions, formatting, `repr` and lazy decoding."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import Alarm, Limits, messages
from k2eg_rx.protocol.encode import Serialization, encode_event, encode_structure
from k2eg_rx.protocol.messages import PVData, PVUpdate, repeats
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.records import Headers
from k2eg_rx.protocol.structures import EPICS_EPOCH, Severity
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import Record

STRUCTURE: dict[str, Any] = {
    "value": 1.5,
    "alarm": {"severity": 1},
    "timeStamp": {"secondsPastEpoch": 2, "nanoseconds": 3},
    "display": {"units": "mA"},
}
ADDRESS = PVAddress.parse("pva://my:pv")


def update(body: dict[str, Any]) -> PVUpdate:
    record = Record("my_pv", 2, 17, b"my:pv", pack(body), [("k2eg-ser-type", b"Msgpack")])
    return PVUpdate(ADDRESS, record)


@pytest.mark.parametrize("one", [PVData("my:pv", STRUCTURE), update({"my:pv": STRUCTURE})])
def test_a_pv_has_value_severity_time_and_units(one: PVData) -> None:
    assert (one.name, one.value, one.severity, one.timestamp, one.units) == (
        "my:pv",
        1.5,
        Severity.MINOR,
        2_000_000_003,
        "mA",
    )
    assert one.data == STRUCTURE


def test_absent_fields_are_none_or_empty() -> None:
    empty = PVData("x", {})
    assert (empty.value, empty.severity, empty.timestamp, empty.units) == (None, Severity.NO_ALARM, None, "")
    assert PVData("x", {"display": {"units": 5}}).units == ""
    assert PVData("x", {"display": None}).units == ""


def test_an_update_is_decoded_once_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Record] = []
    decode = messages.decode_body

    def count(record: Record, protocol: str = "") -> dict[str, Any]:
        decoded.append(record)
        return decode(record, protocol)

    monkeypatch.setattr(messages, "decode_body", count)
    one = update({"my:pv": STRUCTURE})
    assert (one.name, one.record.offset) == ("my:pv", 17)
    assert decoded == []
    one.load()
    assert one.value == 1.5
    assert one.data is one.data
    assert len(decoded) == 1


def test_an_update_of_another_pv_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="no structure of 'my:pv'"):
        update({"other": STRUCTURE}).load()


ENUM: dict[str, Any] = {"value": {"index": 1, "choices": ["Off", "Beam"]}}
TABLE: dict[str, Any] = {"labels": ["A", "B"], "value": {"a": [1, 2], "b": ["x", "y"]}}
IMAGE: dict[str, Any] = {"value": {"ushortValue": [1, 2, 3, 4, 5, 6]}, "dimension": [{"size": 3}, {"size": 2}]}
WAVE: dict[str, Any] = {"value": [0.5] * 10_000}
STAMP = {"secondsPastEpoch": 1_795_347_944, "nanoseconds": 687_499_999}


def pv(value: Any, **fields: Any) -> PVData:
    return PVData("demo:pv", {"value": value, **fields})


def test_an_enum_has_a_label_and_choices() -> None:
    assert (PVData("x", ENUM).label, PVData("x", ENUM).choices) == ("Beam", ["Off", "Beam"])
    assert (pv(1.5).label, pv(1.5).choices) == (None, None)
    assert pv({"index": 7, "choices": ["Off"]}).label is None


def test_a_pv_has_an_alarm() -> None:
    alarm = {"severity": 2, "status": 1, "message": "HIHI"}
    assert pv(1, alarm=alarm).alarm == Alarm(Severity.MAJOR, 1, "HIHI")
    assert pv(1).alarm == Alarm(Severity.NO_ALARM, 0, "")
    assert pv(1, alarm={"severity": 1, "status": "x", "message": None}).alarm == Alarm(Severity.MINOR)


def test_a_pv_has_a_time_in_utc() -> None:
    assert pv(1, timeStamp=STAMP).time == datetime(2026, 11, 22, 11, 45, 44, 687_499, tzinfo=UTC)
    assert pv(1, timeStamp={"secondsPastEpoch": 0, "nanoseconds": 0}).time is None
    assert pv(1).time is None


@pytest.mark.parametrize(
    ("display", "precision"),
    [
        ({"precision": 3}, 3),
        ({"precision": -1}, 0),
        ({"format": "F8.2"}, 2),
        ({"format": "I12"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_precision_is_that_of_either_protocol(display: Any, precision: int | None) -> None:
    assert pv(1.5, display=display).precision == precision


def test_limits_are_ranges() -> None:
    limits = pv(
        1.5,
        display={"limitLow": 0.0, "limitHigh": 10.0},
        control={"limitLow": 1.0, "limitHigh": 9.0},
        valueAlarm={"lowAlarmLimit": math.nan, "highAlarmLimit": math.nan, "lowWarningLimit": 2, "highWarningLimit": 8},
    ).limits
    assert limits == Limits(display=(0.0, 10.0), control=(1.0, 9.0), alarm=None, warning=(2, 8))
    assert pv(1.5).limits is None
    assert pv(1.5, display={"limitLow": "x", "limitHigh": 1}).limits is None


def test_an_array_is_one_of_numpy() -> None:
    assert PVData("x", WAVE).array.shape == (10_000,)
    assert PVData("x", IMAGE).array.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"value": 1.5}, "the number 1.5"),
        ({"value": "on"}, "the string 'on'"),
        ({"value": ["a"]}, "an array of 1 element"),
        (TABLE, "a table"),
        ({}, "a structure without a field 'value'"),
    ],
)
def test_a_value_without_an_array_says_what_it_is(data: dict[str, Any], found: str) -> None:
    with pytest.raises(TypeError, match=f"x: array needs a value that is an array of numbers, got {found}$"):
        _ = PVData("x", data).array


def test_an_array_without_numpy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"PVData.array needs numpy.*k2eg\[analysis\]"):
        _ = PVData("x", WAVE).array


def test_a_table_is_a_dict_of_columns() -> None:
    assert PVData("x", TABLE).table == {"a": [1, 2], "b": ["x", "y"]}
    with pytest.raises(TypeError, match="x: table needs an NTTable, got the number 1"):
        _ = PVData("x", {"value": 1}).table


@pytest.mark.parametrize(
    ("data", "as_float", "as_int"),
    [({"value": 1.75}, 1.75, 1), ({"value": 3}, 3.0, 3), ({"value": True}, 1.0, 1), (ENUM, 1.0, 1)],
)
def test_a_scalar_converts_to_numbers(data: dict[str, Any], as_float: float, as_int: int) -> None:
    assert (float(PVData("x", data)), int(PVData("x", data))) == (as_float, as_int)


@pytest.mark.parametrize("data", [{"value": "1.5"}, WAVE, TABLE, {}])
def test_other_values_do_not_convert_to_numbers(data: dict[str, Any]) -> None:
    for convert in (float, int):
        with pytest.raises(TypeError, match="x: a number needs a scalar or an enum, got "):
            convert(PVData("x", data))


@pytest.mark.parametrize(
    ("data", "spec", "text"),
    [
        ({"value": 4.0, "display": {"precision": 3}}, "", "4.000"),
        ({"value": 4.0, "display": {"format": "F6.2"}}, "", "4.00"),
        ({"value": 0.00012, "display": {"precision": 3}}, "", "1.200e-04"),
        ({"value": 0.5, "display": {"precision": 10**9}}, "", "0.50000000000000000"),
        ({"value": 4.25}, "", "4.25"),
        ({"value": 4.25, "display": {"precision": 3}}, ".1e", "4.2e+00"),
        ({"value": 7, "display": {"precision": 3}}, "", "7"),
        ({"value": 7}, "04d", "0007"),
        ({"value": "on"}, "", "on"),
        ({"value": "on"}, ">4", "  on"),
        ({"value": True}, "", "True"),
        (ENUM, "", "Beam"),
        (ENUM, ">6", "  Beam"),
        (ENUM, "d", "1"),
        ({"value": {"index": 9, "choices": []}}, "", "9"),
        (TABLE, "", "PVData('x', table(2 x 2), NO_ALARM, no time)"),
    ],
)
def test_a_pv_is_formatted_by_its_precision_or_label(data: dict[str, Any], spec: str, text: str) -> None:
    assert format(PVData("x", data), spec) == text


def test_only_scalars_take_a_format() -> None:
    with pytest.raises(TypeError, match=r"x: format '.3f' needs a scalar or an enum, got an array of 10000 elements"):
        format(PVData("x", WAVE), ".3f")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"value": 4.0, "display": {"precision": 3, "units": "mA"}}, "4.000 mA"),
        (WAVE, "array(10000)"),
        (TABLE, "table(2 x 2)"),
        (ENUM, "'Beam'"),
        ({"value": {"index": 9, "choices": []}}, "enum(9)"),
        ({"value": "on\n"}, "'on\\n'"),
        ({"value": False}, "False"),
        (IMAGE, "structure(1 field)"),
        ({"a": 1, "b": 2}, "structure(3 fields)"),
    ],
)
def test_repr_shows_value_alarm_and_time(data: dict[str, Any], shown: str) -> None:
    assert repr(PVData("demo:x", data | {"timeStamp": STAMP})) == (
        f"PVData('demo:x', {shown}, NO_ALARM, 2026-11-22 11:45:44.687Z)"
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.text(), st.dictionaries(st.sampled_from(["value", "alarm", "timeStamp", "display", "labels"]), VALUES))
def test_repr_is_one_line_of_at_most_100_characters(name: str, data: dict[str, Any]) -> None:
    for shown in (repr(PVData(name, data)), f"{PVData(name * 100, data | {'value': 'x' * 1000})!r}"):
        assert len(shown) <= 100
        assert shown.isprintable()


@given(st.dictionaries(st.sampled_from(["value", "display", "control", "valueAlarm", "alarm", "timeStamp"]), VALUES))
def test_accessors_accept_any_structure(data: dict[str, Any]) -> None:
    one = PVData("x", data)
    assert one.time is None or one.timestamp is not None
    assert [one.label, one.choices, one.alarm, one.units, one.precision, one.limits, f"{one}"]


def test_an_undecodable_update_has_a_repr() -> None:
    assert repr(update({"other": 1})) == "PVUpdate('my:pv', undecodable)"


def test_completion_lists_every_accessor() -> None:
    accessors = {"value", "label", "choices", "array", "table", "alarm", "severity", "timestamp", "time", "units"}
    accessors |= {"name", "precision", "limits", "data", "address", "record", "replayed"}
    assert accessors <= set(dir(update({})))


def test_pv_data_has_slots_only() -> None:
    assert not hasattr(update({}), "__dict__")
    assert not hasattr(PVData("x", {}), "__dict__")


@pytest.mark.parametrize("serialization", list(Serialization))
@pytest.mark.parametrize(
    ("fields", "headers", "repeated"),
    [
        ({"timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 0}}, (), True),
        ({"timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 0}}, (), False),
        ({"timeStamp": {"secondsPastEpoch": EPICS_EPOCH, "nanoseconds": 0}}, (), False),
        ({"timeStamp": {"secondsPastEpoch": 2**63 - 1, "nanoseconds": 0}}, (), True),
        ({"timeStamp": {"secondsPastEpoch": -1, "nanoseconds": 0}}, (), True),
        ({}, (), False),
        ({}, (("k2eg-repeated", b"1"),), True),
        ({"timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 0}}, (("k2eg-repeated", b"1"),), True),
    ],
)
def test_equal_events_are_repeats_if_they_have_a_time_or_are_marked(
    serialization: Serialization, fields: dict[str, Any], headers: Headers, repeated: bool
) -> None:
    value = encode_event(serialization, "x", encode_structure(serialization, {"value": 1, **fields}))
    event = Record("x", 0, 1, b"x", value, headers)
    assert repeats(event, Record("x", 0, 0, b"x", value)) is repeated
    assert not repeats(event, Record("x", 0, 0, b"x", value + b" "))
    assert not repeats(Record("x", 0, 1, b"x", None, headers), Record("x", 0, 0, b"x", None))
