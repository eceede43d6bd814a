"""The command info, against a scripted gateway in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from k2eg.cli.arguments import parse_arguments
from k2eg.cli.commands.info import info, kind_of
from k2eg.cli.session import CommandError
from k2eg_rx import PVData
from k2eg_rx.settings import Settings
from k2eg_rx.testing import ScriptedGateway

SETTINGS = Settings("test", "memory", "commands", "k2eg-cli-reply")


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as scripted:
        scripted.pv("my:current", 1.5, units="A", limits=(0.0, 10.0), description="the gun")
        scripted.pv("ca://my:mode", 1, choices=["Off", "On"])
        yield scripted


def run(*words: str) -> None:
    info(parse_arguments(["info", *words]), SETTINGS)


@pytest.mark.usefixtures("gateway")
def test_info_shows_what_a_pv_declares(capsys: pytest.CaptureFixture[str]) -> None:
    run("my:current", "my:mode")
    out = capsys.readouterr().out
    name, *lines = out.partition("\nmy:mode\n")[0].splitlines()
    assert name == "my:current"
    about = {line.split("  ")[1].strip(): line.rsplit("  ", 1)[-1] for line in lines}
    assert about["uri"] == "pva://my:current"
    assert (about["type"], about["value"], about["units"]) == ("float", "1.5", "A")
    assert (about["display limits"], about["description"]) == ("0 to 10", "the gun")
    assert about["topic"] == "my_current"
    assert "labels" in out
    assert "0 Off, 1 On" in out
    assert "ca://my:mode" in out


@pytest.mark.usefixtures("gateway")
def test_info_in_json_has_the_keys_of_a_value_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="dead"):
        run("pva://my:current", "dead", "--json", "-w", "3")
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["value"], found["type"], found["display_limits"]) == (
        "my:current",
        1.5,
        "float",
        "0 to 10",
    )


@pytest.mark.parametrize(
    ("structure", "kind"),
    [
        ({"value": 1}, "whole number"),
        ({"value": True}, "boolean"),
        ({"value": "x"}, "text"),
        ({"value": [1.5, 2.5]}, "array of 2 floats"),
        ({"value": []}, "array of 0 elements"),
        ({"value": {"index": 0, "choices": ["a", "b"]}}, "enum of 2 labels"),
        ({"labels": ["n"], "value": {"n": [1, 2]}}, "table of 1 columns, 2 rows"),
        ({"value": {"ubyteValue": [1, 2]}, "dimension": [{"size": 2}]}, "image 2, ubyte"),
        ({"a": 1}, "structure"),
    ],
)
def test_the_kind_of_a_value_is_named(structure: dict[str, Any], kind: str) -> None:
    assert kind_of(PVData("x", structure)) == kind
