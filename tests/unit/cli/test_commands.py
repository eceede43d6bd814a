"""The command put, against a scripted gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2eg.cli import commands
from k2eg.cli.arguments import parse_arguments
from k2eg_rx.settings import Settings
from k2eg_rx.testing import ScriptedGateway

SETTINGS = Settings("test", "memory", "commands", "k2eg-cli-reply")


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as scripted:
        yield scripted


def put(*words: str) -> None:
    commands.put(parse_arguments(["put", "pva://my:gain", *words]), SETTINGS)


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
