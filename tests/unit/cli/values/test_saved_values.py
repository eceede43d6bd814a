"""Files of saved values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2eg.cli.values.saved_values import SavedValue, read_saved, saved, text_of, write_new
from k2eg_rx.testing import update

UPDATES = {
    "pva://my:x": update("my:x", 0.1 + 0.2, units="mm", severity=1),
    "ca://my:count": update("my:count", 2**53 + 1),
    "pva://my:mode": update("my:mode", "On", choices=["Off", "On"]),
    "pva://my:text": update("my:text", 'a "b",\nc'),
    "pva://my:wave": update("my:wave", [1.5, 2.5]),
}


@pytest.fixture(params=["csv", "json"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / f"settings.{request.param}")


def test_values_are_read_as_they_were_written(path: str) -> None:
    values = [*(saved(uri, data) for uri, data in UPDATES.items()), saved("pva://my:dead", None)]
    write_new(path, text_of(values, path.rpartition(".")[2], "2026-01-01T00:00:00+00:00"))
    again = read_saved(path)
    assert [value.uri for value in again] == [*UPDATES, "pva://my:dead"]
    assert [value.has_value for value in again] == [True] * 5 + [False]
    found = [value.value for value in again[:5]]
    if path.endswith("csv"):
        assert found == [repr(0.1 + 0.2), str(2**53 + 1), "On", 'a "b",\nc', "[1.5, 2.5]"]
    else:
        assert found == [0.1 + 0.2, 2**53 + 1, "On", 'a "b",\nc', [1.5, 2.5]]
    assert (again[0].units, again[0].severity, again[0].time) == ("mm", "MINOR", "2026-01-01T00:00:00.000000000Z")


def test_a_file_is_never_overwritten(path: str) -> None:
    write_new(path, "one")
    with pytest.raises(ValueError, match="exists already"):
        write_new(path, "two")
    assert Path(path).read_text() == "one"


def test_a_file_that_cannot_be_written_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        write_new(str(tmp_path / "missing" / "x.csv"), "")
    with pytest.raises(UnicodeEncodeError):
        write_new(str(tmp_path / "x.csv"), "\ud800")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["pva://my:x", "ca://my:x", "pva://my:x.VAL"])
def test_a_record_that_stands_twice_is_refused(path: str, other: str) -> None:
    values = [SavedValue("pva://my:x", 1.0), SavedValue("pva://my:y", 1.0), SavedValue(other, 2.0)]
    write_new(path, text_of(values, path.rpartition(".")[2], ""))
    with pytest.raises(ValueError, match=f"{other} is pva://my:x of (line 2|entry 1) again"):
        read_saved(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the first line must name the columns pv, value, units, severity, time"),
        ("pv,value\n", "has no PVs"),
        ("pv,value\nmy:x,1\n", "line 2: .*the protocol must be"),
        ("pv,value\npva://my:x\n", "line 2: it must have 2 cells"),
        ("pv,value\npva://my:x,1,5\n", "line 2: it must have 2 cells"),
        ('pv,value\npva://my:x,"1\n', "line .: unexpected end of data"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_saved(str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "is no JSON"),
        ([], "is no file of saved values, version 1"),
        ({"k2eg_saved_values": 2, "pvs": []}, "is no file of saved values, version 1"),
        ({"k2eg_saved_values": 1, "pvs": []}, "has no PVs"),
        ({"k2eg_saved_values": 1, "pvs": [3]}, "entry 1: it must be an object"),
        ({"k2eg_saved_values": 1, "pvs": [{"value": 1}]}, "entry 1: .*must be a string"),
    ],
)
def test_malformed_json_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        read_saved(str(path))


def test_a_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfpv,value,units\r\npva://my:x,1.5,A\r\n")
    (value,) = read_saved(str(path))
    assert (value.uri, value.value, value.units, value.severity) == ("pva://my:x", "1.5", "A", "")


def test_another_ending_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must end with .csv or .json, got 'x.txt'"):
        read_saved("x.txt")
