"""A real EPICS IOC as a child process: records of a database, served over Channel Access and PVAccess (QSRV).

In: database files. Out: process variables on free loopback ports, and the variables a client needs to find them.
`start` and `stop` may be called on any thread, one at a time; what the IOC prints is logged on a thread of its own.
"""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)

_READY = "IOC Running"  # printed by epicscorelibs.ioc when iocInit has returned: all servers listen
_PORT_TAKEN = "port was unavailable"  # rsrv then listens on another one, where nobody looks for it
_PORT_ATTEMPTS = 3  # between choosing a port and using it somebody else may take it, which is rare enough once
_KEPT_LINES = 50  # enough for what dbLoadRecords says about a bad database
_EXIT_SECONDS = 3.0  # to exit after its input has ended; it takes about 0.1 s

# The child ends when its input does, even if this process is killed. A copy of the pipe in a forked sibling would keep
# the input open, so the child also checks its parent twice a second. (PR_SET_PDEATHSIG exists on Linux only and acts
# when the thread that started the child ends.)
_CHILD = """
import os, runpy, sys, threading, time
parent = int(sys.argv.pop(1))
def watch():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("pvxslibs.ioc", run_name="__main__", alter_sys=True)
"""


class IocError(Exception):
    """The IOC did not start. The text has what it printed."""


class _Attempt:
    """One child, from its start to its end, with the thread that drains it."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.decided = threading.Event()
        self.ready = False
        self.port_taken = False
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.process = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-c", _CHILD, str(os.getpid()), *arguments],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the Ctrl-C at a terminal is for us; we stop it
        )
        self._drain = threading.Thread(target=self._read, name="k2eg-ioc-output", daemon=True)
        self._drain.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            text = line.decode("utf-8", "replace").rstrip()
            self.lines.append(text)
            _log.debug("ioc %d: %s", self.process.pid, text)
            self.port_taken |= _PORT_TAKEN in text
            if text.startswith(_READY):
                self.ready = True
                self.decided.set()
        self.decided.set()  # it ends, though its process may still be there

    def stop(self) -> None:
        for end in (self._end_input, self.process.terminate, self.process.kill):
            end()
            try:
                self.process.wait(_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning("ioc %d did not exit within %g s", self.process.pid, _EXIT_SECONDS)
            else:
                break
        self._drain.join(_EXIT_SECONDS)
        if self.process.stdout is not None and not self._drain.is_alive():
            self.process.stdout.close()

    def _end_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


class SoftIoc:
    """An IOC that runs from `start` to `stop`, or as a context manager.

    Attributes:
        ports: The ports it serves on. They stay the same if it is stopped and started again.
    """

    def __init__(
        self,
        database: str | Path | Sequence[str | Path],
        macros: Mapping[str, str] | None = None,
        ports: ServerPorts | None = None,
    ) -> None:
        """
        Args:
            database: The path of a database file, or of several, loaded in that order.
            macros: What ``$(NAME)`` stands for in all of them.
            ports: The ports to serve on; by default free ones are chosen at the first start.
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
        """The EPICS variables with which a client finds this IOC, and only it.

        For a PVAccess client they are its configuration. libca reads them from the process environment, when the
        first Channel Access context of the process is made and never again: put them into `os.environ` before.
        """
        return self.ports.ca_client_environment | self.ports.pva_client_environment

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._attempt.process.pid if self._attempt else None

    def start(self, timeout: float = 20.0) -> Self:
        """Starts the IOC and returns it when it serves its records.

        Args:
            timeout: For how many seconds to wait; it takes about 0.5 s on an idle machine.

        Raises:
            IocError: It ended, or did not get ready in time.
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
        # Its own client side (database links) sees the IOC itself and nothing of the site.
        environment |= self.client_environment | {"PVXS_QSRV_ENABLE": "YES"}
        attempt = _Attempt(self._arguments, environment)
        in_time = attempt.decided.wait(timeout)
        if attempt.ready:
            return attempt
        attempt.stop()
        how = f"ended with code {attempt.process.returncode}" if in_time else f"was not ready within {timeout:g} s"
        raise IocError("\n".join([f"the IOC {how}; it printed:", *attempt.lines]))

    def stop(self) -> None:
        """Ends the IOC, the hard way if need be: within seconds its process is gone. Idempotent."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
