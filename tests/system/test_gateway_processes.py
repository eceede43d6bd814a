"""Several gateways in processes of their own, under one supervisor, on Apache Kafka."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx.embedded.loopback import free_ports, without_epics

SECONDS = 180.0

pytestmark = pytest.mark.timeout(400)


class Supervisor:
    """A running ``k2eg gateway --processes 2``; its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.process = process
        self._log = log
        self._port = port

    def log(self) -> str:
        return self._log.read_text()

    def members(self) -> list[int]:
        """Returns the ids of all member processes that were started, in order."""
        return [int(pid) for pid in re.findall(r"gateway process started: member=\d+ pid=(\d+)", self.log())]

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_for_metrics(self, *lines: str) -> str:
        """Waits until the metrics have these lines; returns all."""
        deadline = time.monotonic() + SECONDS
        while not set(lines) <= set((text := self.page("/metrics")[1]).splitlines()):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, (text, self.log())
            time.sleep(0.2)
        return text


@contextmanager
def supervisor(folder: Path, broker: str, *, creates_topic: bool = True) -> Iterator[Supervisor]:
    commands, (port,) = f"commands-{uuid.uuid4().hex}", free_ports(1)
    if creates_topic:
        admin = AdminClient({"bootstrap.servers": broker})
        admin.create_topics([NewTopic(commands, 2)])[commands].result(SECONDS)
    (folder / "site.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={commands}\n[gateway]\ngroup={commands}\n"
    )
    variables = without_epics(os.environ) | {
        "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(folder),
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    words = ["-m", "k2eg.cli", "-e", "site", "gateway", "--processes", "2", "--metrics-port", str(port)]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *words], env=variables, stderr=out)
    running = Supervisor(process, log, port)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        for pid in running.members():
            wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Waits for the end of a process that may have ended already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with closing(os.fdopen(descriptor)):
        assert select.select([descriptor], [], [], SECONDS)[0], f"process {pid} does not end"


def test_a_killed_member_is_started_again_and_all_end_with_the_supervisor(tmp_path: Path, apache_kafka: Any) -> None:
    with supervisor(tmp_path, apache_kafka.address) as running:
        running.wait_for_metrics('k2eg_gateway_members{state="ready"} 2.0', "k2eg_gateway_restarts_total 0.0")
        assert running.page("/readyz")[0] == running.page("/healthz")[0] == 200
        os.kill(running.members()[0], signal.SIGKILL)
        text = running.wait_for_metrics('k2eg_gateway_members{state="ready"} 2.0', "k2eg_gateway_restarts_total 1.0")
        assert re.search(r'^k2eg_gateway_.*member="1"', text, re.MULTILINE)
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        pids = running.members()
        assert len(set(pids)) == 3
        for pid in pids:
            wait_for_end(pid)
    lines = running.log().splitlines()
    assert any(line.startswith("gateway-2: ") and "gateway started" in line for line in lines)
    assert "Traceback" not in running.log()


def test_members_end_when_the_supervisor_is_killed(tmp_path: Path, apache_kafka: Any) -> None:
    with supervisor(tmp_path, apache_kafka.address) as running:
        running.wait_for_metrics('k2eg_gateway_members{state="ready"} 2.0')
        running.process.kill()
        for pid in running.members():
            wait_for_end(pid)


def test_they_end_when_none_can_start(tmp_path: Path) -> None:
    with supervisor(tmp_path, "127.0.0.1:1?", creates_topic=False) as running:
        assert running.process.wait(SECONDS) == 1
    assert "gateways cannot run: reason=a process ended before any was ready" in running.log()
