"""Channel Access for one address list in this process, though libca knows nothing but the process environment.

In: the EPICS variables of a client. Out: a span of time in which libca, wherever in this process it starts, takes them.
libca reads them when a context opens its first channel, and not again; any thread.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import struct
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from k2eg_rx.embedded.loopback import HOST, free_ports

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 0.02  # it takes about 1 ms to answer, once its port is bound
_ASKED = 50  # so within a second
_REGISTER, _CONFIRM = 24, 17  # CAPROTO: REPEATER_REGISTER, REPEATER_CONFIRM

_repeater_lock = threading.Lock()
_repeater_port: list[int] = []  # of this process's repeater, once it runs


def _answers(port: int) -> bool:
    """Whether a repeater takes registrations on the port, within a second."""
    registration = struct.pack(">HHHHI4s", _REGISTER, 0, 0, 0, 0, socket.inet_aton(HOST))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((HOST, 0))  # not connected: it confirms from another port
        asker.settimeout(_ASK_AGAIN_SECONDS)
        for _ in range(_ASKED):
            asker.sendto(registration, (HOST, port))
            try:
                return asker.recv(16)[:2] == struct.pack(">H", _CONFIRM)
            except TimeoutError:
                continue
    return False


def _run_repeater() -> int:
    """Runs a CA repeater on a thread of this process and a port of its own, once per process; returns the port.

    Where no repeater listens, libca starts one: the program ``caRepeater`` if there is one in the path, which then runs
    for ever, and a thread on the site's standard port if not. Neither is wanted of a demo.
    """
    with _repeater_lock:
        if not _repeater_port:
            from epicscorelibs import path as library_path  # noqa: PLC0415 - an extra

            paths: Any = library_path
            library = ctypes.CDLL(str(paths.get_lib("ca")))
            (port,) = free_ports(1)
            with changed_environment({"EPICS_CA_REPEATER_PORT": str(port)}):
                # It never returns, and does not hold the interpreter's lock: a daemon thread ends with the process.
                threading.Thread(
                    target=library.caRepeaterThread, args=(None,), name="k2eg-ca-repeater", daemon=True
                ).start()
                if not _answers(port):
                    _log.warning("the CA repeater on port %d does not answer", port)
            _repeater_port.append(port)
        return _repeater_port[0]


@contextmanager
def changed_environment(variables: Mapping[str, str]) -> Generator[None]:
    """Sets variables of the process environment, and puts back what was there when it is left."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def channel_access(variables: Mapping[str, str]) -> Generator[None]:
    """Has libca take these variables; leave it when a first channel has been connected.

    Args:
        variables: The EPICS_CA_* variables of a client.
    """
    wanted = {name: value for name, value in variables.items() if name.startswith("EPICS_CA_")}
    with changed_environment(wanted | {"EPICS_CA_REPEATER_PORT": str(_run_repeater())}):
        yield
