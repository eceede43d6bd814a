"""A real EPICS IOC as a child process: serves a database over Channel Access and PVAccess (QSRV).

Thread safety: `start` and `stop` on any thread, one at a time; the IOC's output is logged on a thread of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from k2eg_rx.embedded.loopback import ServerPorts, without_epics
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_READY = "IOC Running"  # printed by epicscorelibs.ioc after iocInit, when all servers listen
_PORT_TAKEN = "port was unavailable"  # rsrv then listens on another port, which clients do not know
_PORT_ATTEMPTS = 3  # another process may take a port before the IOC binds it, which is rare
_KEPT_LINES = 50  # enough for the errors of dbLoadRecords
_EXIT_SECONDS = 1.0  # to exit after the end of input; usually 0.1 s
_DRAIN_SECONDS = 0.5  # to read the rest of its output; with the above less than a stack has for all its parts

# The child ends when its input does, even if this process is killed. A copy of the pipe in a forked sibling would keep
# the input open, so the child also checks its parent twice a second. (PR_SET_PDEATHSIG exists on Linux only and acts
# when the thread that started the child ends.)
#
# It also is the IOC's event receiver: a record whose TSE is 1 gets the time with the number of the pulse in the lowest
# 17 bits of the nanoseconds. Each time such a record processes, the next pulse begins; others take it over by TSEL.
_CHILD = """
import ctypes, os, runpy, sys, threading, time
from epicscorelibs import ioc
parent = int(sys.argv.pop(1))
def watch():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
class Stamp(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_uint32), ("nanoseconds", ctypes.c_uint32)]
pulse = 0
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stamp), ctypes.c_int)
def stamp(result, event):
    global pulse
    pulse = (pulse + 1) & 0x1FFFF
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    result.contents.seconds = seconds - 631152000
    result.contents.nanoseconds = nanoseconds & ~0x1FFFF | pulse
    return 0
ioc.Com.generalTimeRegisterEventProvider(b"pulses", 50, stamp)
runpy.run_module("pvxslibs.ioc", run_name="__main__", alter_sys=True)
"""


class IocError(Exception):
    """The IOC did not start. The text contains its output."""


class _Attempt:
    """A child process, with the thread that reads its output."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.started_or_ended = threading.Event()
        self.ready = False
        self.port_taken = False
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.process = subprocess.Popen(  # noqa: S603 - a fixed command
            [sys.executable, "-c", _CHILD, str(os.getpid()), *arguments],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on a terminal must reach this process only, which stops the IOC
        )
        self._drain = threading.Thread(target=self._read, name="k2eg-ioc-output", daemon=True)
        self._drain.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            text = line.decode("utf-8", "replace").rstrip()
            self.lines.append(text)
            _log.debug("IOC output: pid=%d line=%s", self.process.pid, text)
            self.port_taken |= _PORT_TAKEN in text
            if text.startswith(_READY):
                self.ready = True
                self.started_or_ended.set()
        self.started_or_ended.set()  # end of output: the process is ending

    def stop(self) -> None:
        """Ends the IOC. It has nothing to save, so one that takes long, as on a busy machine, is killed."""
        self._end_input()
        try:
            self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            _log.debug("IOC killed, as it did not exit: pid=%d seconds=%g", self.process.pid, _EXIT_SECONDS)
            self.process.kill()
            self.process.wait()
        self._drain.join(_DRAIN_SECONDS)
        if self.process.stdout is not None and not self._drain.is_alive():
            self.process.stdout.close()

    def _end_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


class SoftIoc:
    """An IOC that runs from `start` to `stop`, or as a context manager.

    Attributes:
        ports: The server's ports. They do not change over `stop` and `start`.
    """

    def __init__(
        self,
        database: str | Path | Sequence[str | Path],
        macros: Mapping[str, str] | None = None,
        ports: ServerPorts | None = None,
    ) -> None:
        """
        Args:
            database: The path of a database file, or several, loaded in that order.
            macros: Values of ``$(NAME)`` in these files.
            ports: The server's ports; by default free ones.
        """
        files = [database] if isinstance(database, str | Path) else list(database)
        definitions = ",".join(f"{name}={value}" for name, value in (macros or {}).items())
        self._arguments = ["-m", definitions] if definitions else []
        for file in files:
            self._arguments += ["-d", str(file)]
        self._chosen = ports
        self.ports = ports or ServerPorts.free()
        self._attempt: _Attempt | None = None

    @property
    def client_environment(self) -> dict[str, str]:
        """The EPICS variables for a client of this IOC only.

        A PVAccess client takes them as configuration. libca reads them from the process environment once, when the
        process creates its first Channel Access context: set them in `os.environ` before.
        """
        return self.ports.ca_client_environment | self.ports.pva_client_environment

    @property
    def pid(self) -> int | None:
        """The process id; None while the IOC is stopped."""
        return self._attempt.process.pid if self._attempt else None

    def start(self, timeout: float = 60.0) -> Self:
        """Starts the IOC and returns when it serves its records.

        Args:
            timeout: Maximum duration in seconds; usually 0.5 s.

        Raises:
            IocError: The IOC ended or did not start in time.
        """
        if self._attempt is not None:
            return self
        for _ in range(_PORT_ATTEMPTS):
            attempt = self._launch(timeout)
            if not attempt.port_taken:
                self._attempt = attempt
                return self
            attempt.stop()
            if self._chosen is not None:
                break
            self.ports = ServerPorts.free()
        raise IocError(f"the IOC's port {self.ports.ca} is in use")

    def _launch(self, timeout: float) -> _Attempt:
        environment = without_epics() | self.ports.ca_server_environment | self.ports.pva_server_environment
        # The IOC's own client (database links) connects to this IOC only, not to the site.
        environment |= self.client_environment | {"PVXS_QSRV_ENABLE": "YES"}
        attempt = _Attempt(self._arguments, environment)
        in_time = attempt.started_or_ended.wait(timeout)
        if attempt.ready:
            return attempt
        attempt.stop()
        reason = f"ended with code {attempt.process.returncode}" if in_time else f"did not start within {timeout:g} s"
        raise IocError("\n".join([f"the IOC {reason}; its output:", *attempt.lines]))

    def stop(self) -> None:
        """Stops the IOC, with SIGKILL if it does not exit itself. Idempotent."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
