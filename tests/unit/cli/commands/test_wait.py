"""``k2eg wait`` against a scripted gateway, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2eg.cli import main
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted:
        yield scripted


def wait(*words: str) -> int:
    return main(["wait", "my:x", *words, "--timeout", "30s"])


def test_a_value_that_fulfils_the_condition_ends_the_wait(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pv("my:x", 6.0, units="A")
    assert wait("> 5") == 0
    done = capsys.readouterr()
    assert done.out.startswith("my:x  ")
    assert done.out.endswith("  6.000 A\n") or done.out.endswith("  6 A\n")
    assert not done.err


def test_a_later_value_ends_the_wait(gateway: ScriptedGateway) -> None:
    x = gateway.pv("my:x", 4.0)
    with gateway.client() as other:
        other.monitor_stream("pva://my:x").subscribe(lambda update: x.post(6.0) if update.value == 4.0 else None)
        assert wait("> 5") == 0


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("> 5", "not fulfilled within 30 s; the last value is 4, MINOR"),
        ("== On", "its value is a number, 4.0, which 'On' is not"),
    ],
)
def test_a_value_that_does_not_fulfil_it_is_named(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], condition: str, reason: str
) -> None:
    gateway.pv("my:x", 4.0, severity=1)
    assert wait(condition) == 1
    done = capsys.readouterr()
    assert not done.out
    assert done.err == f"k2eg: wait for pva://my:x {condition}: {reason}\n"


@pytest.mark.usefixtures("gateway")
def test_a_pv_that_never_answers_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait("> 5") == 1
    assert "wait for pva://my:x > 5: not fulfilled within 30 s; no value: " in capsys.readouterr().err


def test_a_pv_that_is_lost_is_named_with_its_reason(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    x = gateway.pv("my:x", 4.0)
    with gateway.client() as other:
        other.monitor_stream("pva://my:x").subscribe(lambda _: x.disconnect())
        assert wait("> 5") == 1
    assert "disconnected: the connection to the server is lost" in capsys.readouterr().err


@pytest.mark.usefixtures("gateway")
def test_a_malformed_condition_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait("open") == 2
    assert "a comparison (<, <=, >, >=, ==, !=) must come before 'open'" in capsys.readouterr().err
