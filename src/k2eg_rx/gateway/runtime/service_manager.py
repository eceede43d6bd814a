"""Notifies a service manager such as systemd (`Type=notify`) of a gateway's start, end and health.

The manager names a datagram socket in NOTIFY_SOCKET, and in WATCHDOG_USEC how often it wants a sign of life.

Thread safety: any thread; there is no state.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_MICROSECONDS = 1_000_000


class ServiceManager:
    """The manager of this process, if it has one.

    Args:
        variables: The environment.

    Attributes:
        watchdog_period: Seconds between calls of `alive`, half of what the manager allows; None if it wants none.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        variables = os.environ if variables is None else variables
        name = variables.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.watchdog_period: float | None = None
        limit = variables.get("WATCHDOG_USEC", "")
        is_ours = variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and is_ours and limit.isdecimal() and int(limit):
            self.watchdog_period = int(limit) / _MICROSECONDS / 2

    def starting(self, status: str) -> None:
        """Says what the start is waiting for."""
        self._notify(f"STATUS={status}")

    def ready(self, status: str) -> None:
        """Says that the gateway carries out commands."""
        self._notify(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Says that the gateway is closing."""
        self._notify("STOPPING=1")

    def alive(self) -> None:
        """Gives a sign of life."""
        self._notify("WATCHDOG=1")

    def _notify(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)  # a manager that does not read must not stop the gateway
                out.sendto(text.encode(), self._address)
        except OSError as error:
            _log.warning("service manager not notified: text=%s error=%s", text, error)
