"""Recurring snapshots on the command line, against a scripted gateway."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest

from k2eg.cli import main
from k2eg_rx import SnapshotProperties, first
from k2eg_rx.protocol import RepeatingSnapshotCommand, RepeatingSnapshotTriggerCommand
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted:
        scripted.pv("my:x", 1.5, units="mm")
        yield scripted


def run(gateway: ScriptedGateway, *words: str) -> int:
    with gateway.clock.running():
        return main(words)


def test_all_properties_reach_the_gateway(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pva://my:x", "--recurring", "orbit", "--every", "200", "--delay", "50", "--all-values", "--push", "100"]
    assert run(gateway, "snapshot", *words, "--fields", "value, alarm", "--count", "1", "--csv") == 0
    (command,) = (one for one in gateway.commands if isinstance(one, RepeatingSnapshotCommand))
    assert (command.snapshot_name, command.time_window_msec, command.repeat_delay_msec) == ("orbit", 200, 50)
    assert (command.sub_push_delay_msec, command.type, command.triggered) == (100, "timedbuffered", False)
    assert command.pv_field_filter_list == ("value", "alarm")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row == {
        "snapshot": "orbit",
        "iteration": "1",
        "time": "",
        "pv": "my:x",
        "value": "1.5",
        "units": "",
        "severity": "NO_ALARM",
        "message": "",
    }


def test_a_snapshot_is_triggered_and_stopped(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    properties = SnapshotProperties(snapshot_name="orbit", pv_uri_list=["pva://my:x"], triggered=True)
    with gateway.client() as other:
        taken: list[object] = []
        ended: list[bool] = []
        snapshots = other.snapshot_recurring_stream(properties)
        snapshots.subscribe(lambda one: taken.append(dict(one.tags)), on_completed=lambda: ended.append(True))
        first(other.snapshot_activation_stream("orbit"))
        assert run(gateway, "trigger", "orbit", "--tag", "run=7", "--tag", "note=a=b") == 0
        gateway.advance(2.0)
        assert taken == [{"run": "7", "note": "a=b"}]
        assert run(gateway, "stop", "orbit") == 0
        assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["orbit", "orbit"]
    assert run(gateway, "trigger", "orbit") == 1
    assert "the gateway answered with error" in capsys.readouterr().err
    assert len([one for one in gateway.commands if isinstance(one, RepeatingSnapshotTriggerCommand)]) == 2


def test_a_tag_has_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trigger", "orbit", "--tag", "run"]) == 2
    assert "must be KEY=TEXT, got 'run'" in capsys.readouterr().err


def test_one_shot_snapshots_are_csv_too(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "snapshot", "pva://my:x", "pva://my:dead", "--csv") == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["pv"], row["value"], row["units"]) for row in rows] == [("my:x", "1.5", "mm"), ("my:dead", "", "")]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--triggered"], "--triggered needs --every"),
        (["--delay", "5"], "--delay needs --every"),
        (["--fields", "value"], "--fields needs --every"),
        (["--recurring", "a", "--name", "b"], "give no --name"),
        (["--recurring", "a", "--window", "5"], "--window is for one-shot snapshots"),
        (["--recurring", "a", "-o", "x.csv"], "--output is for one-shot snapshots"),
    ],
)
def test_options_that_do_not_fit(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "pva://my:x", *words]) == 2
    assert reason in capsys.readouterr().err


def test_snapshots_find_names_over_either_protocol(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("ca://old", 2.5)
    assert run(gateway, "snapshot", "my:x", "old") == 0
    done = capsys.readouterr()
    assert [line.split()[0] for line in done.out.splitlines()] == ["my:x", "old"]
    assert done.err == "k2eg: found over ca, not pva (-p ca asks there at once): old\n"
    assert run(gateway, "snapshot", "--every", "100", "--count", "1", "old") == 0
    assert "2.5" in capsys.readouterr().out
