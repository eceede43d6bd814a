"""`k2eg gateway`: which configuration it takes, what it prints, and its logs."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from k2eg import cli
from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.settings import load_settings

SECRET = "hunter2"
FILE = f"""cmd-input-topic=commands
pub-server-address=127.0.0.1:1
pub-impl-kv=sasl.password:{SECRET}
sub-impl-kv=session.timeout.ms:9000
sub-group-id=of-file
storage-path=/opt
nc-purge=1
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `k2eg gateway`; returns exit code, standard output and standard error."""
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(tmp_path))
    monkeypatch.delenv("K2EG_CLI_DEFAULT_ENVIRONMENT", raising=False)
    (tmp_path / "lab.conf").write_text(FILE)
    (tmp_path / "lab.ini").write_text(
        "[DEFAULT]\nkafka_broker_url=127.0.0.1:1\nk2eg_cmd_topic=c\n[gateway]\npurge=on\n"
    )

    def run_gateway(*words: str) -> tuple[int, str, str]:
        code = cli.main(["gateway", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run_gateway


def test_the_printed_configuration_is_an_environment_without_secrets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("--config", str(tmp_path / "lab.conf"), "--print-config", "--log-format", "json")
    assert (code, err) == (0, "")
    assert SECRET not in out
    assert f"; group: {tmp_path / 'lab.conf'}:5 sub-group-id\ngroup=of-file\n" in out
    assert "; log_format: --log-format\nlog_format=json\n" in out
    assert "; max_names: default\n" in out
    assert f"; storage-path ({tmp_path / 'lab.conf'}:6): no meaning here: nothing is stored\n" in out
    assert f"; nc-purge ({tmp_path / 'lab.conf'}:7): unknown: did you mean nc-purge-queue-on-exp-timeout?\n" in out
    (tmp_path / "printed.ini").write_text(out)
    monkeypatch.setenv("K2EG_KAFKA_PRODUCER_SASL_PASSWORD", SECRET)
    again = load_settings("printed", "app", tmp_path)
    assert again.producer == {"sasl.password": SECRET}
    assert again.consumer == {"session.timeout.ms": "9000"}
    assert GatewayOptions.from_section(again.section("gateway")) == GatewayOptions(
        group="of-file", purge=True, log_format="json"
    )
    assert run("-e", "printed", "--print-config")[1].count("\n") > 30


def test_every_option_is_printed_once(run: Run) -> None:
    _, out, _ = run("-e", "lab", "--print-config")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.read_string(out)  # refuses repetitions
    assert set(parser["gateway"]) == set(GatewayOptions.__dataclass_fields__)
    assert parser["gateway"]["purge"] == "yes"


def test_the_environment_of_the_deployed_gateway_is_enough(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICS_K2EG_CMD_INPUT_TOPIC", "from-environment")
    monkeypatch.setenv("EPICS_K2EG_PUB_SERVER_ADDRESS", "127.0.0.1:1")
    assert "k2eg_cmd_topic=from-environment\n" in run("--print-config")[1]
    assert "k2eg_cmd_topic=from-words\n" in run("--print-config", "--set", "cmd-input-topic=from-words")[1]
    assert "k2eg_cmd_topic=c\n" in run("-e", "lab", "--print-config")[1]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("-e", "lab", "--config", "x"), 2, "give -e ENV or --config FILE, not both"),
        (("-e", "lab", "--set", "log-level=info"), 1, "--set is for options of the deployed gateway"),
        (("--config", "missing.conf"), 1, "missing.conf: the configuration file cannot be read: No such file"),
        ((), 2, "no environment: give -e ENV"),
    ],
)
def test_a_wrong_choice_is_an_error_of_one_line(run: Run, words: tuple[str, ...], code: int, text: str) -> None:
    found, out, err = run(*words)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert text in err


HOSTILE = ["a\x1b[2Jb", "x\ny CRITICAL forged", "\u2028line", "\ud800", "\u202ereversed", '"quoted\\"', "\x00", "é" * 5]
LOGGING = f"""
import logging, sys
from k2eg.cli.commands.gateway import configure_service_logs
from k2eg_rx.texts import get_logger
configure_service_logs("info", sys.argv[1])
for text in {HOSTILE!a}:
    for log in (get_logger("k2eg_rx.some.module"), logging.getLogger("another.library")):
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed: pv=%s", text)
logging.getLogger("k2eg_rx.some.module").debug("below the level")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_each_event_is_one_line_whatever_names_and_exceptions_have(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING, form], capture_output=True, text=True, check=True)
    lines = done.stderr.split("\n")[:-1]
    assert len(lines) == 2 * len(HOSTILE)
    assert all(line.isprintable() and "ValueError" in line and "failed: pv=" in line for line in lines)
    if form == "json":
        parsed = [json.loads(line) for line in lines]
        assert all(line.keys() == {"time", "level", "logger", "message", "exception"} for line in parsed)
        assert parsed[0]["message"] == "failed: pv=a\\x1b[2Jb"
        assert all(text.isprintable() for line in parsed for text in line["exception"].split("\n"))


def test_warnings_and_exceptions_of_threads_are_events_of_the_log() -> None:
    program = (
        "import threading, warnings; from k2eg.cli.commands.gateway import configure_service_logs\n"
        "configure_service_logs('info', 'json'); warnings.warn('odd')\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stderr.splitlines())
    assert "odd" in first["message"]
    assert "ZeroDivisionError" in second["exception"]
