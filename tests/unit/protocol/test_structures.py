"""Severity, time and fields of a PV's structure."""

from __future__ import annotations

import operator
from datetime import UTC, datetime
from typing import Any

import pytest

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol.structures import (
    EPICS_EPOCH,
    FIELD_IGNORED,
    FIELD_MISSING,
    Severity,
    datetime_of,
    select_field,
    severity_of,
    structure_of,
    timestamp_of,
)
from k2eg_rx.pv import PVAddress

WHOLE: dict[str, Any] = {
    "value": 1.5,
    "alarm": {"severity": 2, "status": 3, "message": "HIHI"},
    "timeStamp": {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 5, "userTag": 0},
    "display": {"form": {"index": 4}},
}


@pytest.mark.parametrize(
    ("alarm", "severity"),
    [
        ({"severity": 0}, Severity.NO_ALARM),
        ({"severity": 1}, Severity.MINOR),
        ({"severity": 2}, Severity.MAJOR),
        ({"severity": 3}, Severity.INVALID),
        ({"severity": 4}, Severity.UNDEFINED),
        ({"severity": 5}, Severity.UNDEFINED),
        ({"severity": -1}, Severity.UNDEFINED),
        ({}, Severity.NO_ALARM),
        ({"severity": "MAJOR"}, Severity.NO_ALARM),
        (None, Severity.NO_ALARM),
        (3, Severity.NO_ALARM),
    ],
)
def test_the_alarms_severity(alarm: Any, severity: Severity) -> None:
    assert severity_of({"alarm": alarm}) is severity


def test_no_alarm_field_is_no_alarm() -> None:
    assert severity_of({"value": 1}) is Severity.NO_ALARM


def test_the_time_is_in_integer_nanoseconds_without_loss() -> None:
    stamp = {"secondsPastEpoch": 1_795_333_367, "nanoseconds": 840_808_267}
    assert timestamp_of({"timeStamp": stamp}) == 1_795_333_367_840_808_267


@pytest.mark.parametrize("stamp", [None, {}, {"secondsPastEpoch": 1}, {"secondsPastEpoch": 1.5, "nanoseconds": 0}, 5])
def test_no_time_is_none(stamp: Any) -> None:
    assert timestamp_of({"timeStamp": stamp}) is None
    assert timestamp_of({}) is None


@pytest.mark.parametrize("seconds", [0, EPICS_EPOCH])
@pytest.mark.parametrize("nanoseconds", [0, 5])
def test_a_time_that_was_never_set_is_none(seconds: int, nanoseconds: int) -> None:
    assert timestamp_of({"timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds}}) is None


def test_a_datetime_is_in_utc_and_cut_to_microseconds() -> None:
    assert datetime_of(1_795_333_367_840_808_267) == datetime(2026, 11, 22, 7, 42, 47, 840_808, tzinfo=UTC)
    assert datetime_of(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize("timestamp", [None, 10**21, -(10**21), 10**40])
def test_a_time_that_a_datetime_cannot_express_is_none(timestamp: int | None) -> None:
    assert datetime_of(timestamp) is None


def test_a_selected_field_has_alarm_and_time() -> None:
    field = select_field(WHOLE, "display.form.index", "pva://x.display.form.index")
    assert field == {"value": 4, "alarm": WHOLE["alarm"], "timeStamp": WHOLE["timeStamp"]}
    assert select_field({"a": {"b": 1}}, "a", "pva://x.a") == {"value": {"b": 1}}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nope", "no field 'nope'; there is value, alarm, timeStamp, display"),
        ("alarm.nope", "no field 'nope'; there is severity, status, message"),
        ("value.nope", "no field 'nope'; there is no fields"),
    ],
)
def test_a_missing_field_is_an_operation_error_with_the_known_fields(path: str, text: str) -> None:
    with pytest.raises(OperationError, match=text) as caught:
        select_field(WHOLE, path, f"pva://x.{path}")
    assert (caught.value.error, caught.value.subject) == (FIELD_MISSING, f"pva://x.{path}")


def test_a_structure_is_found_under_the_requested_name() -> None:
    assert structure_of(PVAddress.parse("pva://my:pv"), {"error": 0, "my:pv": WHOLE}) is WHOLE
    assert structure_of(PVAddress.parse("pva://my:pv.HIGH"), {"my:pv.HIGH": WHOLE}) is WHOLE


def test_a_path_is_selected_where_the_gateway_sends_the_record() -> None:
    found = structure_of(PVAddress.parse("pva://my:pv.alarm.status"), {"my:pv": WHOLE})
    assert found["value"] == 3


def test_a_record_is_not_returned_for_its_field() -> None:
    with pytest.raises(OperationError, match="does not know record fields: it answered with my:pv itself") as caught:
        structure_of(PVAddress.parse("pva://my:pv.HIGH"), {"my:pv": WHOLE})
    assert (caught.value.error, caught.value.subject) == (FIELD_IGNORED, "pva://my:pv.HIGH")


@pytest.mark.parametrize("body", [{}, {"other": {}}, {"my:pv": 5}, {"my:pv": None}])
@pytest.mark.parametrize("uri", ["pva://my:pv", "pva://my:pv.alarm"])
def test_a_message_of_another_pv_is_a_wire_error(uri: str, body: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="no structure of 'my:pv") as caught:
        structure_of(PVAddress.parse(uri), body)
    assert caught.value.kind == "shape"


def test_severities_compare_with_numbers_and_names() -> None:
    major = Severity.MAJOR
    assert major == "MAJOR"
    assert major != "MINOR"
    assert "MINOR" < major <= "MAJOR"
    assert major > "NO_ALARM"
    assert major >= 2
    assert (major == 2, major == Severity.MAJOR, major == 2.0, major != 3, major == None) == (*[True] * 4, False)  # noqa: E711
    assert {2: "x"}[major] == "x"
    assert max(Severity) is Severity.UNDEFINED


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.ge, operator.lt])
def test_a_misspelt_severity_is_an_error(compare: Any) -> None:
    with pytest.raises(ValueError, match="one of NO_ALARM, MINOR, MAJOR, INVALID, UNDEFINED, got 'MAYOR'"):
        compare(Severity.MAJOR, "MAYOR")
