"""Scripts that end without a word, that are interrupted, and that fork."""

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

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
AT_ONCE = 1.0  # seconds for a Ctrl-C, on a machine that has nothing else to do
SESSION = 45.0  # seconds after which a broker forgets a member of a group that says nothing
ASK = 0.2  # seconds between questions: nobody tells when a group changes

OPENING = """
import os, sys, threading, time
from k2eg.dml import dml
from k2eg_rx import ForkError
uri, name = sys.argv[1:]
k = dml("site", name)
k.wait_for_backends(30)
"""

FORGETS = """
came = threading.Event()
k.monitor(uri, lambda name, data: came.set())
assert came.wait(30)
print(k.get(uri, timeout=30)["value"] >= 0, flush=True)
sys.stdin.read()
"""

WAITS = """
def tell():
    while not k.status.pending:
        time.sleep(0.01)
    print("waiting", flush=True)
threading.Thread(target=tell, daemon=True).start()
k.get("pva://nobody", timeout=60)
"""

FORKS = """
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

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """What starts a script whose environment has a gateway."""
    site.gateway()
    (tmp_path / "site.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={site.broker}\nk2eg_cmd_topic=commands-{site.name}\n"
        f"reply_topic={site.name}-reply\n"
    )
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(tmp_path))
    (uri,) = site.uris(1)

    def started(script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OPENING + script, uri, f"script-{site.name}"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return started


@pytest.fixture
def wait_for_members(site: Any) -> Callable[[int], float]:
    """What waits until a script's group has so many members, and returns how many seconds that took."""
    admin, group = AdminClient({"bootstrap.servers": site.broker}), f"script-{site.name}-presence"

    def wait(count: int) -> float:
        since = time.monotonic()
        while True:
            described = admin.describe_consumer_groups([group], request_timeout=PATIENCE)[group]
            with suppress(KafkaException):  # a broker that has just begun loads what it knows of groups
                if len(described.result(PATIENCE).members) == count:
                    return time.monotonic() - since
            assert time.monotonic() - since < PATIENCE, f"waited for {count} members"
            time.sleep(ASK)

    return wait


def heard_of(script: subprocess.Popen[str]) -> tuple[str, str]:
    """What a script says until it ends; one that does not is ended, or nobody would hear that it did not."""
    try:
        return script.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        script.kill()
        pytest.fail("the script does not end")


def test_a_script_that_forgets_to_close_ends_and_is_gone(
    start: Start, wait_for_members: Callable[[int], float]
) -> None:
    with start(FORGETS) as script:
        wait_for_members(1)
        said, complaints = heard_of(script)
    assert (script.returncode, said, complaints) == (0, "True\n", "")
    assert wait_for_members(0) < SESSION / 2, "it has left, and was not given up"


def test_ctrl_c_ends_a_script_that_waits(start: Start) -> None:
    with start(WAITS) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "waiting\n"
        interrupted = time.monotonic()
        script.send_signal(signal.SIGINT)
        _, complaints = heard_of(script)
        took = time.monotonic() - interrupted
    assert script.returncode == -signal.SIGINT
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert took < scaled_by_load(AT_ONCE)


def test_a_forked_child_that_uses_the_client_is_told_so_and_ends(start: Start) -> None:
    with start(FORKS) as script:
        said, complaints = heard_of(script)
    assert (script.returncode, complaints) == (0, "")
    assert said.startswith("this client was made before a fork"), said
    assert said.endswith("True\n")
