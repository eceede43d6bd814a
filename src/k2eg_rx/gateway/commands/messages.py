"""A PV's value with its encoded forms, and the records that a gateway publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from k2eg_rx.gateway.commands.numbering import Place
from k2eg_rx.protocol import (
    NOTICE_HEADERS,
    Headers,
    Notice,
    ReplyTo,
    Serialization,
    Structure,
    connection_headers,
    encode_event,
    encode_reply,
    encode_structure,
)

_CACHED_HEADERS = 4096  # epochs of a gateway's partitions, each in a few forms


class OutgoingRecord(NamedTuple):
    """A record for Kafka. A named tuple, because they are cheap to create: one per event.

    Attributes:
        topic: The topic.
        key: The Kafka key.
        value: The body.
        serialization: That of the body, for the header.
        protocol: That of a PV's event, else empty.
        droppable: Whether it may be dropped for newer ones of its topic and key: an event or a snapshot's message.
        instead: Called if it cannot be published, with the reason and the number of such records. Returns a small
            record to publish in its place, if any.
        repeated: Whether it is an event that was published before.
        about: The PV, where the key does not name it.
        place: That of a recurring snapshot's message in its iteration; it numbers the message.
        epoch: The gateway's epoch for a PV's event or a snapshot's message, which it may publish only as long as it is
            in the session of its fleet; empty without a fleet.
    """

    topic: str
    key: bytes
    value: bytes
    serialization: Serialization
    protocol: str = ""
    droppable: bool = False
    instead: Callable[[str, int], OutgoingRecord | None] | None = None
    repeated: bool = False
    about: str = ""
    place: Place | None = None
    epoch: str = ""

    @property
    def headers(self) -> Headers:
        """The record's headers."""
        return _headers(self.serialization, self.protocol, self.repeated, self.epoch)


class ConnectionRecord(OutgoingRecord):
    """A record that tells the state of a PV's connection."""

    @property
    def headers(self) -> Headers:
        """The record's headers; without that of the serialization, so that deployed clients skip it."""
        return connection_headers(self.epoch)


class NoticeRecord(OutgoingRecord):
    """A record that tells of updates of a monitored PV that were not published."""

    @property
    def headers(self) -> Headers:
        """The record's headers; without that of the serialization, so that deployed clients skip it."""
        return NOTICE_HEADERS


@lru_cache(_CACHED_HEADERS)
def _headers(serialization: Serialization, protocol: str, repeated: bool, epoch: str) -> Headers:
    if not protocol:
        return serialization.headers_of_epoch(epoch)
    return serialization.event_headers(protocol, repeated=repeated, epoch=epoch)


_PLACEHOLDER = b"\x00fragment"  # cannot occur in JSON text, and stands at the end of a MessagePack event
_CACHED_NAMES = 65_536  # more PVs than one gateway serves


@lru_cache(_CACHED_NAMES)
def _event_frame(serialization: Serialization, name: str) -> tuple[bytes, bytes]:
    """Returns the bytes before and after the structure in a PV's monitor events; they never change."""
    before, _, after = encode_event(serialization, name, _PLACEHOLDER).rpartition(_PLACEHOLDER)
    return before, after


class PVValue:
    """One value of one PV; encodes it once per form.

    Thread safety: belongs to the event loop thread.

    Attributes:
        name: The PV name as requested, without the protocol.
        structure: The value; never modified.
        key: Its key in replies and snapshots, see `PVAddress.key`; by default the name.
    """

    __slots__ = ("_fragments", "key", "name", "structure")

    def __init__(self, name: str, structure: Structure, key: str = "") -> None:
        self.name = name
        self.key = key or name
        self.structure = structure
        self._fragments: dict[tuple[Serialization, tuple[str, ...]], bytes] | None = (
            None  # most values are encoded only once
        )

    def fragment(self, serialization: Serialization, fields: tuple[str, ...] = ()) -> bytes:
        """Returns the encoded structure.

        Args:
            serialization: JSON or MessagePack.
            fields: The top-level fields to keep; missing ones are skipped. Empty means all.

        Raises:
            WireError: The value cannot be serialized.
        """
        if self._fragments is None:
            self._fragments = {}
        key = (serialization, fields)
        fragment = self._fragments.get(key)
        if fragment is None:
            structure = self.structure
            if fields:
                structure = {name: value for name, value in structure.items() if name in fields}
            fragment = self._fragments[key] = encode_structure(serialization, structure)
        return fragment

    def event(self, serialization: Serialization, name: str = "") -> bytes:
        """Returns the body of a monitor event.

        Args:
            serialization: JSON or MessagePack.
            name: The name under which the structure stands, if not the PV's.

        Raises:
            WireError: The value cannot be serialized.
        """
        before, after = _event_frame(serialization, name or self.name)
        return before + self.fragment(serialization) + after


def value_record(reply_to: ReplyTo, key: str, pv_name: str, body: bytes) -> OutgoingRecord:
    """Returns the record of a reply with a PV's value. If the value is too large, a negative reply takes its place.

    Args:
        reply_to: Topic, id and serialization of the reply.
        key: The Kafka key.
        pv_name: The PV, for the text of the negative reply.
        body: The encoded reply.
    """

    def too_large(reason: str, _number: int) -> OutgoingRecord:
        return reply(reply_to, key, -2, f"{pv_name}: {reason}")

    form = reply_to.serialization
    return OutgoingRecord(reply_to.topic, key.encode(), body, form, instead=too_large, about=pv_name)


def notice(topic: str, pv_name: str, reason: str, number: int) -> OutgoingRecord:
    """Returns the record that tells clients of updates of a monitored PV that were not published."""
    about = Notice(pv_name, number, reason)
    return NoticeRecord(topic, about.key, about.body, Serialization.JSON, droppable=True)


def reply(
    reply_to: ReplyTo,
    key: str,
    error: int,
    message: str | None = None,
    publishing_topic: str | None = None,
    *,
    completed: bool = False,
    uri_keys: Sequence[str] | None = None,
    gateway_topic: str = "",
    further: Mapping[str, Any] | None = None,
) -> OutgoingRecord:
    """Returns a reply without a PV value.

    Args:
        reply_to: Topic, id and serialization of the reply.
        key: The Kafka key.
        error: 0 for success, negative for a failure, 1 for the end of a one-shot snapshot.
        message: The explanation.
        publishing_topic: The topic of a recurring snapshot that was started.
        completed: Whether it is about a put whose record has completed.
        uri_keys: The PVs that are published under their URIs, for a client that accepts them.
        gateway_topic: The topic of the starts of gateways.
        further: Fields of this reply only.
    """
    body = encode_reply(
        reply_to.serialization,
        reply_to.reply_id,
        error,
        message,
        publishing_topic,
        completed=completed,
        uri_keys=uri_keys,
        gateway_topic=gateway_topic,
        further=further,
    )
    return OutgoingRecord(reply_to.topic, key.encode(), body, reply_to.serialization)
