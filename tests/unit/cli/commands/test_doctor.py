"""`k2eg doctor` where it finds something wrong before Kafka answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k2eg import cli
from k2eg_rx.settings import FOLDER_VARIABLE

PLAIN = "[DEFAULT]\nkafka_broker_url={url}\nk2eg_cmd_topic=commands\n"

Run = Callable[..., tuple[int, dict[str, list[dict[str, Any]]]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv("K2EG_CLI_DEFAULT_ENVIRONMENT", raising=False)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `k2eg doctor --json`; returns its exit code and its findings by check."""

    def run_doctor(text: str, *words: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        (folder / "lab.ini").write_text(text)
        code = cli.main(["-e", "lab", "doctor", "--json", *words])
        out, err = capsys.readouterr()
        assert err == ""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in out.splitlines():
            finding = json.loads(line)
            found.setdefault(finding["check"], []).append(finding)
        return code, found

    return run_doctor


def test_without_an_environment_nothing_else_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lab.ini").write_text(PLAIN)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED   environment      no environment is named; known are")
    assert "do: give -e ENV, or set K2EG_CLI_DEFAULT_ENVIRONMENT" in out
    assert "-        gateway          not checked because of: environment" in out


def test_all_unknown_names_and_unset_variables_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    code, found = run(PLAIN + "colour=red\n[kafka]\nsasl.password=${NO_SUCH}\n[Kafka]\n", "my:pv")
    assert code == 1
    assert [each["text"].rpartition(".ini:")[2] for each in found["names in the file"]] == [
        "4: unknown key colour in [DEFAULT]",
        "7: unknown section [Kafka]",
    ]
    assert found["names in the file"][1]["remedy"] == "did you mean kafka?"
    (variable,) = found["variables"]
    assert variable["text"].endswith("lab.ini:6: the environment variable NO_SUCH is not set")
    assert variable["remedy"] == "set it, in the shell or the service"
    assert found["PVs"][0]["text"] == "because of: names in the file"


def test_a_property_that_librdkafka_does_not_know_is_named(run: Run) -> None:
    code, found = run(PLAIN.format(url="127.0.0.1:1") + "[kafka]\nsecurity.protocl=ssl\n")
    assert code == 1
    (finding,) = found["properties"]
    assert "security.protocl" in finding["text"]
    assert found["brokers"][0]["result"] == "not checked"


def test_a_host_name_without_an_address_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "k2eg.cli.diagnosis.doctor_kafka.resolution_failure", lambda host: "unknown" if host == "away" else ""
    )
    code, found = run(PLAIN.format(url="away:9092"))
    assert (code, found["host names"][0]["text"]) == (1, "away has no address: unknown")
    assert found["brokers"][0]["text"] == "because of: host names"


def test_a_broker_that_accepts_no_connection_is_named(run: Run) -> None:
    code, found = run(PLAIN.format(url="127.0.0.1:1"))
    assert code == 1
    (finding,) = found["brokers"]
    assert finding["text"] == "127.0.0.1:1 accepts no connection: Connection refused"
    assert "firewall" in finding["remedy"]
    assert [each["result"] for each in found["TLS and SASL"]] == ["not checked"]
