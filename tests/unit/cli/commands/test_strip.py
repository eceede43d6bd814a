"""``k2eg strip --once`` against a scripted gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg_rx.testing import ScriptedGateway

INTERVAL = ("--since", "2026-01-01T00:00Z", "--until", "2026-01-01T00:01Z")


@pytest.fixture
def gateway(utc: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    """A gateway that has published a ramp, and nothing of the other PV."""
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    with ScriptedGateway() as scripted, scripted.client() as client:
        current = scripted.pv("my:current", 0.0, units="A")
        scripted.pv("my:silent", 1.0)
        client.monitor_stream("pva://my:current").subscribe(lambda _: None)
        for number in range(1, 61):
            scripted.advance(1.0)
            current.post(float(number // 20))
        yield scripted


def strip(gateway: ScriptedGateway, *words: str) -> int:
    with gateway.clock.running():
        return main(["strip", *words])


def test_one_chart_needs_no_terminal_and_no_textual(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert strip(gateway, "my:current", "--once", *INTERVAL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0] == "2 ┤                      ⡏⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉ a"
    assert lines[-3:] == [
        "  └┬───────────────┬───────────────┬",
        "   00:00:00    00:00:30     00:01:00",
        " a my:current  2 A",
    ]


def test_pvs_without_history_are_named_after_the_chart(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strip(gateway, "my:current", "my:silent", "--once", *INTERVAL) == 1
    done = capsys.readouterr()
    assert done.out.endswith(">a my:current  2 A\n b my:silent   no value\n")
    assert done.err.startswith("k2eg: no history of pva://my:silent: ")


def test_files_of_other_strip_charts_have_ranges(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "gun.stp"
    path.write_text("Strip.Curve.0.Name my:current\nStrip.Curve.0.Min -100\nStrip.Curve.0.Max 100\n")
    assert strip(gateway, "-f", str(path), "--once", *INTERVAL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(" 100 ┤")
    assert any(line.startswith("-100 ┤") for line in lines)


def test_the_range_can_be_given(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert strip(gateway, "my:current", "--once", "--range=-10:10", *INTERVAL) == 0
    assert capsys.readouterr().out.startswith(" 10 ┤")


def test_without_a_terminal_it_says_what_to_do(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert strip(gateway, "my:current") == 2
    assert capsys.readouterr().err == "k2eg: a strip chart needs a terminal: --once prints one as text\n"


@pytest.mark.parametrize(
    "words", [("--range", "5:1"), ("--range", "x"), ("--until", "now"), ("--once", "--until", "1h"), ("-f", "none.plt")]
)
def test_arguments_that_are_none(gateway: ScriptedGateway, words: tuple[str, ...]) -> None:
    assert strip(gateway, "my:current", *words) == 2


def test_names_are_found_over_either_protocol(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    old = gateway.pv("ca://old", 0.0)
    with gateway.client() as client:
        client.monitor_stream("ca://old").subscribe(lambda _: None)
        gateway.advance(1.0)
        old.post(5.0)
        gateway.advance(1.0)
    until = f"{gateway.clock.now:%Y-%m-%dT%H:%M:%SZ}"
    assert strip(gateway, "old", "--once", "--since", INTERVAL[1], "--until", until) == 0
    assert capsys.readouterr().out.endswith("a old  5\n")
