"""Names of PVs: ranges, lists and default protocols."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path

import pytest

from k2eg.cli.arguments import PROTOCOL_VARIABLE
from k2eg.cli.values.pv_names import Target, collect, complete_uris, default_protocol, expand, names_in, targets_of
from k2eg_rx import Settings

SETTINGS = Settings("test", "memory", "commands", "reply")
NO_OPTION = Namespace(protocol=None)

LIST = """\
# the ring
[correctors]
Q:{1..2}:I   Q:9#:I  # two and one
[bpms]

pva://B:1
"""


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROTOCOL_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain", ["plain"]),
        ("Q:{1..3}:I", ["Q:1:I", "Q:2:I", "Q:3:I"]),
        ("Q{08..10}", ["Q08", "Q09", "Q10"]),
        ("Q{5..1..2}", ["Q5", "Q3", "Q1"]),
        ("Q{-1..1}", ["Q-1", "Q0", "Q1"]),
        ("A{1..2}B{1..2}", ["A1B1", "A1B2", "A2B1", "A2B2"]),
        ("pva://Q{1..2}", ["pva://Q1", "pva://Q2"]),
        ("SR:C01-BI{BPM:1}Pos:X-I", ["SR:C01-BI{BPM:1}Pos:X-I"]),
        ("X{Mtr:1,2}", ["X{Mtr:1,2}"]),
    ],
)
def test_ranges_in_braces_are_expanded_and_other_braces_kept(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names


@pytest.mark.parametrize("text", ["Q{1..100001}", "Q{1..1000}{1..1000}", "Q{1..5..0}"])
def test_a_range_that_is_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"PVs|range"):
        list(expand(text))


def test_a_list_has_names_groups_and_comments() -> None:
    assert list(names_in(LIST.splitlines(), "l")) == ["Q:1:I", "Q:2:I", "Q:9#:I", "pva://B:1"]
    assert list(names_in(LIST.splitlines(), "l", "bpms")) == ["pva://B:1"]
    with pytest.raises(ValueError, match="l has no group 'x'; it has correctors, bpms"):
        list(names_in(LIST.splitlines(), "l", "x"))


def test_a_wrong_name_in_a_list_is_reported_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"l, line 2: .*'x://y'"):
        list(names_in(["a", "x://y"], "l"))


def test_names_come_from_words_files_and_standard_input_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pvs").write_text(LIST)
    monkeypatch.setattr("sys.stdin", io.StringIO("s:1\ns:2\n"))
    names = collect(["s:2", "-"], [str(tmp_path / "pvs")])
    assert names == ["s:2", "s:1", "Q:1:I", "Q:2:I", "Q:9#:I", "pva://B:1"]
    with pytest.raises(ValueError, match="no PV is given"):
        collect([])


def test_the_default_protocol_is_of_the_option_then_the_variable_then_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file = Settings("test", "memory", "commands", "reply", sections={"cli": {"protocol": "ca"}})
    assert default_protocol(NO_OPTION, SETTINGS) is None
    assert default_protocol(NO_OPTION, in_file) == "ca"
    monkeypatch.setenv(PROTOCOL_VARIABLE, "pva")
    assert default_protocol(NO_OPTION, in_file) == "pva"
    assert default_protocol(Namespace(protocol="ca"), in_file) == "ca"
    monkeypatch.setenv(PROTOCOL_VARIABLE, "PVA")
    with pytest.raises(ValueError, match="K2EG_DEFAULT_PROTOCOL must be pva or ca, got 'PVA'"):
        default_protocol(NO_OPTION, in_file)


def test_a_name_without_a_protocol_is_open_only_without_a_default() -> None:
    names = ["a:b.HIGH", "ca://c", "pva://a:b.HIGH"]
    assert targets_of(names, NO_OPTION, SETTINGS) == [
        Target("a:b.HIGH", "pva://a:b.HIGH", is_open=True),
        Target("ca://c", "ca://c"),
    ]
    assert targets_of(["a"], Namespace(protocol="ca"), SETTINGS) == [Target("a", "ca://a")]


def test_names_of_other_commands_get_the_default_protocol() -> None:
    arguments = Namespace(uris=["a", "ca://b"], uri="c")
    complete_uris(arguments, Settings("test", "memory", "commands", "reply", sections={"cli": {"protocol": "ca"}}))
    assert (arguments.uris, arguments.uri) == (["ca://a", "ca://b"], "ca://c")
    arguments = Namespace(uris=["a"])
    complete_uris(arguments, SETTINGS)
    assert arguments.uris == ["pva://a"]
