"""Configures Channel Access in this process by changing the process environment temporarily.

libca has no other configuration. It reads the environment once, when a context opens its first channel.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from k2eg_rx.embedded.loopback import HOST, free_ports
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_RETRY_SECONDS = 0.02  # a reply takes about 1 ms once the port is bound
_ATTEMPTS = 50  # in all one second
_REGISTER, _CONFIRM = 24, 17  # CAPROTO: REPEATER_REGISTER, REPEATER_CONFIRM

_repeater_lock = threading.Lock()
_repeater_port: list[int] = []  # the port of this process's repeater, once it runs


def _answers(port: int) -> bool:
    """Whether a repeater accepts registrations on the port within a second."""
    registration = struct.pack(">HHHHI4s", _REGISTER, 0, 0, 0, 0, socket.inet_aton(HOST))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((HOST, 0))  # not connected, because the confirmation comes from another port
        client.settimeout(_RETRY_SECONDS)
        for _ in range(_ATTEMPTS):
            client.sendto(registration, (HOST, port))
            try:
                return client.recv(16)[:2] == struct.pack(">H", _CONFIRM)
            except TimeoutError:
                continue
    return False


def _run_repeater() -> int:
    """Runs a CA repeater on a thread and a port of this process, once per process; returns the port.

    Without a repeater libca would start one: the program ``caRepeater``, which outlives the process, or a thread on the
    site's standard port.
    """
    with _repeater_lock:
        if not _repeater_port:
            from epicscorelibs import path as library_path  # noqa: PLC0415 - an extra

            paths: Any = library_path
            library = ctypes.CDLL(str(paths.get_lib("ca")))
            (port,) = free_ports(1)
            with changed_environment({"EPICS_CA_REPEATER_PORT": str(port)}):
                # The function never returns and releases the GIL; the daemon thread ends with the process.
                threading.Thread(
                    target=library.caRepeaterThread, args=(None,), name="k2eg-ca-repeater", daemon=True
                ).start()
                if not _answers(port):
                    _log.warning("CA repeater does not reply: port=%d", port)
            _repeater_port.append(port)
        return _repeater_port[0]


@contextmanager
def changed_environment(variables: Mapping[str, str]) -> Generator[None]:
    """Sets variables of the process environment and restores the previous values on exit."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def channel_access(variables: Mapping[str, str]) -> Generator[None]:
    """Makes libca use these variables; exit when the first channel is connected.

    Args:
        variables: The EPICS_CA_* variables of a client.
    """
    ca_variables = {name: value for name, value in variables.items() if name.startswith("EPICS_CA_")}
    with changed_environment(ca_variables | {"EPICS_CA_REPEATER_PORT": str(_run_repeater())}):
        yield
