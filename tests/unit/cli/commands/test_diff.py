"""``k2eg diff``, and the files of ``k2eg snapshot -o``, against a scripted gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted:
        scripted.pv("my:x", 1.5, units="mm")
        scripted.pv("my:mode", "On", choices=["Off", "On"])
        scripted.pv("my:wave", [1.0, 2.0])
        yield scripted


def run(gateway: ScriptedGateway, *words: str) -> int:
    with gateway.clock.running():
        return main(words)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_machine_is_as_it_was_saved_until_it_changes(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file = str(tmp_path / f"saved.{form}")
    assert run(gateway, "snapshot", "pva://my:x", "pva://my:mode", "pva://my:wave", "-o", file) == 0
    assert capsys.readouterr().err == f"k2eg: 3 of 3 PVs saved in {file}\n"
    assert run(gateway, "diff", file) == 0
    assert capsys.readouterr().err == "k2eg: 3 PVs, no difference\n"
    gateway["my:x"].post(1.52)
    gateway["my:mode"].post("Off")
    assert run(gateway, "diff", file) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["PV", "saved", "now", "units"],
        ["pva://my:x", "1.5", "1.52", "mm"],
        ["pva://my:mode", "On", "Off"],
    ]
    assert run(gateway, "diff", file, "--tolerance", "0.1", "--json") == 1
    (found,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == {"pv": "pva://my:mode", "saved": "On", "now": "Off", "units": "", "reason": ""}


def test_a_pv_without_a_value_is_saved_as_such(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "saved.csv")
    assert run(gateway, "snapshot", "pva://my:x", "pva://my:dead", "-o", file) == 1
    assert "no value of my:dead" in capsys.readouterr().err
    assert Path(file).read_text().splitlines()[2] == "pva://my:dead,,,NO_VALUE,"
    assert run(gateway, "diff", file, "--timeout", "0.5") == 1
    assert "not read" in capsys.readouterr().out


def test_two_files_are_compared_without_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.json"
    one.write_text('pv,value\npva://a,1.0\npva://b,On\npva://c,"[1, 2]"\npva://d,7\n')
    rows = [{"pv": "ca://a", "value": 1}, {"pv": "pva://b", "value": "Off"}, {"pv": "pva://c", "value": [1, 2]}]
    two.write_text(json.dumps({"k2eg_saved_values": 1, "pvs": [*rows, {"pv": "pva://e", "value": 2}]}))
    assert main(["diff", str(one), str(two)]) == 1
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["PV", "saved", "other", "units"],
        ["pva://b", "On", "Off"],
        ["pva://d", "7", "-", "only", "in", "the", "first", "file"],
        ["pva://e", "-", "2", "only", "in", "the", "second", "file"],
    ]
    assert main(["diff", str(one), str(one)]) == 0


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a.csv", "b.csv", "c.csv"]) == 2
    assert "one file or two are compared, got 3" in capsys.readouterr().err
    assert main(["snapshot", "pva://my:x", "-o", "x.txt"]) == 2
    assert "must end with .csv or .json" in capsys.readouterr().err
    assert main(["snapshot", "pva://my:x", "-o", "x.csv", "--every", "1000"]) == 2
    assert "--output is for one-shot snapshots" in capsys.readouterr().err
