"""The options for how values are shown, as those of caget, camonitor and pvget."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from k2eg.cli.arguments import parse_arguments
from k2eg.cli.output import print_value
from k2eg.cli.printing.display import display_of
from k2eg.cli.printing.formatting import Formatter
from k2eg_rx import PVData

DATA = PVData(
    "x",
    {
        "value": 31.25,
        "alarm": {"severity": 2, "status": 3, "message": "HIHI"},
        "timeStamp": {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 0},
        "display": {"units": "A"},
    },
)


def shown(*words: str) -> Formatter:
    return display_of(parse_arguments(["get", *words, "pva://x"]), ["pva://x"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-t"], "31.25"),
        (["-t", "-f", "1"], "31.2"),
        (["-t", "-e3"], "3.125e+01"),
        (["-t", "-g", "2"], "31"),
    ],
)
def test_options_are_those_of_caget(words: list[str], line: str) -> None:
    assert shown(*words).pv(DATA) == line


def test_a_word_after_e_and_f_is_an_environment_and_a_list(tmp_path: Path) -> None:
    listed = tmp_path / "pvs"
    listed.write_text("a b\n")
    arguments = parse_arguments(["get", "-e", "lab", "-f", str(listed)])
    assert (arguments.environment, arguments.names, arguments.digits) == ("lab", ["a", "b"], None)


def test_wide_lines_have_an_alarm_each() -> None:
    quiet = PVData("x", {"value": 1})
    assert shown("-a").pv(quiet).endswith("  1  NO_ALARM 0")
    assert shown("-a").pv(DATA).endswith("  31.25 A  MAJOR 3 HIHI")


def test_fields_are_shown_one_per_line() -> None:
    assert shown("-r", "alarm.severity,value").pv(DATA).splitlines()[1:] == ["  alarm.severity: 2", "  value: 31.25"]
    assert json.loads(shown("-r", "alarm.severity", "--json").pv(DATA))["fields"] == {"alarm.severity": 2}


def test_comma_separated_values_have_a_head_and_quotes() -> None:
    formatter = shown("--csv")
    hostile = PVData("a,b", {"value": 'say "x"\n'})
    lines = [formatter.head(), formatter.pv(DATA), formatter.pv(hostile)]
    head, row, other = csv.reader(lines)
    assert head == ["name", "time", "value", "units", "severity", "message"]
    assert row == ["x", "2023-11-14T22:13:20.000000000Z", "31.25", "A", "MAJOR", "HIHI"]
    assert other[:3] == ["a,b", "", 'say "x"\\n']


def test_wrong_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-g", "x"], ["-#", "x"], ["-r", "a b"], ["--timestamp", "never"]):
        with pytest.raises(SystemExit) as exit_:
            shown(*words)
        assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 4


def test_a_separator_stands_between_fields_and_elements(utc: None, capsys: pytest.CaptureFixture[str]) -> None:
    time = "2023-11-14 22:13:20.000000"
    print_value(shown("-F", "\t"), DATA)
    print_value(shown("-F", ";", "-t"), PVData("w", {"value": [1, 2, 3]}))
    print_value(shown("-F", "|", "-#", "2"), PVData("w\x1b", {"value": ["a\tb", "c", "d"]}))
    print_value(shown("-F", ";", "--csv"), PVData("w", {"value": 1}))
    assert capsys.readouterr().out.splitlines() == [
        f"x\t{time}\t31.25\tA\tMAJOR (HIHI)",
        "1;2;3",
        "w\\x1b|<undefined>|a\\tb|c",
        "w,,1,,NO_ALARM,",
    ]


def test_a_get_takes_the_option_of_caget_for_completion() -> None:
    assert parse_arguments(["get", "-c", "pva://x"]).names == ["pva://x"]
