"""Signals end the gateway and the long-running commands with code 0, in bounded time, also while Kafka is away."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.broker import EmbeddedBroker

SECONDS = 60.0  # until a test fails; a passing test takes a few
COMMANDS = "signals-commands"

# Runs Python with a terminal as the controlling one, so that closing it sends SIGHUP.
AT_A_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Program:
    """The command line in a process, and its output as it appears."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str], terminal: int | None = None) -> None:
        start = [sys.executable, "-c", AT_A_TERMINAL, str(terminal)] if terminal is not None else [sys.executable]
        self.process = subprocess.Popen(
            [*start, "-m", "k2eg.cli", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if terminal is not None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if terminal is None else (terminal,),
            text=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        if self.process.stdout is not None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def wait_for_line(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self.lines), SECONDS), self.lines

    def end(self, number: signal.Signals) -> str:
        """Sends a signal; returns the output when the process has ended with code 0."""
        self.process.send_signal(number)
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        output = "".join(self.lines)
        assert code == 0, output
        assert "Traceback" not in output
        return output


Start = Callable[..., Program]


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def start(broker: EmbeddedBroker, stack: EmbeddedStack, tmp_path: Path) -> Iterator[Start]:
    """Starts the command line in an environment with the broker; the stack has the PVs."""
    (tmp_path / "own.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={broker.address}\nk2eg_cmd_topic={COMMANDS}\n[kafka]\nfetch.wait.max.ms=5\n"
        "[gateway]\ncreate_topics=no\nmonitor_expiration=0\n"
    )
    environment = {
        **os.environ,
        **stack.client_environment,
        "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(tmp_path),
        "K2EG_CLI_DEFAULT_ENVIRONMENT": "own",
    }
    programs: list[Program] = []

    def start_program(*words: str, terminal: int | None = None, **variables: str) -> Program:
        programs.append(Program(words, environment | variables, terminal))
        return programs[-1]

    yield start_program
    for program in programs:
        with suppress(ProcessLookupError):
            program.process.kill()
        program.process.wait(SECONDS)
        if program.process.stdout is not None:
            program.process.stdout.close()


def test_signals_while_kafka_is_away(start: Start, broker: EmbeddedBroker) -> None:
    gateway = start("gateway")
    gateway.wait_for_line("gateway started")
    monitor = start("--app", "one", "monitor", "pva://demo:ramp100")
    snapshot = start("--app", "two", "snapshot", "--every", "100", "--name", "signals", "pva://demo:ramp100")
    monitor.wait_for_line("demo:ramp100")
    snapshot.wait_for_line("signals 1")
    broker.close()
    gateway.wait_for_line("Kafka connection lost")
    for client in (monitor, snapshot):
        client.wait_for_line("cannot be reached")
    assert "was not stopped" not in monitor.end(signal.SIGTERM)
    assert "k2eg: snapshot signals was not stopped, the gateway may go on with it" in snapshot.end(signal.SIGHUP)
    log = gateway.end(signal.SIGHUP)
    assert "gateway stopping: reason=SIGHUP" in log
    (end,) = [line for line in log.splitlines() if "gateway stopped" in line]
    assert " WARNING " in end
    assert re.search(r"not delivered: (dropped_records|undelivered)=[1-9]", end), end


def test_a_gateway_that_cannot_start_yet_ends_at_a_signal(start: Start, broker: EmbeddedBroker) -> None:
    broker.close()
    gateway = start("gateway")
    gateway.wait_for_line("Kafka connection lost")
    assert "gateway stopped while it was starting: reason=SIGTERM" in gateway.end(signal.SIGTERM)


@pytest.mark.skipif(not hasattr(os, "login_tty"), reason="this system has no terminals of this kind")
def test_a_closed_terminal_ends_a_monitor_and_sighup_a_gateway_that_has_delivered_everything(start: Start) -> None:
    gateway = start("gateway")
    gateway.wait_for_line("gateway started")
    master, slave = os.openpty()
    monitor = start("monitor", "pva://demo:ramp100", terminal=slave)
    os.close(slave)
    seen = b""
    while b"demo:ramp100" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    assert monitor.process.wait(SECONDS) == 0
    assert " INFO k2eg_rx.gateway.service: gateway stopped: everything was delivered" in gateway.end(signal.SIGHUP)


def test_a_service_with_the_deployed_configuration_notifies_its_manager_and_logs_objects(
    start: Start, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    (tmp_path / "k2eg.conf").write_text(
        f"cmd-input-topic={COMMANDS}\npub-server-address={broker.address}\nsub-group-id=lcls-k2eg\n"
        "sub-impl-kv=fetch.wait.max.ms:5\nstorage-path=/opt\npub-impl-kv=ssl.key.password:hunter2\n"
    )
    words = ("--config", str(tmp_path / "k2eg.conf"), "--log-format", "json", "--log-level", "debug")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS)
        gateway = start("gateway", *words, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        notices = [manager.recv(1000).decode() for _ in range(4)]
        assert notices == [
            "STATUS=waiting for Kafka",
            f"READY=1\nSTATUS=carries out the commands of {COMMANDS}",
            "WATCHDOG=1",
            "WATCHDOG=1",
        ]
        log = gateway.end(signal.SIGTERM)
        while (notice := manager.recv(1000)) == b"WATCHDOG=1":
            pass
        assert notice == b"STOPPING=1"
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("option no meaning here: name=storage-path" in line["message"] for line in lines)
    assert any("gateway started" in line["message"] and "group=lcls-k2eg" in line["message"] for line in lines)
    assert "hunter2" not in log
