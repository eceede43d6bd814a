"""The connection record of a PV: that the gateway has lost the PV, or that it is connected again.

It stands in the PV's topic, in the partition of its events. Its Kafka key is no PV's name, so that clients that route
by key ignore it, and it lacks the header of the serialization, without which the deployed clients skip a record.

Thread safety: immutable values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from k2eg_rx.protocol.keys import key_about, name_in
from k2eg_rx.protocol.records import Headers, Record

CONNECTION_HEADER = "k2eg-connection"
_KIND = b"\x00connection:"  # no PV's name begins with NUL
_KEY = "connection"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A change of a PV's connection.

    Attributes:
        name: The name of the PV's events in its topic.
        connected: Whether the PV is connected.
        since: When the gateway noticed, in nanoseconds since the Unix epoch.
    """

    name: str
    connected: bool
    since: int

    @property
    def key(self) -> bytes:
        """The Kafka key of the record."""
        return key_about(_KIND, self.name)

    @property
    def body(self) -> bytes:
        """The body of the record: JSON."""
        return json.dumps({_KEY: {"connected": self.connected, "since": self.since}}).encode()


CONNECTION_HEADERS: Headers = ((CONNECTION_HEADER, "Json"),)


def connection_event(record: Record) -> ConnectionEvent | None:
    """Returns the connection event of a record; None if it is another record, or malformed."""
    name = name_in(_KIND, record.key)
    if name is None:
        return None
    try:
        fields = json.loads(record.value or b"")[_KEY]
        return ConnectionEvent(name, bool(fields["connected"]), int(fields["since"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
