"""The ports of this process's embedded stacks: always the same, because libca reads its address list once.

Thread safety: any thread; one stack at a time holds the ports.
"""

from __future__ import annotations

import threading

from k2eg_rx.embedded.loopback import ServerPorts

_lock = threading.Lock()
_ports: list[ServerPorts] = []  # at most one entry, chosen for the first stack
_claimed: list[ServerPorts] = []  # the same entry while a stack holds the ports


def claim_ports() -> ServerPorts:
    """Returns the ports; `release_ports` releases them.

    Raises:
        RuntimeError: Another stack holds them.
    """
    with _lock:
        if _claimed:
            raise RuntimeError(
                "an embedded stack is running in this process: only one at a time is possible over Channel Access"
            )
        if not _ports:
            _ports.append(ServerPorts.free())
        _claimed.append(_ports[0])
        return _ports[0]


def release_ports() -> None:
    """Releases the ports."""
    with _lock:
        _claimed.clear()
