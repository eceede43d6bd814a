"""The command get, against a scripted gateway in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from k2eg.cli.arguments import PROTOCOL_VARIABLE, parse_arguments
from k2eg.cli.commands.get import get
from k2eg.cli.session import CommandError, ExitCode
from k2eg_rx import ConnectionState, TransportError
from k2eg_rx.settings import Settings
from k2eg_rx.testing import ScriptedGateway
from k2eg_rx.transport import TransportStatus

SETTINGS = Settings("test", "memory", "commands", "k2eg-cli-reply")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.delenv(PROTOCOL_VARIABLE, raising=False)
    with ScriptedGateway() as scripted:
        yield scripted


def run(*words: str) -> None:
    get(parse_arguments(["get", *words]), SETTINGS)


def failure(*words: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        run(*words)
    return caught.value


def names_in(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()]


def test_values_are_printed_in_the_given_order(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.pv("q:1", 1.5, delay=0.4)
    gateway.pv("q:2", 2.5)
    gateway.pv("q:3", 3.5, delay=0.2)
    run("pva://q:{1..3}")
    assert names_in(capsys.readouterr().out) == ["q:1", "q:2", "q:3"]


def test_a_pv_that_takes_long_holds_no_other_back(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.pv("slow", 1.5, delay=5.0)
    gateway.pv("fast", 2.5)
    gateway.pv("later", 3.5, delay=4.0)
    run("pva://slow", "pva://fast", "pva://later")
    assert names_in(capsys.readouterr().out) == ["fast", "later", "slow"]


def test_a_name_without_protocol_is_found_over_either(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("both", 1.5)
    gateway.pv("ca://old", 2.5)
    gateway.pv("pva://new", 3.5)
    run("both", "old", "new")
    done = capsys.readouterr()
    assert names_in(done.out) == ["both", "old", "new"]
    assert done.err == "k2eg: found over ca, not pva (-p ca asks there at once): old\n"


def test_a_protocol_that_is_given_is_the_only_one(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.pv("ca://old", 2.5)
    run("-p", "ca", "old")
    assert capsys.readouterr().err == ""
    assert failure("-p", "pva", "old").code is ExitCode.FAILED
    assert failure("pva://old").code is ExitCode.FAILED


def test_dead_pvs_are_named_after_the_others_are_shown(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 6):
        gateway.pv(f"q:{number}", 1.5)
    gateway.pv("d:2", 0.5, connected=False)
    error = failure("pva://d:1", "pva://q:{1..5}", "pva://d:2")
    assert names_in(capsys.readouterr().out) == [f"q:{number}" for number in range(1, 6)]
    assert error.code is ExitCode.FAILED
    assert str(error).splitlines() == [
        "2 of 7 PVs failed",
        "pva://d:1, pva://d:2: not connected over pva: the gateway waited 10 s for it",
    ]
    assert str(failure("-w", "1", "pva://d:1")) == "pva://d:1: not connected over pva: the gateway waited 0.8 s for it"
    assert str(failure("d:1")) == "d:1: not connected over pva and ca: the gateway waited 10 s for it"


def test_twenty_dead_pvs_of_five_hundred_hold_none_back_and_are_named(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = [f"q:{number}" for number in range(1, 501, 25)]
    for number in range(1, 501):
        gateway.pv(f"q:{number}", 1.5, connected=f"q:{number}" not in dead)
    early: list[str] = []
    gateway.clock.schedule_relative(3.0, lambda *_: early.append(capsys.readouterr().out))
    error = failure("pva://q:{1..500}")
    assert len(names_in(early[0])) == 480
    head, reason = str(error).splitlines()
    assert head == "20 of 500 PVs failed"
    assert (
        reason
        == f"{', '.join(f'pva://{name}' for name in dead)}: not connected over pva: the gateway waited 10 s for it"
    )


def test_a_gateway_that_does_not_answer_differs_from_a_pv_that_does_not(gateway: ScriptedGateway) -> None:
    gateway.pv("q:1", 1.5)
    gateway.faults.ignore(times=None)
    error = failure("q:1", "q:2")
    assert error.code is ExitCode.NO_GATEWAY
    assert str(error).splitlines()[1].startswith("q:1, q:2: no gateway answered within 15 s: is one running?")


def test_a_gateway_that_answers_for_other_pvs_is_not_called_silent(gateway: ScriptedGateway) -> None:
    gateway.pv("q:1", 1.5)
    gateway.faults.ignore(subject="pva://q:2", times=None)
    error = failure("pva://q:1", "pva://q:2")
    assert (error.code, str(error)) == (
        ExitCode.FAILED,
        "pva://q:2: no answer over pva within 15 s, though the gateway answers",
    )


def test_a_broker_that_is_away_is_said_to_be(gateway: ScriptedGateway) -> None:
    gateway.broker.go_down("no broker at memory:1")
    before = gateway.clock.now
    with pytest.raises(TransportError, match=r"^no broker at memory:1$") as caught:
        run("-w", "600", "pva://q:1")
    assert ExitCode.of(caught.value) is ExitCode.NO_KAFKA
    assert gateway.clock.now - before <= timedelta(seconds=3)


def test_a_refusal_is_said_at_once(gateway: ScriptedGateway) -> None:
    refused = TransportStatus(ConnectionState.DOWN, "the password is wrong", refused=True)
    gateway.broker._set_status(refused)  # pyright: ignore[reportPrivateUsage]
    before = gateway.clock.now
    with pytest.raises(TransportError, match="the password is wrong"):
        run("pva://q:1")
    assert gateway.clock.now - before <= timedelta(seconds=0.1)


def test_a_broker_that_answers_a_moment_later_is_waited_for(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("q:1", 1.5)
    gateway.broker.go_down("no broker at memory:1")
    gateway.clock.schedule_relative(1.0, lambda *_: gateway.broker.come_up())
    run("pva://q:1")
    assert names_in(capsys.readouterr().out) == ["q:1"]


def test_a_broker_that_goes_away_later_is_said_to_be(gateway: ScriptedGateway) -> None:
    gateway.pv("q:1", 1.5, delay=5.0)
    gateway.clock.schedule_relative(1.0, lambda *_: gateway.broker.go_down("the broker is gone"))
    error = failure("pva://q:1")
    assert (error.code, str(error)) == (ExitCode.NO_KAFKA, "pva://q:1: the broker is gone")


def test_a_terminal_shows_which_pvs_are_waited_for(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.pv("fast", 1.5)
    gateway.pv("slow", 1.5, delay=5.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("pva://fast", "pva://slow")
    assert capsys.readouterr().err == "k2eg: still waiting for pva://slow\n"
