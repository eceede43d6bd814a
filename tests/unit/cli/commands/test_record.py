"""``k2eg record`` and ``k2eg replay`` against a scripted gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import reactivex as rx

from k2eg.cli import main
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted:
        yield scripted


def run(gateway: ScriptedGateway, *words: str) -> int:
    with gateway.clock.running():
        return main(words)


def test_a_recording_is_replayed(gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, file = gateway.pv("my:x", 0.0), str(tmp_path / "run.parquet")
    posts = rx.interval(0.1, scheduler=gateway.clock).subscribe(lambda number: x.post(float(number)))
    assert run(gateway, "record", "my:x", "-o", file, "--count", "5") == 0
    posts.dispose()
    assert capsys.readouterr().err == f"k2eg: 5 updates of 1 PVs in {file}\n"
    assert run(gateway, "replay", file, "--json") == 0
    values = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    assert len(values) == 5
    assert values == sorted(values)


def test_only_some_pvs_are_replayed(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("my:x", 0.5)
    gateway.pv("my:mode", "On", choices=["Off", "On"])
    file = str(tmp_path / "run.parquet")
    assert run(gateway, "record", "pva://my:x", "pva://my:mode", "-o", file, "--duration", "500ms") == 0
    assert capsys.readouterr().err == f"k2eg: 2 updates of 2 PVs in {file}\n"
    assert run(gateway, "replay", file, "--only", "my:mode", "--speed", "1000") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("my:mode  ")
    assert line.endswith("On (1)")


def test_a_silent_pv_is_named_and_the_others_are_recorded(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("my:x", 0.5)
    file = str(tmp_path / "run.parquet")
    assert run(gateway, "record", "pva://my:x", "pva://my:dead", "-o", file, "--duration", "500ms") == 1
    assert capsys.readouterr().err == (
        f"k2eg: 1 updates of 1 PVs in {file}\nk2eg: record: no update of pva://my:dead; does the PV exist?\n"
    )
    assert run(gateway, "replay", file) == 0


def test_a_file_is_never_overwritten(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.parquet"
    file.write_text("precious")
    assert main(["record", "pva://my:x", "-o", str(file)]) == 1
    assert "path must not exist" in capsys.readouterr().err
    assert file.read_text() == "precious"


def test_what_is_no_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.parquet"
    assert main(["replay", str(file)]) == 1
    assert "path must be a file or folder that exists" in capsys.readouterr().err
    file.write_text("text")
    assert main(["replay", str(file)]) == 1
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "inf", "nan"])
def test_a_speed_is_above_zero(speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "x", "--speed", speed]) == 2
    assert "must be a number above 0" in capsys.readouterr().err
