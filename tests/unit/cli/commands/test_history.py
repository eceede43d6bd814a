"""``k2eg history`` against a scripted gateway."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg_rx.recording import replay_file
from k2eg_rx.testing import ScriptedGateway

INTERVAL = ("--since", "2026-01-01T00:00Z", "--until", "2026-01-01T00:10Z")


@pytest.fixture
def gateway(utc: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    """A gateway that has published ten values of one PV, a second apart, and nothing of the other."""
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted, scripted.client() as client:
        current = scripted.pv("my:current", 0.0, units="A")
        mode = scripted.pv("my:mode", "Off", choices=["Off", "On"])
        scripted.pv("my:silent", 1.0)
        stream = client.monitor_many_stream(["pva://my:current", "pva://my:mode"])
        stream.subscribe(lambda _: None)
        for number in range(1, 31):
            scripted.advance(1.0)
            current.post(float(number), severity=1 if number == 10 else 0, message="high" if number == 10 else "")
        mode.post("On")
        scripted.advance(600.0)
        yield scripted


def history(gateway: ScriptedGateway, *words: str) -> int:
    with gateway.clock.running():
        return main(["history", *words, *INTERVAL])


def test_the_summary_comes_first_and_then_the_newest_values(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert history(gateway, "pva://my:current") == 0
    done = capsys.readouterr()
    lines = done.out.splitlines()
    assert lines[0].endswith("(10 min)")
    assert lines[1].split() == ["PV", "updates", "rate", "first", "min", "mean", "max", "units", "in", "alarm"]
    assert lines[2].split() == ["my:current", "31", "1", "Hz", "00:00:00", "0", "15", "30", "A", "1.0", "s"]
    assert lines[3] == "... 11 earlier values: --all, --every or --csv prints them"
    assert len(lines[4:]) == 20
    assert lines[-1].startswith("my:current  2026-01-01 00:00:30.")
    assert lines[-1].endswith("  30 A")
    assert not done.err


def test_all_values_are_printed_on_request(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "my:current", "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 + 31


def test_json_has_an_object_for_each_value(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "pva://my:current", "pva://my:mode", "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(objects) == 33
    assert [found["value"] for found in objects if found["name"] == "my:mode"] == ["Off", "On"]


def test_csv_has_a_row_for_each_value(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "pva://my:current", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 31
    assert rows[10] == {
        "time": "2026-01-01T00:00:10.000000000Z",
        "pv": "my:current",
        "value": "10.0",
        "units": "A",
        "severity": "MINOR",
        "message": "high",
    }


def test_values_at_regular_times(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "pva://my:current", "pva://my:mode", "--every", "10s", "--csv") == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["time", "my:current", "my:mode"]
    assert rows[1:4] == [
        ["2026-01-01T00:00:00.000000000Z", "0.0", "Off"],
        ["2026-01-01T00:00:10.000000000Z", "10.0", "Off"],
        ["2026-01-01T00:00:20.000000000Z", "20.0", "Off"],
    ]
    assert rows[-1] == ["2026-01-01T00:09:50.000000000Z", "30.0", "On"]
    assert len(rows) == 1 + 60


def test_a_table_of_values_at_regular_times(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "pva://my:current", "pva://my:mode", "--every", "10s") == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(index for index, line in enumerate(lines) if line.startswith("time"))
    assert heading == 4
    assert lines[heading + 2].split() == ["2026-01-01", "00:00:10.000000", "10", "Off", "(0)"]
    assert len(lines[heading + 1]) == len(lines[heading + 2])


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_the_summary_alone_for_scripts(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert history(gateway, "pva://my:current", "--summary", form) == 0
    text = capsys.readouterr().out
    (found,) = [json.loads(text)] if form == "--json" else csv.DictReader(io.StringIO(text))
    assert (found["name"], str(found["count"]), float(found["greatest"])) == ("my:current", "31", 30.0)
    assert found["first"] == "2026-01-01T00:00:00.000000000Z"


def test_a_parquet_file_holds_all_values(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.parquet"
    assert history(gateway, "pva://my:current", "--parquet", str(file)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"31 updates in {file}"
    assert history(gateway, "pva://my:current", "--parquet", str(file)) == 1
    assert "path must not exist" in capsys.readouterr().err
    found = []
    replay_file(file).subscribe(found.append)
    gateway.advance(0.0)
    assert [update.value for update in found] == [float(number) for number in range(31)]


def test_a_name_without_protocol_has_the_history_of_the_one_that_was_monitored(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("ca://my:old", 7.0)
    with gateway.client() as client:
        client.monitor_many_stream(["ca://my:old"]).subscribe(lambda _: None)
        gateway.advance(60.0)
        words = ["history", "my:old", "my:current", "pva://my:mode", "--summary", "--json", *INTERVAL]
        words[-1] = "2026-01-01T00:11Z"
        with gateway.clock.running():
            assert main(words) == 0
    done = capsys.readouterr()
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["my:old", "my:current", "my:mode"]
    assert done.err == "k2eg: found over ca, not pva (-p ca asks there at once): my:old\n"


def test_a_protocol_that_is_given_is_the_only_one(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "-p", "ca", "my:silent") == 1
    assert "no history of ca://my:silent:" in capsys.readouterr().err


def test_a_pv_without_history_is_named(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(gateway, "pva://my:silent", "pva://my:current") == 1
    done = capsys.readouterr()
    assert "my:current" in done.out
    assert done.err == (
        "k2eg: no history of pva://my:silent: no client has monitored it in this time, or Kafka keeps it no longer\n"
    )


def test_an_empty_interval_is_an_error(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["history", "pva://my:current", "--since", "2026-01-01T00:10Z", "--until", "2026-01-01T00:00Z"]
    assert main(words) == 2
    assert "--since must be before --until" in capsys.readouterr().err


def test_kafka_that_does_not_answer_is_named(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.broker.go_down()
    assert history(gateway, "pva://my:current") == 3
    assert capsys.readouterr().err == "k2eg: the broker went down\n"
