"""``k2eg demo`` as a person sees it: on a terminal, in a pipe, and its tour."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, FOLDER_VARIABLE, shipped_folder

START_SECONDS = 40.0  # to start everything and show values, on a busy machine
END_SECONDS = 6.0  # the demo promises 3; twice that, for a machine that has too much else to do
TOUR_SECONDS = 55.0

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# Makes the terminal on its standard input its controlling one, so that Ctrl-C typed there is a SIGINT here.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "k2eg.cli", *sys.argv[1:]])
"""


@dataclass
class Runtime:
    """A process environment with a mark, by which all descendants can be found."""

    mark: str
    environment: dict[str, str]
    broker_file: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with these arguments to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
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
        """Starts a demo without a terminal; it runs, and has printed a value, when this is entered."""
        with subprocess.Popen(
            [sys.executable, "-m", "k2eg.cli", "demo", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as demo:
            try:
                assert demo.stdout is not None
                assert any(line.startswith("demo:sum") for line in demo.stdout)
                yield demo
            finally:
                demo.kill()

    def processes(self) -> list[int]:
        """Those that have the mark."""
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@pytest.fixture
def current_runtime(tmp_path: Path) -> Iterator[Runtime]:
    mark = uuid.uuid4().hex
    broker_file = tmp_path / "broker"
    environment = {
        **os.environ,
        "K2EG_TEST_MARK": mark,
        DEMO_BROKER_VARIABLE: str(broker_file),
        FOLDER_VARIABLE: str(shipped_folder()),
        "TERM": "xterm-256color",
    }
    current_runtime = Runtime(mark, environment, broker_file)
    yield current_runtime
    for process in current_runtime.processes():
        os.kill(process, signal.SIGKILL)


class Terminal:
    """A terminal of 100 by 30 and a process on it."""

    def __init__(self, current_runtime: Runtime, *words: str) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self._slave = slave
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=current_runtime.environment,
            start_new_session=True,
        )

    def read_until(self, pattern: str, seconds: float) -> None:
        """Reads until the pattern is in what was written, colours aside."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, COLOUR.sub("", self.text)):
            ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{pattern!r} did not come; this did: {self.text[-3000:]!r}"
            self.text += os.read(self._master, 65536).decode("utf-8", "replace")

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def drain(self) -> None:
        """Reads what is there; the slave side is open here, so it never ends."""
        while select.select([self._master], [], [], 0)[0]:
            self.text += os.read(self._master, 65536).decode("utf-8", "replace")

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)


def wait_while_reading(terminal: Terminal, seconds: float) -> int:
    """Waits for the end; what the process writes has to be read, or it could not end."""
    deadline = time.monotonic() + seconds
    descriptor = os.pidfd_open(terminal.process.pid)
    try:
        while not select.select([descriptor], [], [], 0.05)[0]:
            terminal.drain()
            assert time.monotonic() < deadline, f"it did not end within {seconds} s"
    finally:
        os.close(descriptor)
    terminal.drain()
    return terminal.process.wait()


def test_the_demo_shows_live_pvs_and_ends_at_ctrl_c(current_runtime: Runtime) -> None:
    with Terminal(current_runtime, "demo") as terminal:
        for pattern in ("k2eg -e demo", r"demo:setpoint1 +1\.500 +A +NO_ALARM", "rows of element", "▁▁", r"\d\d Hz"):
            terminal.read_until(pattern, START_SECONDS)
        assert current_runtime.broker_file.stat().st_mode & 0o777 == 0o600
        assert len(current_runtime.processes()) == 2  # itself and the IOC
        terminal.press_ctrl_c()
        assert wait_while_reading(terminal, END_SECONDS) == 0
        assert current_runtime.processes() == []
        assert not current_runtime.broker_file.exists()
        assert terminal.text.endswith("stopped\r\n")
        assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")  # the first screen is back
        assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")  # and so is the cursor
        assert terminal.modes_now() == terminal.modes


def test_while_it_runs_environment_demo_works_and_a_second_demo_is_refused(current_runtime: Runtime) -> None:
    with current_runtime.demo() as demo:
        got = current_runtime.k2eg("-e", "demo", "-a", "me", "get", "pva://demo:sum")
        second = current_runtime.k2eg("demo")
        demo.send_signal(signal.SIGTERM)
        _, err = demo.communicate(timeout=END_SECONDS)
    assert (got.returncode, got.stderr) == (0, "")
    assert got.stdout.endswith("  4.000 A\n")
    assert second.returncode == 1
    assert "running already" in second.stderr
    assert (demo.returncode, err) == (0, "")
    assert current_runtime.processes() == []
    assert not current_runtime.broker_file.exists()
    after = current_runtime.k2eg("-e", "demo", "get", "pva://demo:sum")
    assert after.returncode == 1
    assert "no demo is running" in after.stderr


@pytest.mark.timeout(240)  # two demos, one after the other
def test_a_demo_that_is_killed_leaves_no_process_and_no_obstacle(current_runtime: Runtime) -> None:
    with current_runtime.demo() as demo:
        (child,) = (process for process in current_runtime.processes() if process != demo.pid)
        ioc = os.pidfd_open(child)
    ended, _, _ = select.select([ioc], [], [], START_SECONDS)
    os.close(ioc)
    assert ended
    stale = current_runtime.k2eg("-e", "demo", "get", "pva://demo:sum")
    assert stale.returncode == 1
    assert "no demo is running" in stale.stderr
    with current_runtime.demo() as demo:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=START_SECONDS)
    assert demo.returncode == 0


def test_the_tour_goes_through_every_operation(current_runtime: Runtime) -> None:
    done = current_runtime.k2eg("demo", "--tour")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "all 9 steps done" in done.stdout
    for operation in ("get", "put", "monitor", "one-shot", "normal", "triggered", "timed-buffered", "table", "pipe"):
        assert operation in done.stdout
    assert current_runtime.processes() == []


def test_the_tour_fails_if_a_step_does(current_runtime: Runtime) -> None:
    program = (
        "import sys; from k2eg import cli; from k2eg.cli import tour\n"
        "tour.Tour._put = lambda self: [][0]\n"
        "sys.exit(cli.main(['demo', '--tour']))"
    )
    done = current_runtime.run("-c", program)
    assert done.returncode == 1
    assert done.stderr == "k2eg: step 2 (put): list index out of range\n"
    assert "3. " not in done.stdout
    assert current_runtime.processes() == []


def test_a_broker_of_ones_own_is_used(current_runtime: Runtime, stack: EmbeddedStack) -> None:
    with current_runtime.demo("--kafka", stack.broker_address) as demo:
        assert current_runtime.broker_file.read_text().strip() == stack.broker_address
        demo.send_signal(signal.SIGTERM)
        _, err = demo.communicate(timeout=END_SECONDS)
    assert (demo.returncode, err) == (0, "")
