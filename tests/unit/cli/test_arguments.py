import pytest

from k2eg.cli.arguments import APP_NAME_VARIABLE, ENVIRONMENT_VARIABLE, parse_arguments


@pytest.fixture(autouse=True)
def _no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv(APP_NAME_VARIABLE, raising=False)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that wrong usage gives."""
    with pytest.raises(SystemExit) as left:
        parse_arguments(words)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "words",
    [
        ["-e", "lab", "-a", "me", "get", "pva://x"],
        ["get", "-e", "lab", "-a", "me", "pva://x"],
        ["-e", "lab", "get", "pva://x", "--app", "me"],
        ["-e", "other", "get", "pva://x", "-e", "lab", "-a", "me"],
    ],
)
def test_the_environment_may_stand_before_the_command_or_after_it(words: list[str]) -> None:
    arguments = parse_arguments(words)
    assert (arguments.environment, arguments.app) == ("lab", "me")


def test_the_documented_variables_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "lab")
    monkeypatch.setenv(APP_NAME_VARIABLE, "me")
    arguments = parse_arguments(["get", "pva://x"])
    assert (arguments.environment, arguments.app) == ("lab", "me")
    arguments = parse_arguments(["-e", "here", "-a", "you", "get", "pva://x"])
    assert (arguments.environment, arguments.app) == ("here", "you")


def test_without_any_there_is_no_environment_but_an_app_name() -> None:
    arguments = parse_arguments(["get", "pva://x"])
    assert (arguments.environment, arguments.app) == (None, "k2eg-cli")


@pytest.mark.parametrize("number", ["-1", "-1.5", "-1e3", "-.5e-2", "-inf"])
def test_a_negative_number_is_a_value_and_no_option(number: str) -> None:
    assert parse_arguments(["put", "pva://x", number]).value.strip() == number


def test_several_uris_are_taken_by_get_monitor_and_snapshot() -> None:
    for command in ("get", "monitor", "snapshot"):
        assert parse_arguments([command, "pva://a", "ca://b.HIGH"]).uris == ["pva://a", "ca://b.HIGH"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "a command is missing"),
        (["fly"], "invalid choice: 'fly'"),
        (["get"], "URI"),
        (["get", "my:pv"], "the protocol has to be 'pva' or 'ca'"),
        (["get", "pva://"], "name is missing"),
        (["get", "pva://x", "--timeout", "0"], "'0' is not a number of seconds above 0"),
        (["get", "pva://x", "--timeout", "inf"], "'inf' is not a number of seconds above 0"),
        (["put", "pva://x"], "VALUE"),
        (["monitor", "pva://x", "--count", "0"], "'0' is not a whole number above 0"),
        (["monitor", "pva://x", "--overflow", "all"], "invalid choice: 'all'"),
        (["snapshot", "pva://x", "--count", "3"], "--count goes with --every"),
        (["snapshot", "pva://x", "--all-values"], "--all-values goes with --every"),
        (["snapshot", "pva://x", "--every", "100", "--window", "100"], "--window goes with a one-shot"),
        (["snapshot", "pva://x", "--every", "1.5"], "'1.5' is not a whole number above 0"),
        (["demo", "--kafka", "broker"], "'broker' is not host:port"),
    ],
)
def test_wrong_usage_is_told_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in refusal(capsys, *words)


def test_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_arguments(["-h"])
    assert left.value.code == 0
    assert ENVIRONMENT_VARIABLE in capsys.readouterr().out
