import json
import math
import re
from typing import Any

import pytest

from k2eg.cli.printing.formatting import (
    Formatter,
    format_value,
    jsonable,
    local_time,
    printable,
    pv_object,
    table_lines,
    utc_time,
)
from k2eg_rx import PVData, Samples, Snapshot

TIME = {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 123_456_789, "userTag": 0}
TABLE = {"labels": ["Element", "S"], "value": {"element": ["Q1", "BPM2"], "s": [0.5, 12.25]}}


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 2**63 - 1, -(2**63), -86_400, 95_617_584_000])
def test_a_time_that_no_calendar_has_costs_no_value(seconds: int) -> None:
    pv = PVData("t:off", structure(1.5) | {"timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": 5, "userTag": 0}})
    assert Formatter().pv(pv).endswith("  1.5")
    shown = json.loads(Formatter(json=True).pv(pv))
    assert (shown["value"], shown["timestamp_ns"]) == (1.5, pv.timestamp)
    assert local_time(pv.timestamp).startswith(("1969", "5000", str(seconds)[:5]))


def test_a_time_that_no_calendar_has_is_given_in_seconds() -> None:
    assert local_time(10**21 + 5000) == "1000000000000.000005 s".ljust(26)
    assert utc_time(10**21) is None


@pytest.mark.parametrize("precision", [20_000_000, 10**9, 2**31 - 1])
def test_a_precision_beyond_that_of_numbers_makes_no_long_lines(precision: int) -> None:
    assert len(format_value(PVData("p", structure(1.5, display={"precision": precision})))) < 40


def structure(value: object, **parts: Any) -> dict[str, Any]:
    return {"value": value, "alarm": {"severity": 0, "status": 0, "message": ""}, "timeStamp": TIME, **parts}


def sum_pv() -> PVData:
    display = {"units": "A", "precision": 3}
    alarm = {"severity": 2, "status": 1, "message": "HIHI"}
    return PVData("demo:sum", structure(18.5, display=display) | {"alarm": alarm})


@pytest.mark.parametrize(
    ("pv", "text"),
    [
        (structure(1.25), "1.25"),
        (structure(1 / 3), "0.333333"),
        (structure(float("nan")), "nan"),
        (structure(1.5, display={"precision": 3}), "1.500"),
        (structure(0.0, display={"precision": 3}), "0.000"),
        (structure(0.000012, display={"precision": 3}), "1.200e-05"),
        (structure(1.5e12, display={"precision": 1}), "1.5e+12"),
        (structure(float("inf"), display={"precision": 3}), "inf"),
        (structure(1.5, display={"format": "F8.2"}), "1.50"),
        (structure(7, display={"precision": 3}), "7"),
        (structure(True), "true"),
        (structure("two\nlines\x1b[2J"), "two\\nlines\\x1b[2J"),
        (structure("übung"), "übung"),
        (structure({"index": 1, "choices": ["Off", "On"]}), "On (1)"),
        (structure({"index": 7, "choices": ["Off", "On"]}), '{"index": 7, "choices": ["Off", "On"]}'),
        (structure([1, 2, 3]), "[1, 2, 3]"),
        (structure([]), "[]"),
        (structure([0.5] * 9, display={"precision": 1}), "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, ...] (9 values)"),
        (structure(["a", "b"]), "[a, b]"),
        (TABLE, "2 rows of element, s"),
        ({"labels": ["n"], "value": {"n": [1]}}, "1 row of n"),
        ({"a": 1, "b": {"c": [1.5]}}, '{"a": 1, "b": {"c": [1.5]}}'),
        (structure({"ushortValue": [1, 2]}), '{"ushortValue": [1, 2]}'),
    ],
)
def test_values_follow_the_precision_of_their_pv(pv: dict[str, Any], text: str) -> None:
    assert format_value(PVData("x", pv)) == text


def test_a_line_has_name_time_value_units_and_alarm() -> None:
    line = Formatter(name_width=10).pv(sum_pv())
    assert re.fullmatch(r"demo:sum    \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.123456  18\.500 A  MAJOR \(HIHI\)", line)


def test_a_pv_without_alarm_has_no_alarm_column() -> None:
    assert Formatter().pv(PVData("x", structure(1))).endswith("  1")


def test_an_unset_time_is_undefined_and_has_the_width_of_a_time() -> None:
    assert len(local_time(None)) == len(local_time(1))
    assert "<undefined>" in Formatter().pv(PVData("x", {"value": 1}))


@pytest.mark.parametrize("seconds", [0, 631_152_000])
def test_a_time_that_was_never_set_is_undefined(seconds: int) -> None:
    data = PVData("x", {"value": 1, "timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": 0}})
    assert "<undefined>" in Formatter().pv(data)
    assert json.loads(Formatter(json=True).pv(data))["timestamp"] is None


def test_a_table_has_a_line_per_row() -> None:
    lines = Formatter().pv(PVData("t", TABLE)).splitlines()
    assert lines[1:] == ["  element  s", "  Q1       0.5", "  BPM2     12.25"]


def test_a_long_or_ragged_table_is_truncated() -> None:
    lines = list(table_lines({"n": list(range(25)), "short": [1]}))
    assert lines[1:3] == ["0   1", "1"]
    assert lines[-1] == "... 5 more rows"
    assert list(table_lines({"n": []})) == ["n"]


def test_full_output_has_every_field() -> None:
    lines = Formatter(full=True).pv(sum_pv()).splitlines()
    assert "  display:" in lines
    assert "    units: A" in lines
    assert "    message: HIHI" in lines
    assert "  value: 18.5" in lines


def test_json_always_has_the_same_keys() -> None:
    assert json.loads(Formatter(json=True).pv(sum_pv())) == {
        "name": "demo:sum",
        "value": 18.5,
        "units": "A",
        "severity": "MAJOR",
        "timestamp": "2023-11-14T22:13:20.123456789Z",
        "timestamp_ns": 1_700_000_000_123_456_789,
    }
    assert list(pv_object(PVData("x", {"a": 1}))) == list(pv_object(sum_pv()))


def test_json_has_an_enums_label_and_index() -> None:
    found = pv_object(PVData("m", structure({"index": 1, "choices": ["Off", "On"]})))
    assert (found["value"], found["index"]) == ("On", 1)


def test_json_full_has_the_whole_structure() -> None:
    pv = sum_pv()
    assert json.loads(Formatter(json=True, full=True).pv(pv))["data"] == pv.data


def test_json_is_valid_for_nan_and_infinity() -> None:
    value = jsonable({"a": [math.nan, math.inf, -math.inf, 1.5], 3: b"raw", "t": (1,)})
    assert value == {"a": ["NaN", "Infinity", "-Infinity", 1.5], "3": "raw", "t": [1]}
    json.dumps(value, allow_nan=False)


def test_utc_time_has_nanoseconds_also_before_the_epoch() -> None:
    assert utc_time(1) == "1970-01-01T00:00:00.000000001Z"
    assert utc_time(-1) == "1969-12-31T23:59:59.999999999Z"


def test_control_characters_are_escaped() -> None:
    assert printable("a\tb\x07\u202e") == "a\\tb\\x07\\u202e"


def test_a_change_has_the_old_and_the_new_value() -> None:
    before, after = PVData("x", structure(1.25)), PVData("x", structure(2.5, display={"units": "A"}))
    assert Formatter(name_width=3).change("pva://x", before, after) == "x    1.25 -> 2.5 A"
    assert Formatter(terse=True).change("pva://x", before, after) == "2.5"
    found = json.loads(Formatter(json=True).change("pva://x", before, after, is_completed=True))
    assert (found["uri"], found["old"], found["value"], found["completed"]) == ("pva://x", 1.25, 2.5, True)


def test_a_snapshot_has_a_line_per_sample() -> None:
    data = {"a": Samples([structure(1), structure(2)]), "bb": Samples()}
    lines = (
        Formatter(name_width=2)
        .snapshot(Snapshot("s", data, timestamp=1_700_000_000_500_000_000, iteration=3))
        .splitlines()
    )
    assert lines[0].startswith("s 3  ")
    assert lines[0].endswith(".500000")
    assert [line[-1] for line in lines[1:3]] == ["1", "2"]
    assert lines[3] == "  bb  no value"


def test_an_incomplete_snapshot_says_so() -> None:
    lacking = Snapshot("s", {"a": Samples()}, timestamp=5_000_000, iteration=1, missing=3)
    assert Formatter().snapshot(lacking).splitlines()[0].endswith("  incomplete, messages missing: 3")
    assert json.loads(Formatter(json=True).snapshot(lacking))["missing"] == 3


def test_a_one_shot_snapshot_has_no_headline() -> None:
    lines = Formatter().snapshot(Snapshot("some-id", {"a": Samples([structure(1)])})).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("a ")


def test_a_snapshot_in_json_is_one_line() -> None:
    data = {"a": Samples([structure(1)]), "b": Samples()}
    line = Formatter(json=True).snapshot(Snapshot("s", data, timestamp=5_000_000, iteration=1))
    found = json.loads(line)
    assert (found["snapshot"], found["iteration"], found["timestamp_ms"]) == ("s", 1, 5)
    assert [sample["value"] for sample in found["pvs"]["a"]] == [1]
    assert found["pvs"]["b"] == []
    one_shot = json.loads(Formatter(json=True).snapshot(Snapshot("id", {})))
    assert (one_shot["iteration"], one_shot["timestamp_ms"]) == (None, None)
