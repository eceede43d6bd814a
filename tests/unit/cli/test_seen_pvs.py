"""PVs that commands have named are remembered for completion."""

from __future__ import annotations

import stat
from argparse import Namespace
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg.cli.seen_pvs import remember, seen_file
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("K2EG_CLI_SEEN_PVS")
    return tmp_path


def kept() -> list[str]:
    path = seen_file()
    assert path is not None
    return path.read_text().splitlines() if path.exists() else []


def test_names_are_kept_once_and_only_for_their_owner(cache: Path) -> None:
    remember(Namespace(names=["a:b", "pva://c"]))
    remember(Namespace(uris=["a:b"], uri="ca://d"))
    assert kept() == ["a:b", "pva://c", "ca://d"]
    assert stat.S_IMODE((cache / "k2eg" / "pvs").stat().st_mode) == 0o600
    assert [path.name for path in (cache / "k2eg").iterdir()] == ["pvs"]


@pytest.mark.parametrize("name", ["$(rm x)", "a b", "`x`", "a;b", "a\nb", "'", '"', "x" * 300, "-"[:0]])
def test_a_name_with_a_meaning_for_shells_is_not_kept(name: str) -> None:
    remember(Namespace(names=[name]))
    assert kept() == []


def test_the_oldest_are_forgotten() -> None:
    remember(Namespace(names=[f"pv:{number}" for number in range(2500)]))
    lines = kept()
    assert (len(lines), lines[0], lines[-1]) == (2000, "pv:500", "pv:2499")


def test_the_pvs_of_a_command_that_succeeds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as gateway:
        gateway.pv("my:x", 1.0)
        with gateway.clock.running():
            assert main(["get", "pva://my:x"]) == 0
            assert main(["get", "pva://my:typo", "-w", "1"]) != 0
    assert kept() == ["pva://my:x"]


def test_an_empty_variable_keeps_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2EG_CLI_SEEN_PVS", "")
    remember(Namespace(names=["a"]))
    monkeypatch.setenv("K2EG_CLI_SEEN_PVS", str(cache / "other"))
    remember(Namespace(names=["b"]))
    assert [path.name for path in cache.iterdir()] == ["other"]


def test_a_folder_that_cannot_be_written_does_not_matter(cache: Path) -> None:
    (cache / "k2eg").write_text("a file")
    remember(Namespace(names=["a"]))
