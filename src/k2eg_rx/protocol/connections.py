"""Connection events: that a gateway has a PV's connection, has lost it, or never had it; and their records.

The record stands in the PV's topic, in the partition of its events. Its Kafka key is no PV's name, so that clients that
route by key ignore it, and it lacks the header of the serialization, without which the deployed clients skip a record.

Thread safety: immutable values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import cast

from k2eg_rx.protocol.epochs import EPOCH_HEADER
from k2eg_rx.protocol.keys import key_about, name_in
from k2eg_rx.protocol.records import Headers, Record
from k2eg_rx.protocol.structures import datetime_of
from k2eg_rx.pv import Protocol

_HEADER = "k2eg-connection"
_KIND = b"\x00connection:"  # no PV's name begins with NUL
_KEY = "connection"
_TEXTS = "uri", "host", "reason"


class PVState(StrEnum):
    """The state of a PV's connection to its EPICS server, as the gateway knows it.

    Attributes:
        CONNECTED: The PV has a value.
        DISCONNECTED: It had one; the connection was lost, and the last value may be old.
        NEVER_CONNECTED: It has had none within some seconds of the gateway's first search for it.
    """

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    NEVER_CONNECTED = "never_connected"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The state of a PV's connection, or a change of it.

    Attributes:
        name: The PV's name as requested, without the protocol.
        uri: The PV.
        state: The state.
        since: When the gateway noticed it, in integer nanoseconds since the Unix epoch; for a PV that was never
            connected, since when the gateway searches for it.
        host: The EPICS server, ``host:port``, of the current connection or the last one; empty where it is not known,
            as over PVAccess, whose library does not tell it.
        reason: Why the PV is not connected; empty for a connected one.
    """

    name: str
    uri: str
    state: PVState
    since: int
    host: str = ""
    reason: str = ""

    @property
    def is_connected(self) -> bool:
        """Whether the PV is connected."""
        return self.state is PVState.CONNECTED

    @property
    def protocol(self) -> Protocol:
        """The PV's protocol."""
        return cast("Protocol", self.uri.partition("://")[0])

    @property
    def time(self) -> datetime:
        """`since` as a datetime in UTC, cut to microseconds."""
        return cast("datetime", datetime_of(self.since))


_HEADERS: Headers = ((_HEADER, "Json"),)


def connection_headers(epoch: str = "") -> Headers:
    """Returns the headers of a connection record of a gateway with an epoch, see `epochs`."""
    return (*_HEADERS, (EPOCH_HEADER, epoch)) if epoch else _HEADERS


def connection_key(name: str) -> bytes:
    """Returns the Kafka key of a connection record.

    Args:
        name: The name of the PV's events in its topic.
    """
    return key_about(_KIND, name)


def connection_body(event: ConnectionEvent) -> bytes:
    """Returns the body of a connection record: JSON."""
    fields = {"state": event.state, "since": event.since, "uri": event.uri, "host": event.host, "reason": event.reason}
    return json.dumps({_KEY: fields}).encode()


def connection_event(record: Record) -> ConnectionEvent | None:
    """Returns the event of a connection record; None if it is another record, or malformed.

    Its name is that of the PV's events in the topic.
    """
    name = name_in(_KIND, record.key)
    if name is None:
        return None
    try:
        fields = json.loads(record.value or b"")[_KEY]
        uri, host, reason = (str(fields.get(key, "")) for key in _TEXTS)
        event = ConnectionEvent(name, uri, PVState(fields["state"]), int(fields["since"]), host, reason)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return event if datetime_of(event.since) is not None else None
