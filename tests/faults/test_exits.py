"""Scripts that exit without closing the client, that are interrupted, and that fork."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from timeouts import scaled_by_load

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
INTERRUPT_LIMIT = 1.0  # seconds from Ctrl-C to the exit, on an idle machine
SESSION = 45.0  # seconds after which a broker removes a group member that sends no heartbeats
POLL_INTERVAL = 0.2  # seconds between requests; Kafka does not report group changes

OPENING = """
import os, signal, sys, threading, time
from k2eg.dml import dml
from k2eg_rx import ForkError
uri, name, thread = sys.argv[1:]
k = dml("site", name)
k.wait_for_backends(30)
"""

WITHOUT_CLOSE = """
arrived = threading.Event()
k.monitor(uri, lambda name, data: arrived.set())
assert arrived.wait(30)
print(k.get(uri, timeout=30)["value"] >= 0, flush=True)
sys.stdin.read()
"""

BLOCKED = """
from k2eg_rx import Client, first
def place():
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code, frame.f_lasti
def report():
    while not (k.status.pending or client.status.monitors):
        time.sleep(0.01)
    seen = None
    while seen != (seen := place()):  # until it blocks
        time.sleep(0.1)
    print("waiting", flush=True)
    if thread == "other":  # the kernel may give a signal of the process to any thread
        sys.stdin.readline()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
client = Client("site", name + "-blocked")
threading.Thread(target=report, daemon=True).start()
"""
GET = 'k.get("pva://silent", timeout=60)'
FIRST = 'first(client.monitor_stream("pva://silent"))'

FORKED = """
child = os.fork()
if child == 0:
    try:
        k.get(uri)
    except ForkError as error:
        print(error, flush=True)
        k.close()
        sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
print(k.get(uri, timeout=30)["value"] >= 0, flush=True)
k.close()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a script in an environment with a gateway."""
    site.gateway()
    (tmp_path / "site.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={site.broker}\nk2eg_cmd_topic=commands-{site.name}\n"
        f"reply_topic={site.name}-reply\n"
    )
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(tmp_path))
    (uri,) = site.uris(1)

    def start_script(script: str, thread: str = "main") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OPENING + script, uri, f"script-{site.name}", thread]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return start_script


@pytest.fixture
def wait_for_members(site: Any) -> Callable[[int], float]:
    """Waits until the script's presence group has a number of members; returns the seconds that took."""
    admin, group = AdminClient({"bootstrap.servers": site.broker}), f"script-{site.name}-presence"

    def wait(count: int) -> float:
        started = time.monotonic()
        while True:
            described = admin.describe_consumer_groups([group], request_timeout=PATIENCE)[group]
            with suppress(KafkaException):  # the coordinator may still be loading its groups
                if len(described.result(PATIENCE).members) == count:
                    return time.monotonic() - started
            assert time.monotonic() - started < PATIENCE, f"waited for {count} members"
            time.sleep(POLL_INTERVAL)

    return wait


def output_of(script: subprocess.Popen[str]) -> tuple[str, str]:
    """Returns the output and errors of a script; kills a script that does not end."""
    try:
        return script.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        script.kill()
        pytest.fail("the script does not end")


def test_a_script_without_close_ends_and_leaves_its_group(
    start: Start, wait_for_members: Callable[[int], float]
) -> None:
    with start(WITHOUT_CLOSE) as script:
        wait_for_members(1)
        output, errors = output_of(script)
    assert (script.returncode, output, errors) == (0, "True\n", "")
    assert wait_for_members(0) < SESSION / 2, "the session expired instead"


@pytest.mark.parametrize("blocking_call", [GET, FIRST], ids=["get", "first"])
@pytest.mark.parametrize("thread", ["main", "other"])
def test_ctrl_c_ends_a_blocked_script(start: Start, blocking_call: str, thread: str) -> None:
    with start(BLOCKED + blocking_call, thread) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "waiting\n"
        interrupted = time.monotonic()
        if thread == "main":
            script.send_signal(signal.SIGINT)
        else:
            assert script.stdin is not None
            script.stdin.write("\n")
            script.stdin.flush()
        _, errors = output_of(script)
        duration = time.monotonic() - interrupted
    assert script.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert duration < scaled_by_load(INTERRUPT_LIMIT)


def test_using_the_client_in_a_forked_child_raises(start: Start) -> None:
    with start(FORKED) as script:
        output, errors = output_of(script)
    assert (script.returncode, errors) == (0, "")
    assert output.startswith("this client was made before a fork"), output
    assert output.endswith("True\n")
