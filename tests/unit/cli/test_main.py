import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from k2eg import cli
from k2eg.cli import arguments, session
from k2eg.cli.arguments import ENVIRONMENT_VARIABLE, Parser
from k2eg.cli.command_table import COMMANDS, load
from k2eg.cli.commands import get
from k2eg_rx import OperationError, errors
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, FOLDER_VARIABLE

INI = "[DEFAULT]\nkafka_broker_url={url}\nk2eg_cmd_topic=commands\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "broker"))
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    (tmp_path / "lab.ini").write_text(INI.format(url="127.0.0.1:1"))
    (tmp_path / "demo.ini").write_text(INI.format(url="demo"))
    (tmp_path / "broken.ini").write_text("[DEFAULT]\n")
    return tmp_path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; returns its exit code and the line on standard error."""

    def run(*words: str) -> tuple[int, str]:
        code = cli.main(words)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") <= 1
        return code, err

    return run


def fails_with(error: BaseException) -> Callable[..., None]:
    def get(*_: object) -> None:
        raise error

    return get


def test_a_missing_environment_lists_the_available_ones(run: Run) -> None:
    code, line = run("get", "pva://x")
    assert code == 2
    assert "give -e ENV or set K2EG_CLI_DEFAULT_ENVIRONMENT" in line
    assert "broken, demo, lab" in line
    assert "a demo is running" not in line


def test_a_missing_environment_mentions_a_running_demo(run: Run, folder: Path) -> None:
    (folder / "broker").write_text("127.0.0.1:1")
    code, line = run("get", "pva://x")
    assert code == 2
    assert "a demo is running: -e demo" in line


def test_an_unknown_environment_is_a_usage_error(run: Run) -> None:
    code, line = run("-e", "nowhere", "get", "pva://x")
    assert code == 2
    assert "no environment 'nowhere'" in line
    assert "broken, demo, lab" in line


def test_an_incomplete_environment_is_a_failure(run: Run) -> None:
    code, line = run("-e", "broken", "get", "pva://x")
    assert code == 1
    assert "broken.ini: [DEFAULT] must have a value for kafka_broker_url" in line


def test_environment_demo_without_a_demo_mentions_how_to_start_one(run: Run) -> None:
    code, line = run("-e", "demo", "get", "pva://x")
    assert code == 1
    assert "no demo is running" in line
    assert "`k2eg demo`" in line


def test_a_killed_demo_is_reported_as_not_running(run: Run, folder: Path) -> None:
    (folder / "broker").write_text("127.0.0.1:1")  # a port without a server
    code, line = run("-e", "demo", "get", "pva://x")
    assert code == 1
    assert "127.0.0.1:1, does not answer" in line


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OperationError(-2, "no\nsuch", "get", "pva://x"), 1, "k2eg: get of pva://x: the gateway answered with"),
        (ValueError("value is too long"), 1, "k2eg: value is too long\n"),
        (session.CommandError("no update"), 1, "k2eg: no update\n"),
        (KeyError("oh"), 1, "k2eg: KeyError: 'oh' (details: --debug)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr(get, "get", fails_with(error))
    found, printed = run("-e", "lab", "get", "pva://x")
    assert found == code
    assert printed.startswith(line)
    assert bool(printed) is bool(line)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get, "get", fails_with(KeyError("oh")))
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)  # pytest's own handlers stay
    assert cli.main(["-e", "lab", "--debug", "get", "pva://x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_is_reported_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "p4p" else object())
    code, line = run("-e", "lab", "gateway")
    assert code == 1
    assert line == "k2eg: `k2eg gateway` needs p4p, not installed here: pip install 'k2eg[gateway]'\n"
    code, line = run("demo")
    assert (code, "pip install 'k2eg[demo]'" in line) == (1, True)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("k2eg 0.")


def test_optional_packages_are_imported_on_use() -> None:
    program = (
        "import sys, k2eg_rx, k2eg.cli, k2eg_rx.embedded\n"
        "from k2eg.cli.commands import demo, get, monitor, put\n"
        "print([name for name in ('p4p', 'aioca', 'numpy', 'rich', 'epicscorelibs') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


LIGHT = (
    "reactivex",
    "confluent_kafka",
    "msgpack",
    "numpy",
    "p4p",
    "asyncio",
    "k2eg_rx.client",
    "k2eg_rx.pv",
    "importlib.metadata",
)


@pytest.mark.parametrize("words", [["-h"], ["get", "-h"], ["monitor", "--count", "none"], ["fly"], []])
def test_help_and_usage_errors_import_little(words: list[str]) -> None:
    program = f"import sys, k2eg.cli\nk2eg.cli.main({words})\nprint([name for name in {LIGHT} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_each_command_has_help_and_a_function_to_run() -> None:
    parser = arguments.build_parser(complete=True)
    for name, command in COMMANDS.items():
        assert f" {name} " in parser.format_help()
        assert callable(load(command.run))


def test_the_program_collects_no_garbage_until_its_command_begins(folder: Path) -> None:
    script = """
import gc, sys
from k2eg.cli import __main__ as program, command_table
from k2eg.cli.commands import env
def run(arguments):
    print(gc.isenabled(), gc.get_freeze_count() > 1000)
    return 7
env.env = run
sys.argv = ["k2eg", "env", "list"]
gc.disable = lambda real=gc.disable: (print("paused"), real())
program.run()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stdout) == (7, "paused\nTrue True\n"), done.stderr


def test_a_get_imports_what_it_needs() -> None:
    seldom = ("csv", "difflib", "hashlib", "random", "shutil", "tempfile")
    program = f"""
import sys, k2eg.cli.environment, k2eg.cli.commands.get, k2eg_rx.kafka.transport
print([name for name in {seldom} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_command_makes_its_own_parser_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(arguments, "Parser", lambda **options: made.append(options["prog"]) or Parser(**options))
    arguments.parse_arguments(["env", "list"])
    assert made == ["k2eg", "k2eg env"]
