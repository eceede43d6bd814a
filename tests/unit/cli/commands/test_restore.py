"""``k2eg restore`` against a scripted gateway: what it writes, and what it does not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg.cli import main
from k2eg_rx.testing import PutRejectedError, ScriptedGateway, ScriptedPV

FAST = ("--rate", "1000", "--timeout", "0.5")


class Machine:
    """A machine of four PVs, and a file that was saved when it was in another state."""

    def __init__(self, gateway: ScriptedGateway, path: Path) -> None:
        self.gateway = gateway
        self.x = gateway.pv("my:x", 1.0, units="mm")
        self.y = gateway.pv("my:y", 2.0)
        self.mode = gateway.pv("my:mode", "Off", choices=["Off", "On", "1"])
        self.text = gateway.pv("my:text", "old")
        self.path = path
        self.save("pva://my:x,1.5", "pva://my:y,2.0", "pva://my:mode,1", "pva://my:text,new")

    def save(self, *rows: str) -> None:
        self.path.write_text("\n".join(["pv,value", *rows, ""]))

    def restore(self, *words: str) -> int:
        with self.gateway.clock.running():
            return main(["restore", str(self.path), *FAST, *words])

    @property
    def puts(self) -> list[list[object]]:
        return [pv.puts for pv in (self.x, self.y, self.mode, self.text)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as gateway:
        yield Machine(gateway, tmp_path / "saved.csv")


class Terminal(io.StringIO):
    """Standard input of a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_differs_is_shown_written_once_and_verified(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.restore("--yes") == 0
    assert machine.puts == [[1.5], [], [2], ["new"]]
    done = capsys.readouterr()
    assert [line.split() for line in done.out.splitlines()] == [
        ["PV", "to", "write", "now", "units"],
        ["pva://my:x", "1.5", "1.0", "mm"],
        ["pva://my:mode", "1", "Off"],
        ["pva://my:text", "new", "old"],
        ["3", "written,", "3", "of", "them", "verified"],
    ]
    assert done.err == "k2eg: 3 to write, 1 as saved, 0 that cannot be restored\n"


def test_a_second_restore_writes_nothing(machine: Machine) -> None:
    assert machine.restore("--yes") == 0
    assert machine.restore("--yes") == 0
    assert machine.puts == [[1.5], [], [2], ["new"]]


def test_a_dry_run_writes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.restore("--dry-run", "--yes") == 0
    assert machine.puts == [[], [], [], []]
    assert "pva://my:x" in capsys.readouterr().out


def test_without_a_terminal_nothing_is_written(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.restore() == 1
    assert machine.puts == [[], [], [], []]
    assert "give --yes or --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("n\n", 1), ("", 1), ("yy\n", 1)])
def test_only_a_clear_yes_at_the_terminal_writes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert machine.restore() == code
    assert machine.puts == ([[], [], [], []] if code else [[1.5], [], [2], ["new"]])


def test_only_pvs_that_fit_a_pattern_are_written(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.restore("--yes", "--only", "my:?", "--only", "pva://my:t*") == 0
    assert machine.puts == [[1.5], [], [], ["new"]]
    assert "my:mode" not in capsys.readouterr().out
    assert machine.restore("--yes", "--only", "your:*") == 1


def test_values_within_the_tolerance_are_not_written(machine: Machine) -> None:
    assert machine.restore("--yes", "--tolerance", "0.5", "--only", "my:x") == 0
    assert machine.x.puts == []


def test_what_does_not_fit_is_named_and_the_others_are_written(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.save("pva://my:mode,Running", "pva://my:dead,1", "pva://my:x,1.5", "pva://my:y,high")
    assert machine.restore("--yes") == 1
    assert machine.puts == [[1.5], [], [], []]
    err = capsys.readouterr().err
    assert "pva://my:mode cannot be restored: it has no label 'Running'" in err
    assert "pva://my:dead cannot be restored: its present value is not known" in err
    assert "pva://my:y cannot be restored: it needs a number, got 'high'" in err
    assert "3 of 4 PVs were not restored" in err


def reject(pv: ScriptedPV) -> None:
    def refuse(_: object) -> object:
        raise PutRejectedError("write access denied")

    pv.on_put = refuse


def test_a_put_that_is_refused_is_named_and_the_others_are_written(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(machine.x)
    assert machine.restore("--yes") == 1
    assert machine.puts[1:] == [[], [2], ["new"]]
    done = capsys.readouterr()
    assert "pva://my:x: " in done.err
    assert "write access denied" in done.err
    assert "2 written, 2 of them verified" in done.out
    assert "1 of 3 values were not written or not confirmed" in done.err


def test_after_a_put_without_a_reply_nothing_more_is_written(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.x.on_put = lambda _: machine.gateway.go_down()
    assert machine.restore("--yes") == 1
    assert len(machine.x.puts) <= 1
    assert machine.puts[1:] == [[], [], []]
    err = capsys.readouterr().err
    assert "pva://my:x: whether it was written is not known" in err
    assert "pva://my:mode: not written" in err
    assert "pva://my:text: not written" in err
    machine.gateway.come_up()
    machine.gateway.advance(60.0)
    assert machine.puts[1:] == [[], [], []]  # nothing waits for the gateway


def test_a_value_that_is_not_there_afterwards_is_named(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.x.on_put = lambda _: 1.25  # as a record limits it
    assert machine.restore("--yes") == 5
    done = capsys.readouterr()
    assert "pva://my:x: 1.5 was written, but it has 1.25" in done.err
    assert "3 written, 2 of them verified" in done.out
    assert machine.x.puts == [1.5]


def test_nothing_is_written_while_the_gateway_is_away(machine: Machine) -> None:
    machine.gateway.go_down()
    assert machine.restore("--yes") == 1
    machine.gateway.come_up()
    machine.gateway.advance(60.0)
    assert machine.puts == [[], [], [], []]


def test_a_file_with_a_record_twice_writes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.save("pva://my:x,1.5", "ca://my:x,2.5")
    assert machine.restore("--yes") == 1
    assert machine.puts == [[], [], [], []]
    assert "is pva://my:x of line 2 again" in capsys.readouterr().err


def test_an_interrupt_says_what_was_written(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("k2eg.cli.commands.restore._pause", interrupt)
    assert machine.restore("--yes") == 130
    done = capsys.readouterr()
    assert machine.puts == [[1.5], [], [], []]
    assert "pva://my:mode: not written" in done.err
    assert "1 written" in done.out
