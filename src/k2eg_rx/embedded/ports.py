"""The ports of this process's embedded stacks: always the same, because libca takes one list of addresses for good.

In: nothing. Out: ports, for one stack at a time. Any thread.
"""

from __future__ import annotations

import threading

from k2eg_rx.embedded.loopback import ServerPorts

_lock = threading.Lock()
_ports: list[ServerPorts] = []  # one, once they are chosen
_claimed: list[ServerPorts] = []  # the same, while a stack has them


def claim_ports() -> ServerPorts:
    """Returns the ports. Give them back with `release_ports`.

    Raises:
        RuntimeError: Another stack has them.
    """
    with _lock:
        if _claimed:
            raise RuntimeError(
                "an embedded stack runs in this process: one at a time, for Channel Access knows only one"
            )
        if not _ports:
            _ports.append(ServerPorts.free())
        _claimed.append(_ports[0])
        return _ports[0]


def release_ports() -> None:
    """Gives the ports back."""
    with _lock:
        _claimed.clear()
