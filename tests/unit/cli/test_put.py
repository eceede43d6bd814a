"""The command put, against a scripted gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2eg.cli.arguments import parse_arguments
from k2eg.cli.put import put as run_put
from k2eg.cli.session import CommandError
from k2eg_rx.settings import Settings
from k2eg_rx.testing import ScriptedGateway

SETTINGS = Settings("test", "memory", "commands", "k2eg-cli-reply")


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as scripted:
        yield scripted


def put(*words: str) -> None:
    run_put(parse_arguments(["put", "pva://my:gain", *words]), SETTINGS)


@pytest.mark.parametrize(
    ("choices", "text", "index"),
    [
        (["1", "2", "5", "10"], "2", 1),
        (["1", "2", "5", "10"], "10", 3),
        (["1", "2", "5", "10"], "3", 3),
        (["0", "-1", "1"], "-1", 1),
        (["off", "on", "true"], "true", 2),
        (["1.0", "0.5"], "0.5", 1),
        (["nan", "x"], "nan", 0),
        (["Off", "On"], "1", 1),
        (["Off", "On"], "On", 1),
    ],
)
def test_text_for_an_enum_is_a_label_first_and_then_an_index(
    gateway: ScriptedGateway, choices: list[str], text: str, index: int
) -> None:
    gain = gateway.pv("my:gain", 0, choices=choices)
    put(text)
    assert gain.puts == [index]


def test_text_for_a_number_stays_a_number(gateway: ScriptedGateway) -> None:
    gain = gateway.pv("my:gain", 0.5)
    put("2")
    assert gain.puts == [2.0]


def test_a_put_waits_if_asked_to(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.pv("my:gain", 0.5)
    for words in (("2",), ("3", "--wait"), ("4", "-c")):
        put(*words, "--json")
    done = capsys.readouterr()
    assert [line.endswith('"completed": true}') for line in done.out.splitlines()] == [False, True, True]
    assert not done.err


@pytest.mark.parametrize(
    ("value", "kind", "choices", "text"),
    [
        (0.5, None, None, "2.25"),
        (0.5, "float", None, "0.1"),
        (0.5, None, None, "nan"),
        (1, None, None, "7"),
        ("a", None, None, "b"),
        (0, None, ["Off", "On"], "On"),
        (0, None, ["Off", "On"], "1"),
        ([1.0, 2.0], None, None, "[3, 4.5]"),
    ],
)
def test_verify_accepts_the_value_that_was_sent(
    gateway: ScriptedGateway, value: object, kind: str | None, choices: list[str] | None, text: str
) -> None:
    gain = gateway.pv("my:gain", value, kind=kind, choices=choices)
    put(text, "--verify")
    assert len(gain.puts) == 1


@pytest.mark.parametrize(
    ("value", "choices", "stored", "text", "difference"),
    [
        (0.5, None, 0.0, "-5", "sent -5, but read 0.0"),
        (0.5, None, 1.0000001, "1", "sent 1, but read 1.0000001"),
        (1, None, 3, "7", "sent 7, but read 3"),
        ("a", None, "b", "long", "sent 'long', but read 'b'"),
        (0, ["Off", "On"], 0, "On", "sent 'On', but read Off (0)"),
        ([1.0, 2.0], None, [3.0, 4.0], "[3, 5]", "sent [3, 5], but read [3.0, 4.0]"),
        ([1.0, 2.0], None, [3.0], "[3, 5]", "sent [3, 5], but read [3.0]"),
    ],
)
def test_verify_fails_if_the_pv_has_another_value(
    gateway: ScriptedGateway, value: object, choices: list[str] | None, stored: object, text: str, difference: str
) -> None:
    gateway.pv("my:gain", value, choices=choices, on_put=lambda _: stored)
    with pytest.raises(CommandError) as caught:
        put(text, "--verify")
    assert str(caught.value) == f"put of pva://my:gain: {difference}: the PV has another value"


def test_verify_says_that_the_value_was_sent_if_it_cannot_be_read_back(gateway: ScriptedGateway) -> None:
    gain = gateway.pv("my:gain", 0.5)
    gain.on_put = lambda _: gain.disconnect()
    with pytest.raises(CommandError, match="put of pva://my:gain: the value was sent, but could not be read back"):
        put("2", "--verify", "--timeout", "0.3")


def test_a_put_to_a_pv_that_does_not_answer_says_that_nothing_was_sent(gateway: ScriptedGateway) -> None:
    gateway.pv("my:gain", 0.5, connected=False)
    with pytest.raises(CommandError, match="put of pva://my:gain: nothing was sent"):
        put("2", "--timeout", "0.3")
