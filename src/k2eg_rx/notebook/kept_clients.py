"""Clients that live across cells: one for each application's name.

Thread safety: the table of clients belongs to `_lock`; clients are closed without it.
"""

from __future__ import annotations

import threading

from k2eg_rx.client import DEFAULT_SILENCE, DEFAULT_TIMEOUT, Client
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Transport

_lock = threading.Lock()
_clients: dict[str, Client] = {}  # by the application's name


def connect(
    environment_id: str,
    app_name: str,
    *,
    group_name: object = None,
    settings: Settings | None = None,
    transport: Transport | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    silence: float = DEFAULT_SILENCE,
    snapshot_wait: float | None = None,
) -> Client:
    """Returns a new client; closes the one that was made here before for the same `app_name`.

    A cell that calls it may be run any number of times: the process has one client of that name. Views of the former
    client end. If the new one cannot be made, such as for a misspelt environment, the former one stays open.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application, and the name under which the client is kept.
        group_name: As of `k2eg_rx.Client`.
        settings: As of `k2eg_rx.Client`.
        transport: As of `k2eg_rx.Client`.
        timeout: As of `k2eg_rx.Client`.
        silence: As of `k2eg_rx.Client`.
        snapshot_wait: As of `k2eg_rx.Client`.

    Raises:
        ValueError: The environment does not exist or is invalid, or another argument is.

    Example:
        >>> from k2eg_rx import notebook
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway:
        ...     _ = gateway.pv("my:x", 1.5)
        ...     former = notebook.connect("demo", "my-notebook")
        ...     client = notebook.connect("demo", "my-notebook")  # the cell was run once more
        ...     print(client.get("pva://my:x").value)
        ...     client.close()
        1.5
    """
    client = Client(
        environment_id,
        app_name,
        group_name=group_name,
        settings=settings,
        transport=transport,
        timeout=timeout,
        silence=silence,
        snapshot_wait=snapshot_wait,
    )
    with _lock:
        former = _clients.get(app_name)
        _clients[app_name] = client
    if former is not None:
        former.close()
    return client
