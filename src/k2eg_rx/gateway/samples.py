"""A PV's value on its way through the gateway, encoded once in each form it is asked for; and what goes out.

In: structures. Out: fragments, bodies, and `Outgoing` records. A sample belongs to the gateway's thread.
"""

from __future__ import annotations

from typing import NamedTuple

from k2eg_rx.wire.encode import Serialization, encode_event, encode_reply, encode_structure
from k2eg_rx.wire.parse import ReplyTo
from k2eg_rx.wire.structure import Structure


class Outgoing(NamedTuple):
    """A record for Kafka. A named tuple because one is made for each event."""

    topic: str
    key: bytes
    value: bytes
    serialization: Serialization


class Sample:
    """One value of one PV.

    Attributes:
        name: The PV's name as asked for, without the protocol.
        structure: The value. Nobody changes it.
    """

    __slots__ = ("_events", "_fragments", "name", "structure")

    def __init__(self, name: str, structure: Structure) -> None:
        self.name = name
        self.structure = structure
        self._fragments: dict[tuple[Serialization, tuple[str, ...]], bytes] = {}
        self._events: dict[Serialization, bytes] = {}

    def fragment(self, serialization: Serialization, fields: tuple[str, ...] = ()) -> bytes:
        """Returns the encoded structure.

        Args:
            serialization: The form.
            fields: The top-level fields to keep, as far as the PV has them; none given means all.

        Raises:
            WireError: It has no form on the wire.
        """
        key = (serialization, fields)
        fragment = self._fragments.get(key)
        if fragment is None:
            structure = self.structure
            if fields:
                structure = {name: value for name, value in structure.items() if name in fields}
            fragment = self._fragments[key] = encode_structure(serialization, structure)
        return fragment

    def event(self, serialization: Serialization) -> bytes:
        """Returns the body of a monitor event.

        Raises:
            WireError: It has no form on the wire.
        """
        event = self._events.get(serialization)
        if event is None:
            event = self._events[serialization] = encode_event(serialization, self.name, self.fragment(serialization))
        return event


def reply(
    reply_to: ReplyTo, key: str, error: int, message: str | None = None, publishing_topic: str | None = None
) -> Outgoing:
    """Returns a reply without a PV's value.

    Args:
        reply_to: Whom it goes to.
        key: Its Kafka key.
        error: 0 success, negative a failure, 1 the end of a one-shot snapshot.
        message: The words to it.
        publishing_topic: Where a recurring snapshot that was started publishes.
    """
    body = encode_reply(reply_to.serialization, reply_to.reply_id, error, message, publishing_topic)
    return Outgoing(reply_to.topic, key.encode(), body, reply_to.serialization)
