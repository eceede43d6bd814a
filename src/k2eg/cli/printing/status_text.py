"""The state of a client in one line, for live views."""

from __future__ import annotations

from k2eg_rx import ConnectionState, Status
from k2eg_rx.texts import printable


def status_text(status: Status) -> str:
    """Returns what a view says about the client: what is wrong, updates that wait, those that are lost."""
    parts: list[str] = []
    if status.connection is not ConnectionState.UP or status.reason:
        parts.append(printable(status.reason) or f"Kafka: {status.connection.name.lower()}")
    if status.silent_since is not None:
        parts.append("no gateway answers")
    if status.disconnected:
        parts.append(f"{len(status.disconnected)} not connected")
    parts.append(f"lag {status.lag}")
    lost = status.dropped + sum(status.lost.values()) + status.discarded
    parts.append(f"dropped {lost}")
    return ", ".join(parts)
