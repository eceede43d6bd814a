"""The command put, against a scripted gateway in virtual time."""

from __future__ import annotations

import pytest

from k2eg.cli.arguments import parse_arguments
from k2eg.cli.commands.put import put as run_put
from k2eg.cli.session import CommandError, ExitCode
from k2eg_rx.settings import Settings
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]

SETTINGS = Settings("test", "memory", "commands", "k2eg-cli-reply")


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
    k2eg_gateway: ScriptedGateway, choices: list[str], text: str, index: int
) -> None:
    gain = k2eg_gateway.pv("my:gain", 0, choices=choices)
    put(text)
    assert gain.puts == [index]


def test_text_for_a_number_stays_a_number(k2eg_gateway: ScriptedGateway) -> None:
    gain = k2eg_gateway.pv("my:gain", 0.5)
    put("2")
    assert gain.puts == [2.0]


def test_a_put_waits_if_asked_to(k2eg_gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    k2eg_gateway.pv("my:gain", 0.5)
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
    k2eg_gateway: ScriptedGateway, value: object, kind: str | None, choices: list[str] | None, text: str
) -> None:
    gain = k2eg_gateway.pv("my:gain", value, kind=kind, choices=choices)
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
    k2eg_gateway: ScriptedGateway, value: object, choices: list[str] | None, stored: object, text: str, difference: str
) -> None:
    k2eg_gateway.pv("my:gain", value, choices=choices, on_put=lambda _: stored)
    with pytest.raises(CommandError) as caught:
        put(text, "--verify")
    assert str(caught.value) == f"put of pva://my:gain: {difference}: the PV has another value"
    assert caught.value.code is ExitCode.NOT_VERIFIED


def test_a_value_is_said_to_be_written_if_it_cannot_be_read_back(k2eg_gateway: ScriptedGateway) -> None:
    gain = k2eg_gateway.pv("my:gain", 0.5)
    gain.on_put = lambda _: gain.disconnect()
    with pytest.raises(CommandError, match="pva://my:gain: the value was written, but could not be read back"):
        put("2", "--verify", "--timeout", "0.3")


def test_a_put_to_a_pv_that_does_not_answer_says_that_nothing_was_sent(k2eg_gateway: ScriptedGateway) -> None:
    k2eg_gateway.pv("my:gain", 0.5, connected=False)
    with pytest.raises(CommandError, match="nothing was written: pva://my:gain: not connected"):
        put("2", "--timeout", "0.3")


def put_words(*words: str) -> None:
    run_put(parse_arguments(["put", *words]), SETTINGS)


def test_several_pvs_are_written_in_order_and_shown(
    k2eg_gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    for name in ("a", "b"):
        k2eg_gateway.pv(name, 0.5, on_put=lambda _, name=name: order.append(name))
    put_words("b=2", "a=1")
    assert order == ["b", "a"]
    assert capsys.readouterr().out.splitlines() == ["b  0.5 -> 2", "a  0.5 -> 1"]


def test_nothing_is_written_if_a_value_does_not_fit_or_a_pv_is_dead(k2eg_gateway: ScriptedGateway) -> None:
    one, two = k2eg_gateway.pv("a", 0.5), k2eg_gateway.pv("b", 0, choices=["Off", "On"])
    with pytest.raises(ValueError, match="pva://b"):
        put_words("a=1", "b=Lunch")
    with pytest.raises(CommandError, match="nothing was written: dead: not connected over pva and ca"):
        put_words("a=1", "dead=2", "-w", "3")
    with pytest.raises(ValueError, match="each PV may be given once"):
        put_words("a=1", "pva://a=2")
    assert (one.puts, two.puts) == ([], [])


def test_a_put_that_fails_is_the_last_one(k2eg_gateway: ScriptedGateway) -> None:
    k2eg_gateway.pv("a", 0.5, read_only=True)
    last = k2eg_gateway.pv("b", 0.5)
    with pytest.raises(CommandError) as caught:
        put_words("a=1", "b=2")
    assert str(caught.value).splitlines()[-1] == "not sent: pva://b"
    assert last.puts == []


def test_a_put_by_a_bare_name_writes_once_to_the_pv_that_answered(k2eg_gateway: ScriptedGateway) -> None:
    both = k2eg_gateway.pv("both", 0.5)
    old, new = k2eg_gateway.pv("ca://split", 0.5), k2eg_gateway.pv("pva://split", 0.5, delay=3.0)
    put_words("both=1", "split=2")
    assert (both.puts, old.puts, new.puts) == ([1.0], [2.0], [])


def test_a_put_without_confirmation_is_not_repeated_over_the_other_protocol(k2eg_gateway: ScriptedGateway) -> None:
    pv = k2eg_gateway.pv("a", 0.5)
    k2eg_gateway.faults.lose("put", times=None)
    with pytest.raises(CommandError):
        put_words("a", "1")
    assert pv.puts == [1.0]


def test_a_dry_run_writes_nothing(k2eg_gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    pv = k2eg_gateway.pv("a", 0.5)
    put_words("a", "1", "--dry-run")
    assert pv.puts == []
    assert capsys.readouterr().out == "pva://a  0.5 -> 1  (not written)\n"


def test_verify_has_a_tolerance(k2eg_gateway: ScriptedGateway) -> None:
    k2eg_gateway.pv("a", 100.0, on_put=lambda value: value + 0.5)
    put_words("a", "100", "--verify", "--tolerance", "0.5")
    put_words("a", "100", "--verify", "--tolerance", "1%")
    with pytest.raises(CommandError, match=r"sent 100, but read 100\.5"):
        put_words("a", "100", "--verify", "--tolerance", "0.1%")


def test_a_put_without_check_needs_a_protocol(k2eg_gateway: ScriptedGateway) -> None:
    pv = k2eg_gateway.pv("a", 0.5)
    with pytest.raises(ValueError, match="--no-check needs the protocol of a"):
        put_words("a", "1", "--no-check")
    put_words("a", "1", "--no-check", "-p", "pva")
    assert pv.puts == [1.0]


def test_an_array_takes_words_and_a_count_as_caput_does(k2eg_gateway: ScriptedGateway) -> None:
    pv = k2eg_gateway.pv("a", [1.0, 2.0])
    put_words("-a", "a", "3", "-1", "2e0", "0x10")
    assert pv.puts == [[-1.0, 2.0, 16.0]]
