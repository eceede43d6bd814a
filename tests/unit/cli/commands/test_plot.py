"""``k2eg plot`` against a scripted gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture
def gateway(utc: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    """A gateway with an array, images, and PVs of other kinds."""
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "12")
    with ScriptedGateway() as scripted:
        scripted.pv("my:wave", [0.0, 1.0, 2.0], units="V")
        scripted.pv("my:image", fields={"value": {"ubyteValue": [0, 255]}, "dimension": [{"size": 2}, {"size": 1}]})
        scripted.pv(
            "my:jpeg", fields={"value": {"ubyteValue": [0]}, "dimension": [{"size": 2}], "codec": {"name": "jpeg"}}
        )
        scripted.pv("my:current", 1.0)
        scripted.pv("my:table", {"a": [1, 2]})
        yield scripted


@pytest.mark.usefixtures("gateway")
def test_an_array_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "my:wave"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "my:wave  2026-01-01 00:00:00.000000  3 values  V"
    assert lines[1].startswith("2 ┤")
    assert lines[-1].split() == ["0", "1", "2"]


@pytest.mark.usefixtures("gateway")
def test_an_image_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "my:image"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.endswith("image 2 x 1, ubyte, min 0, mean 127.5, max 255")
    assert lines[0] == " " * 20 + "⣿" * 20


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("pv", ["my:wave", "my:image"])
def test_a_picture_is_written_to_a_new_file(pv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plot.png"
    assert main(["plot", pv, "-o", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", pv, "-o", str(path)]) == 1
    assert capsys.readouterr().err == f"k2eg: {path} exists; choose another name\n"


@pytest.mark.usefixtures("gateway")
def test_a_file_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "my:wave"]) == 0
    assert main(["plot", "my:wave", "-o", "plot.png"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'k2eg[examples]'\n")


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("pv", "reason"),
    [
        ("my:current", "is neither an array of numbers nor an image: `k2eg strip` draws it over time"),
        ("my:table", "is neither an array of numbers nor an image: see `k2eg get`"),
        ("my:jpeg", "the image is compressed by jpeg: it cannot be shown"),
    ],
)
def test_other_pvs_are_errors(pv: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", pv]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.usefixtures("gateway")
def test_a_pv_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "pva://none", "-w", "1"]) == 1
    assert "none: not connected over pva" in capsys.readouterr().err
