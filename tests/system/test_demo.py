"""``k2eg demo`` on a terminal and in a pipe, and its tour."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from k2eg_rx.embedded import EmbeddedStack, SoftIoc
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, FOLDER_VARIABLE, shipped_folder

from .terminal import Terminal

START_SECONDS = 100.0  # until values are shown, on a busy machine
END_SECONDS = 6.0  # twice the documented 3 s, for a busy machine
TOUR_SECONDS = 150.0


@dataclass
class ProcessEnvironment:
    """A process environment with a marker that identifies all descendants."""

    marker: str
    variables: dict[str, str]
    broker_file: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with these arguments to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=TOUR_SECONDS,
            check=False,
        )

    def k2eg(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the command line to its end."""
        return self.run("-m", "k2eg.cli", *words)

    @contextmanager
    def demo(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Starts a demo without a terminal and waits for its first value."""
        with subprocess.Popen(
            [sys.executable, "-m", "k2eg.cli", "demo", *words],
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as demo:
            try:
                assert demo.stdout is not None
                shown = any(line.startswith("demo:sum") for line in demo.stdout)
                assert shown, demo.communicate()[1]
                yield demo
            finally:
                demo.kill()

    def processes(self) -> list[int]:
        """Returns the processes that have the marker."""
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.marker.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[ProcessEnvironment]:
    marker = uuid.uuid4().hex
    broker_file = tmp_path / "broker"
    variables = {
        **os.environ,
        "K2EG_TEST_MARK": marker,
        DEMO_BROKER_VARIABLE: str(broker_file),
        FOLDER_VARIABLE: str(shipped_folder()),
        "TERM": "xterm-256color",
    }
    environment = ProcessEnvironment(marker, variables, broker_file)
    yield environment
    for process in environment.processes():
        os.kill(process, signal.SIGKILL)


def test_the_demo_shows_live_pvs_until_ctrl_c(environment: ProcessEnvironment) -> None:
    with Terminal(environment.variables, "demo") as terminal:
        for pattern in ("k2eg -e demo", r"demo:setpoint1 +1\.500 +A +NO_ALARM", "rows of element", "▁▁", r"\d\d Hz"):
            terminal.read_until(pattern, START_SECONDS)
        assert environment.broker_file.stat().st_mode & 0o777 == 0o600
        assert len(environment.processes()) == 2  # itself and the IOC
        terminal.press_ctrl_c()
        assert terminal.wait(END_SECONDS) == 0
        assert environment.processes() == []
        assert not environment.broker_file.exists()
        assert terminal.text.endswith("stopped\r\n")
        assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")  # leaves the alternate screen
        assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")  # shows the cursor
        assert terminal.modes_now() == terminal.modes


def test_environment_demo_works_and_a_second_demo_is_rejected_while_it_runs(environment: ProcessEnvironment) -> None:
    with environment.demo() as demo:
        got = environment.k2eg("-e", "demo", "-a", "me", "get", "pva://demo:sum")
        second = environment.k2eg("demo")
        demo.send_signal(signal.SIGTERM)
        _, err = demo.communicate(timeout=END_SECONDS)
    assert (got.returncode, got.stderr) == (0, "")
    assert got.stdout.endswith("  4.000 A\n")
    assert second.returncode == 1
    assert "running already" in second.stderr
    assert (demo.returncode, err) == (0, "")
    assert environment.processes() == []
    assert not environment.broker_file.exists()
    after = environment.k2eg("-e", "demo", "get", "pva://demo:sum")
    assert after.returncode == 1
    assert "no demo is running" in after.stderr


@pytest.mark.timeout(240)  # two demos, one after the other
def test_a_killed_demo_leaves_no_process_and_the_next_one_starts(environment: ProcessEnvironment) -> None:
    with environment.demo() as demo:
        (child,) = (process for process in environment.processes() if process != demo.pid)
        ioc = os.pidfd_open(child)
    ended, _, _ = select.select([ioc], [], [], START_SECONDS)
    os.close(ioc)
    assert ended
    stale = environment.k2eg("-e", "demo", "get", "pva://demo:sum")
    assert stale.returncode == 1
    assert "no demo is running" in stale.stderr
    with environment.demo() as demo:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=START_SECONDS)
    assert demo.returncode == 0


def test_the_tour_runs_every_operation(environment: ProcessEnvironment) -> None:
    done = environment.k2eg("demo", "--tour")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "all 9 steps done" in done.stdout
    for operation in ("get", "put", "monitor", "one-shot", "normal", "triggered", "timed-buffered", "table", "pipe"):
        assert operation in done.stdout
    assert environment.processes() == []


def test_the_tour_fails_if_a_step_does(environment: ProcessEnvironment) -> None:
    program = (
        "import sys; from k2eg import cli; from k2eg.cli.commands import tour\n"
        "tour.Tour._put = lambda self: [][0]\n"
        "sys.exit(cli.main(['demo', '--tour']))"
    )
    done = environment.run("-c", program)
    assert done.returncode == 1
    assert done.stderr == "k2eg: step 2 (put): list index out of range\n"
    assert "3. " not in done.stdout
    assert environment.processes() == []


def test_a_given_broker_is_used(environment: ProcessEnvironment, stack: EmbeddedStack) -> None:
    with environment.demo("--kafka", stack.broker_address) as demo:
        assert environment.broker_file.read_text().strip() == stack.broker_address
        demo.send_signal(signal.SIGTERM)
        _, err = demo.communicate(timeout=END_SECONDS)
    assert (demo.returncode, err) == (0, "")


def test_own_records_and_own_iocs_are_served_too(environment: ProcessEnvironment, tmp_path: Path) -> None:
    database, other = tmp_path / "own.db", tmp_path / "other.db"
    database.write_text('record(ai, "own:a") { field(VAL, "1.25") field(PINI, "YES") }')
    other.write_text('record(ai, "other:a") { field(VAL, "2.5") field(PINI, "YES") }')
    own_folder = {FOLDER_VARIABLE: str(tmp_path)}  # which has no environment `demo`
    with SoftIoc(other) as ioc:
        addresses = ("--pva", f"127.0.0.1:{ioc.ports.pva_search}", "--ca", f"127.0.0.1:{ioc.ports.ca}")
        with environment.demo("--db", str(database), *addresses) as demo:
            environment.variables |= own_folder
            got = environment.k2eg("-e", "demo", "get", "pva://own:a", "pva://other:a", "ca://other:a")
            camera = environment.k2eg("-e", "demo", "get", "pva://demo:camera")
            demo.send_signal(signal.SIGTERM)
            demo.communicate(timeout=END_SECONDS)
    assert (got.returncode, got.stderr) == (0, "")
    assert [line.split()[-1] for line in got.stdout.splitlines()] == ["1.25", "2.5", "2.5"]
    assert (camera.returncode, camera.stderr) == (0, "")
