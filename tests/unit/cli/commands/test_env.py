"""`k2eg env`: environments are listed, shown without secrets, made and checked."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from k2eg import cli
from k2eg_rx.settings import FOLDER_VARIABLE, load_settings

PLAIN = "[DEFAULT]\nkafka_broker_url=b:9092\nk2eg_cmd_topic=c\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for name in ("K2EG_CLI_DEFAULT_ENVIRONMENT", "NO_SUCH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "lab.ini").write_text(PLAIN)
    (tmp_path / "old.ini").write_text(PLAIN + "[Kafka]\na=b\n[kafka]\nsasl.password=${NO_SUCH}\n")
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_env(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run_env


def test_environments_are_listed_with_their_faults(run: Run, folder: Path) -> None:
    code, out, _ = run("-e", "lab", "env", "list", "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"name": "lab", "file": str(folder / "lab.ini"), "state": "default"},
        {"name": "old", "file": str(folder / "old.ini"), "state": "2 faults"},
    ]


def test_secrets_are_masked_unless_they_are_variables(run: Run, folder: Path) -> None:
    text = PLAIN + "[kafka]\nsasl.username=me\nsasl.password=hunter2\nssl.key.password=${KEY}\nssl.key.pem=x\n"
    (folder / "lab.ini").write_text(text)
    code, out, _ = run("env", "show", "lab")
    assert code == 0
    assert "sasl.username=me\nsasl.password=***\nssl.key.password=${KEY}\nssl.key.pem=***\n" in out
    assert "hunter2" not in out


def test_faults_are_named_and_make_the_check_fail(run: Run, folder: Path) -> None:
    code, out, _ = run("env", "check")
    assert code == 1
    assert out.splitlines() == [
        f"{folder}/lab.ini: ok",
        f"{folder}/old.ini:4: unknown section [Kafka]: did you mean kafka?",
        f"{folder}/old.ini:7: the environment variable NO_SUCH is not set",
    ]
    assert run("env", "check", "lab")[0] == 0


def test_a_new_environment_can_be_loaded_and_is_not_overwritten(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("env", "new", "site", "--broker", "kafka:9094", "--commands", "cmd", "--secured")
    code, out, _ = run(*words)
    assert (code, out.splitlines()[0]) == (0, f"{folder}/site.ini")
    assert stat.S_IMODE((folder / "site.ini").stat().st_mode) == 0o600
    monkeypatch.setenv("K2EG_KAFKA_USER", "me")
    monkeypatch.setenv("K2EG_KAFKA_PASSWORD", "x")
    settings = load_settings("site", "app")
    assert (settings.broker_url, settings.command_topic, settings.reply_topic) == ("kafka:9094", "cmd", "app-reply")
    assert settings.kafka["sasl.username"] == "me"
    code, _, err = run(*words)
    assert code == 1
    assert "site.ini exists: remove it, or give another name" in err


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", ""])
def test_a_name_that_is_no_file_name_is_refused(run: Run, folder: Path, name: str) -> None:
    code, _, err = run("env", "new", name, "--broker", "kafka:9094")
    assert code == 1
    assert "the name must consist of letters" in err
    assert len(list(folder.iterdir())) == 2


def test_nothing_is_written_into_the_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    code, _, err = run("env", "new", "site", "--broker", "kafka:9094")
    assert (code, FOLDER_VARIABLE in err) == (1, True)
