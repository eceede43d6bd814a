"""Client and command line work without the modules and functions that macOS or Windows lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k2eg_rx.settings import FOLDER_VARIABLE

HIDE = """
import os, signal, sys
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None  # its import raises ImportError
for name in ("O_CLOEXEC", "O_DIRECTORY", "fdatasync", "geteuid", "getuid", "pidfd_open", "set_blocking"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "pthread_kill", "pthread_sigmask", "sigwait"):
    delattr(signal, name)
"""

IMPORTS = """
import k2eg, k2eg.cli.commands.get, k2eg.cli.commands.monitor, k2eg.cli.commands.demo
import k2eg_rx, k2eg_rx.aio, k2eg_rx.embedded, k2eg_rx.frames, k2eg_rx.gateway, k2eg_rx.operators, k2eg_rx.recording
import k2eg_rx.recording.storage, k2eg_rx.testing
"""

GET = """
from k2eg import cli
from k2eg_rx.testing import ScriptedGateway
with ScriptedGateway() as gateway, gateway.clock.running():
    gateway.pv("my:x", 1.5, units="A")
    sys.exit(cli.main(["-e", "lab", "get", "pva://my:x"]))
"""

HELP = """
from k2eg import cli
sys.exit(cli.main(["-h"]))
"""

SIGNALS = """
from k2eg_rx.concurrency import TerminationSignals
with TerminationSignals() as signals:
    signals.defer()
    assert not signals.wait(0.0)
    signal.raise_signal(signal.SIGINT)
    assert signals.wait(10.0)
"""

DEMO = """
from pathlib import Path
from k2eg.cli.demo_registry import DemoError, DemoRegistration
path = Path(sys.argv[1]) / "broker"
path.write_text("127.0.0.1:1")
try:
    DemoRegistration(path).check()
except DemoError as error:
    print(error)
"""


def run(program: str, folder: Path) -> str:
    (folder / "lab.ini").write_text("[DEFAULT]\nkafka_broker_url=127.0.0.1:1\nk2eg_cmd_topic=commands\n")
    done = subprocess.run(
        [sys.executable, "-c", HIDE + program, str(folder)],
        env=os.environ | {FOLDER_VARIABLE: str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("program", "output"),
    [
        (IMPORTS, ""),
        (HELP, "usage: k2eg"),
        (GET, "my:x"),
        (SIGNALS, ""),
        (DEMO, "`k2eg demo` needs POSIX file locks"),
    ],
)
def test_programs_run_without_functions_that_are_not_portable(program: str, output: str, tmp_path: Path) -> None:
    assert run(program, tmp_path).startswith(output)
