"""The command line in subprocesses, against the session's stack."""

from __future__ import annotations

import http.client
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from k2eg_rx import Client, OperationError, SnapshotProperties, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.stack import COMMAND_TOPIC

from .conftest import ENDS_WITHIN, INI, Run, Start

WRITTEN = ("pva://demo:setpoint1", "pva://demo:mode", "pva://demo:message")


@pytest.fixture
def restored_pvs(client: Client) -> Iterator[None]:
    """Restores the demo's PVs afterwards, because all tests share the stack."""
    before = [(uri, first(client.get_stream(uri)).value) for uri in WRITTEN]
    yield
    for uri, value in before:
        first(client.put_stream(uri, value["index"] if isinstance(value, dict) else value))


@pytest.fixture
def second_magnet(client: Client) -> None:
    """Sets the second magnet's set point to 2.5 A."""
    first(client.put_stream("pva://demo:setpoint2", 2.5))


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("second_magnet")
def test_get_prints_pvs_in_the_given_order(run: Run) -> None:
    done = run("get", "pva://demo:message", "ca://demo:setpoint2", "pva://demo:mode")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["demo:message", "demo:setpoint2", "demo:mode"]
    assert lines[1].endswith("  2.500 A")


@pytest.mark.usefixtures("second_magnet")
def test_get_json_prints_objects(run: Run) -> None:
    done = run("get", "--json", "--full", "pva://demo:setpoint2")
    (found,) = objects(done.stdout)
    assert (found["name"], found["value"], found["units"], found["severity"]) == (
        "demo:setpoint2",
        2.5,
        "A",
        "NO_ALARM",
    )
    assert isinstance(found["data"], dict)
    assert found["data"]["display"]["description"] == "Set point of the second magnet"


def test_get_of_a_missing_pv_fails_in_one_line(run: Run) -> None:
    done = run("get", "--timeout", "20", "pva://demo:nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    text = "k2eg: pva://demo:nowhere: not connected over pva: the gateway waited 10 s for it\n"
    assert done.stderr == text


def test_get_prints_the_pvs_that_exist(run: Run) -> None:
    done = run("get", "--timeout", "2", "pva://demo:nowhere", "pva://demo:setpoint2")
    assert done.returncode == 1
    assert done.stdout.startswith("demo:setpoint2")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["get", "demo:sum"], ["put", "demo:setpoint1", "2"], ["history", "demo:sum"], ["snapshot", "demo:sum"]]
)
def test_a_broker_that_does_not_answer_is_said_to_be_before_the_timeout(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "dead.ini").write_text(INI.format(broker="127.0.0.1:1", commands=COMMAND_TOPIC))
    done = run("-e", "dead", *words, *(["--timeout", "3000"] if words[0] != "history" else []))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("k2eg: ")
    assert "127.0.0.1:1" in done.stderr


def test_ctrl_c_ends_a_blocking_get(start: Start, stack: EmbeddedStack) -> None:
    commands = Consumer(
        {
            "bootstrap.servers": stack.broker_address,
            "group.id": "cli-test",
            "fetch.wait.max.ms": 5,
            "allow.auto.create.topics": True,  # the first command creates the topic, and this may be the first
        }
    )
    deadline = time.monotonic() + ENDS_WITHIN
    while not (partitions := commands.list_topics(COMMAND_TOPIC, timeout=5.0).topics[COMMAND_TOPIC].partitions):
        assert time.monotonic() < deadline, "the command topic is not created"
        commands.poll(0.05)  # a few round trips
    commands.assign([TopicPartition(COMMAND_TOPIC, number, OFFSET_END) for number in partitions])
    for number in partitions:  # resolves the end offsets before the command is sent
        commands.get_watermark_offsets(TopicPartition(COMMAND_TOPIC, number), timeout=ENDS_WITHIN)
    commands.poll(0)
    with start("get", "--timeout", "60", "pva://demo:blocking") as process:
        while (record := commands.poll(ENDS_WITHIN)) is not None and b"pva://demo:blocking" not in (
            record.value() or b""
        ):
            pass
        assert record is not None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=ENDS_WITHIN)
    commands.close()
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.usefixtures("restored_pvs")
def test_put_prints_the_old_and_the_new_value(run: Run) -> None:
    done = run("put", "--verify", "demo:setpoint1", "-1e0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("demo:setpoint1  ")
    assert done.stdout.endswith(" -> -1.000 A\n")


@pytest.mark.usefixtures("restored_pvs")
def test_put_fails_if_the_record_clips_the_value_to_verify(run: Run) -> None:
    done = run("put", "--verify", "pva://demo:setpoint1", "1e6")
    assert done.returncode == 5
    assert len(done.stdout.splitlines()) == 1
    assert "put of pva://demo:setpoint1: sent 1000000.0, but read " in done.stderr


@pytest.mark.usefixtures("restored_pvs")
def test_put_accepts_an_enums_label(run: Run) -> None:
    done = run("put", "--json", "--verify", "pva://demo:mode", "Ramping")
    assert done.returncode == 0
    assert objects(done.stdout)[0]["value"] == "Ramping"


@pytest.mark.usefixtures("restored_pvs")
def test_put_string_sends_a_number_as_text(run: Run) -> None:
    done = run("put", "--verify", "--string", "pva://demo:message", "42")
    assert done.returncode == 0
    assert done.stdout.endswith(" -> 42\n")


def test_put_of_an_unsuitable_value_fails_in_one_line(run: Run) -> None:
    done = run("put", "pva://demo:mode", "Lunch")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "Lunch" in done.stderr


def test_monitor_stops_after_count_updates(run: Run) -> None:
    done = run("monitor", "--json", "--count", "20", "pva://demo:ramp100")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 20
    # a gateway publishes the current value again for each client that activates the PV
    values = list(dict.fromkeys(found["value"] for found in objects(done.stdout)))
    assert len(values) > 10
    assert values == [(values[0] + number) % 100 for number in range(len(values))]


def test_monitor_stops_after_duration(run: Run) -> None:
    done = run("monitor", "--duration", "1", "pva://demo:message", "ca://demo:sum")
    shown = {line.split()[0] for line in done.stdout.splitlines()}
    assert shown <= {"demo:message", "demo:sum"}
    # on a busy machine, the first values may take longer than a second, which is a failure
    assert done.returncode == (0 if len(shown) == 2 else 1)
    assert ("no update within 1 s" in done.stderr) is (len(shown) < 2)


def test_ctrl_c_ends_a_monitor_successfully(start: Start) -> None:
    with start("monitor", "pva://demo:ramp10") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("demo:ramp10")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, err) == (0, "")


def test_a_terminal_of_40_columns_shows_values_until_ctrl_c(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    words = [sys.executable, "-m", "k2eg.cli", "monitor", "demo:sum", "demo:nowhere", "demo:message"]
    with subprocess.Popen(
        words, env=environment | {"TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        text = b""
        while not (b"demo:sum" in text and b"demo:message" in text and b"still waiting" in text):
            assert select.select([ours], [], [], ENDS_WITHIN)[0], text
            text += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDS_WITHIN) == 0
    os.close(ours)
    lines = text.decode().splitlines()
    values = [line for line in lines if line.startswith(("demo:sum", "demo:message"))]
    assert all(len(line) <= 40 for line in values), lines
    assert any("demo:nowhere" in line for line in lines if line.startswith("k2eg: still waiting"))
    assert b"\x1b" not in text


def test_a_closed_pipe_is_no_failure(start: Start) -> None:
    with start("monitor", "pva://demo:ramp100") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(ENDS_WITHIN)
        assert (process.returncode, process.stderr.read()) == (0, "")


def test_monitor_of_a_missing_pv_fails_after_timeout(run: Run) -> None:
    done = run("monitor", "--timeout", "1", "pva://demo:sum", "pva://demo:nowhere")
    assert done.returncode == 1
    assert done.stderr == "k2eg: monitor of pva://demo:nowhere: no update within 1 s; does the PV exist?\n"


def test_snapshot_prints_all_pvs(run: Run) -> None:
    done = run("snapshot", "--json", "--window", "500", "pva://demo:sum", "ca://demo:ramp10")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = objects(done.stdout)
    assert isinstance(found["pvs"], dict)
    assert {name: bool(samples) for name, samples in found["pvs"].items()} == {"demo:sum": True, "demo:ramp10": True}


def test_snapshot_lists_the_pvs_without_a_value(run: Run) -> None:
    done = run("snapshot", "--window", "300", "pva://demo:message", "pva://demo:nowhere")
    assert done.returncode == 1
    assert "demo:nowhere  no value" in done.stdout
    assert done.stderr == "k2eg: snapshot: no value of demo:nowhere; does the PV exist?\n"


def test_a_recurring_snapshot_is_stopped_at_the_end(run: Run, client: Client, fresh_app_name: str) -> None:
    name = f"cli-{fresh_app_name}"
    words = ("--every", "200", "--count", "3", "--name", name, "pva://demo:sum", "pva://demo:ramp10")
    done = run("snapshot", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    iterations = [found["iteration"] for found in objects(done.stdout)]
    assert iterations == [1, 2, 3]
    with pytest.raises(OperationError) as rejected:  # a trigger of a snapshot that does not run is rejected
        first(client.snapshot_trigger_stream(name))
    assert rejected.value.error == -2


def test_ctrl_c_stops_a_recurring_snapshot(start: Start, client: Client, fresh_app_name: str) -> None:
    name = f"cli-{fresh_app_name}"
    with start("snapshot", "--every", "200", "--name", name, "pva://demo:sum") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{name} 1  ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, err) == (0, "")
    with pytest.raises(OperationError):
        first(client.snapshot_trigger_stream(name))


def test_a_running_snapshot_is_not_stopped(run: Run, client: Client, fresh_app_name: str) -> None:
    name = f"cli-{fresh_app_name}"
    properties = SnapshotProperties(snapshot_name=name, pv_uri_list=["pva://demo:sum"], time_window=200)
    client.snapshot_recurring_stream(properties).subscribe(lambda _: None)
    first(client.snapshot_activation_stream(name))
    done = run("snapshot", "--every", "200", "--count", "1", "--name", name, "pva://demo:sum")
    assert done.returncode == 0
    assert f"snapshot {name} is already running" in done.stderr
    refused = run("snapshot", "--every", "5000", "--count", "1", "--name", name, "pva://demo:sum")
    assert refused.returncode == 1
    assert "in use with time_window_msec=200, not 5000" in refused.stderr
    assert first(client.snapshot_trigger_stream(name)).error == 0
    first(client.snapshot_stop_stream(name))


def test_all_values_prints_every_value_of_a_window(run: Run) -> None:
    done = run("snapshot", "--json", "--every", "1000", "--count", "1", "--all-values", "pva://demo:ramp100")
    assert done.returncode == 0
    (found,) = objects(done.stdout)
    assert isinstance(found["pvs"], dict)
    assert len(found["pvs"]["demo:ramp100"]) > 10


@pytest.mark.usefixtures("second_magnet")
def served(port: int, page: str) -> str:
    """Returns a page of a gateway's endpoint, whatever its status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ENDS_WITHIN)
    connection.request("GET", f"/{page}")
    return connection.getresponse().read().decode()


def test_the_gateway_command_runs_until_sigterm(
    start: Start, run: Run, stack: EmbeddedStack, environment: dict[str, str], fresh_app_name: str
) -> None:
    folder = Path(environment["K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"])
    own = INI.format(broker=stack.broker_address, commands=f"{fresh_app_name}-commands")
    (folder / "own.ini").write_text(own)
    environment |= stack.client_environment
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with start("-e", "own", "gateway", "--metrics-port", str(port)) as process:
        try:
            assert process.stderr is not None
            assert any("gateway started" in line for line in process.stderr)
            done = run("-e", "own", "get", "--timeout", "20", "pva://demo:setpoint2")
            pages = {page: served(port, page) for page in ("metrics", "healthz", "readyz")}
            second = run("-e", "own", "gateway", "--metrics-port", str(port))
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=ENDS_WITHIN)
    assert (done.returncode, done.stderr) == (0, ""), log
    assert done.stdout.endswith("  2.500 A\n")
    assert 'k2eg_gateway_command_results_total{command="get",result="ok"} 1.0' in pages["metrics"]
    assert 'k2eg_epics_ioc_operation{op="get"} 1.0' in pages["metrics"]
    assert "k2eg_gateway_kafka_connected 1.0" in pages["metrics"]
    assert json.loads(pages["healthz"])["status"] == "ok"
    parts = ("event_loop", "kafka", "command_topic", "pva", "ca")
    ready = json.loads(pages["readyz"])
    assert ready["checks"].pop("fleet", "ok") == "ok"  # the embedded broker has no state log
    assert ready == {"status": "ok", "checks": dict.fromkeys(parts, "ok")}
    assert second.returncode == 1
    assert f"metrics_port and metrics_host: cannot serve metrics on port {port} of '127.0.0.1'" in second.stderr
    assert process.returncode == 0
    assert "Traceback" not in log


def test_doctor_finds_nothing_wrong_but_the_pv_that_does_not_exist(run: Run) -> None:
    done = run("doctor", "--json", "pva://demo:sine10", "ca://demo:mode", "no:such")
    found = objects(done.stdout)
    assert {each["check"] for each in found if each["result"] == "failed"} == {"PVs"}, done.stdout
    pvs = [each["text"] for each in found if each["check"] == "PVs"]
    assert pvs[0].startswith("pva://demo:sine10: connected, floating point number, age ")
    assert "enum (Off, Standby, Ramping, Beam)" in pvs[1]
    assert pvs[2].startswith("pva://no:such: never connected")
    (gateway,) = (each for each in found if each["check"] == "gateway")
    assert gateway["text"].startswith("1 gateway answered")
    assert done.returncode == 1
