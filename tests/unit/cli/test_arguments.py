import pytest

from k2eg.cli.arguments import APP_NAME_VARIABLE, ENVIRONMENT_VARIABLE, parse_arguments


@pytest.fixture(autouse=True)
def _no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv(APP_NAME_VARIABLE, raising=False)


def usage_error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the one line that a usage error prints."""
    with pytest.raises(SystemExit) as exit_:
        parse_arguments(words)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "words",
    [
        ["-e", "lab", "-a", "me", "get", "pva://x"],
        ["snapshot", "-e", "lab", "-a", "me", "pva://x"],
        ["-e", "lab", "get", "pva://x", "--app", "me"],
        ["-e", "other", "get", "pva://x", "-e", "lab", "--app", "me"],
    ],
)
def test_global_options_are_allowed_before_and_after_the_command(words: list[str]) -> None:
    arguments = parse_arguments(words)
    assert (arguments.environment, arguments.app) == ("lab", "me")


def test_environment_variables_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "lab")
    monkeypatch.setenv(APP_NAME_VARIABLE, "me")
    arguments = parse_arguments(["get", "pva://x"])
    assert (arguments.environment, arguments.app) == ("lab", "me")
    arguments = parse_arguments(["-e", "here", "-a", "you", "get", "pva://x"])
    assert (arguments.environment, arguments.app) == ("here", "you")


def test_without_variables_only_the_app_name_has_a_default() -> None:
    arguments = parse_arguments(["get", "pva://x"])
    assert (arguments.environment, arguments.app) == (None, "k2eg-cli")


@pytest.mark.parametrize("number", ["-1", "-1.5", "-1e3", "-.5e-2", "-inf"])
def test_a_negative_number_is_a_value_not_an_option(number: str) -> None:
    assert parse_arguments(["put", "pva://x", number]).values == {"pva://x": [number]}


def test_get_monitor_and_snapshot_accept_several_uris() -> None:
    for command in ("get", "monitor"):
        assert parse_arguments([command, "pva://a", "ca://b.HIGH"]).names == ["pva://a", "ca://b.HIGH"]
    assert parse_arguments(["snapshot", "pva://a", "ca://b.HIGH"]).names == ["pva://a", "ca://b.HIGH"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "a command is missing"),
        (["fly"], "invalid choice: 'fly'"),
        (["get"], "no PV is given: name one, or a list of PVs with -f FILE or -"),
        (["get", "http://my:pv"], "the protocol must be 'pva' or 'ca'"),
        (["get", "a b"], "a PV's name must have no white space"),
        (["get", "-f", "/no/such"], "/no/such cannot be read"),
        (["get", "Q:{1..1000000}"], "has a range of more than 100000 numbers"),
        (["get", "pva://"], "name is missing"),
        (["get", "pva://x", "--timeout", "0"], "must be a number of seconds above 0, got '0'"),
        (["get", "pva://x", "--timeout", "inf"], "must be a number of seconds above 0, got 'inf'"),
        (["put", "pva://x"], "VALUE"),
        (["put", "a=1", "b"], "all words must be PV=VALUE, or the first one a PV, got b"),
        (["put", "a=1", "a=2"], "each PV may be given once"),
        (["put", "a", "1", "--tolerance", "1"], "--tolerance needs --verify"),
        (["put", "a", "1", "--verify", "--tolerance", "-1"], "must be a number of 0 or more"),
        (["put", "-a", "a", "3", "1", "2"], "-a needs the number of elements before them, got 3 and 2"),
        (["put", "a b", "3"], "must have no white space"),
        (["monitor", "pva://x", "--count", "0"], "must be a whole number above 0, got '0'"),
        (["monitor", "pva://x", "--overflow", "all"], "invalid choice: 'all'"),
        (["snapshot", "pva://x", "--count", "3"], "--count needs --every"),
        (["snapshot", "pva://x", "--all-values"], "--all-values needs --every"),
        (["snapshot", "pva://x", "--every", "100", "--window", "100"], "--window is for one-shot"),
        (["snapshot", "pva://x", "--every", "1.5"], "must be a whole number above 0, got '1.5'"),
        (["demo", "--kafka", "broker"], "must be host:port, got 'broker'"),
    ],
)
def test_a_usage_error_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    assert text in usage_error(capsys, *words)


def test_help_exits_with_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_arguments(["-h"])
    assert exit_.value.code == 0
    assert ENVIRONMENT_VARIABLE in capsys.readouterr().out
