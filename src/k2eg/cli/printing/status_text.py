"""The state of a client in one line, for live views."""

from __future__ import annotations

from k2eg_rx import ConnectionState, Status
from k2eg_rx.texts import printable


def status_text(status: Status) -> str:
    """Returns what a view says about the client: what is wrong, and which updates it has not.

    Those in Kafka that it has not read yet lag; newer ones have replaced those that came too fast; lost are those that
    a gateway has not published and those that cannot be decoded.
    """
    parts: list[str] = []
    if status.connection is not ConnectionState.UP or status.reason:
        parts.append(printable(status.reason) or f"Kafka: {status.connection.name.lower()}")
    if status.silent_since is not None:
        parts.append("no gateway answers")
    if status.disconnected:
        parts.append(f"{len(status.disconnected)} not connected")
    parts.append(f"lag {status.lag}")
    if status.dropped:
        parts.append(f"replaced {status.dropped}")
    if lost := sum(status.lost.values()) + status.discarded:
        parts.append(f"lost {lost}")
    return ", ".join(parts)
