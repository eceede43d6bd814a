"""A PV's value on its way through the gateway, encoded once in each form it is asked for; and what goes out.

In: structures. Out: fragments, bodies, and `OutgoingRecord` records. A sample belongs to the gateway's thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from k2eg_rx.protocol import ReplyTo, Serialization, Structure, encode_event, encode_reply, encode_structure


class OutgoingRecord(NamedTuple):
    """A record for Kafka. A named tuple because one is made for each event."""

    topic: str
    key: bytes
    value: bytes
    serialization: Serialization


_MARK = b"\x00fragment"  # in no JSON text, and at the end of MessagePack
_NAMES = 65_536  # PVs whose names are kept encoded: more than a gateway has


@lru_cache(_NAMES)
def _frame(serialization: Serialization, name: str) -> tuple[bytes, bytes]:
    """What stands before and behind the structure in a monitor event; the same in each event of a PV."""
    before, _, after = encode_event(serialization, name, _MARK).rpartition(_MARK)
    return before, after


class PVValue:
    """One value of one PV.

    Attributes:
        name: The PV's name as asked for, without the protocol.
        structure: The value. Nobody changes it.
    """

    __slots__ = ("_fragments", "name", "structure")

    def __init__(self, name: str, structure: Structure) -> None:
        self.name = name
        self.structure = structure
        self._fragments: dict[tuple[str, tuple[str, ...]], bytes] | None = None  # most samples are encoded once

    def fragment(self, serialization: Serialization, fields: tuple[str, ...] = ()) -> bytes:
        """Returns the encoded structure.

        Args:
            serialization: The form.
            fields: The top-level fields to keep, as far as the PV has them; none given means all.

        Raises:
            WireError: It has no form on the wire.
        """
        if self._fragments is None:
            self._fragments = {}
        key = (serialization.value, fields)  # by its name: an enum's member is hashed in Python
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
        before, after = _frame(serialization, self.name)
        return before + self.fragment(serialization) + after


def reply(
    reply_to: ReplyTo, key: str, error: int, message: str | None = None, publishing_topic: str | None = None
) -> OutgoingRecord:
    """Returns a reply without a PV's value.

    Args:
        reply_to: Whom it goes to.
        key: Its Kafka key.
        error: 0 success, negative a failure, 1 the end of a one-shot snapshot.
        message: The words to it.
        publishing_topic: Where a recurring snapshot that was started publishes.
    """
    body = encode_reply(reply_to.serialization, reply_to.reply_id, error, message, publishing_topic)
    return OutgoingRecord(reply_to.topic, key.encode(), body, reply_to.serialization)
