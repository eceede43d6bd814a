"""The border to the terminal: nothing raw, and no value lost to an encoding."""

from __future__ import annotations

import io
import sys

import pytest

from k2eg.cli.output import escape_what_encodings_lack, print_lines, print_note, print_value, terminal_columns
from k2eg.cli.printing.formatting import Formatter
from k2eg_rx import PVData, Samples, Snapshot

HOSTILE = "a\x1b[2J\x07\x9b31m\u202e\nforged\r\u2028b"
PV = PVData(
    HOSTILE,
    {
        "value": HOSTILE,
        "alarm": {"severity": 2, "status": 0, "message": HOSTILE},
        "display": {"units": HOSTILE, "description": HOSTILE},
        HOSTILE: {HOSTILE: HOSTILE},
    },
)
TABLE = PVData("t", {"labels": [HOSTILE], "value": {HOSTILE: [HOSTILE]}})
ENUM = PVData("e", {"value": {"index": 0, "choices": [HOSTILE]}})


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("json", [False, True])
def test_nothing_that_is_printed_steers_the_terminal(
    capsys: pytest.CaptureFixture[str], full: bool, json: bool
) -> None:
    formatter = Formatter(json=json, full=full)
    for data in (PV, TABLE, ENUM):
        print_lines(formatter.pv(data))
    print_lines(
        formatter.snapshot(Snapshot(HOSTILE, {HOSTILE: Samples([PV.data]), "b" + HOSTILE: Samples()}, iteration=1))
    )
    print_lines(formatter.change("pva://x", PV, ENUM))
    print_lines(formatter.intention("pva://x", ENUM, HOSTILE))
    print_note(HOSTILE)
    out, err = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert not any(line.startswith("forged") for line in (out + err).splitlines())
    assert err.count("\n") == 1


def test_lines_are_escaped_at_the_border(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("a\x1b[2J\nb\r")
    assert capsys.readouterr().out == "a\\x1b[2J\nb\\r\n"


def test_a_value_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("x" * 100_000)
    assert capsys.readouterr().out == "x" * 100_000 + "\n"


def test_what_an_encoding_lacks_costs_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    escape_what_encodings_lack()
    print_lines("21.5 °C")
    assert raw.getvalue() == b"21.5 \\xb0C\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ALARMED = PVData("x", {"value": 1.5, "alarm": {"severity": 2, "status": 1, "message": HOSTILE}})


@pytest.mark.parametrize(
    ("variables", "is_coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({}, False)],
)
def test_alarms_are_coloured_on_a_terminal_that_has_colours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_coloured: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_value(Formatter(), ALARMED)
    out = terminal.getvalue()
    assert ("\x1b[1;31mMAJOR (" in out) is is_coloured
    plain = out.replace("\x1b[1;31m", "").replace("\x1b[0m", "")
    assert all(char.isprintable() or char == "\n" for char in plain)


def test_a_stream_that_is_no_terminal_has_neither_colours_nor_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal_columns() is None
    print_value(Formatter(), ALARMED)
    assert "\x1b" not in capsys.readouterr().out
