"""Encodes a gateway's messages: replies, monitor events and the parts of a recurring snapshot.

Bodies are JSON or MessagePack, with the deployed gateway's order of fields; structures may contain numpy arrays and
scalars. A structure is encoded once, into a *fragment*, which each message that carries the structure includes. JSON
has strings for what it cannot express: ``NaN``, ``Infinity`` and ``-Infinity``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import PROTOCOL_HEADER, REPEATED_HEADER, SERIALIZATION_HEADER
from k2eg_rx.protocol.epochs import EPOCH_HEADER
from k2eg_rx.protocol.messages import SnapshotHeader, SnapshotTail
from k2eg_rx.protocol.msgpack_codec import Packer
from k2eg_rx.protocol.records import Headers
from k2eg_rx.protocol.structures import Structure

# Kafka keys of replies that do not concern a single PV, in the deployed gateway's spelling
PARSE_ERROR_KEY = "comand-parse-error-reply"
MONITOR_KEY = "monitor-error-key"
SNAPSHOT_KEY = "snapshot-dist-key"
RECURRING_KEY = "repeating-snapshot-events"
STATUS_KEY = "gateway-status"  # only our gateway has such replies
START_KEY = b"k2eg-gateway-start"  # of a gateway's start, which only our gateway publishes

_HEADER, _DATA, _TAIL = 0, 1, 2  # message_type
_MILLISECOND = 1_000_000  # in nanoseconds
_CACHED_NAMES = 65_536  # more PVs than one gateway serves
_FIXMAP = 0x80  # MessagePack: the first byte of a map of up to 15 entries contains its length

Fields = Mapping[str, Any]


class Serialization(Enum):
    """The serialization of a message's body; the value is that of the Kafka header."""

    JSON = "Json"
    MSGPACK = "Msgpack"

    __hash__ = object.__hash__  # members are unique; Enum's runs Python code for each record

    @classmethod
    def named(cls, name: object) -> Serialization:
        """Returns the serialization that a command requests: JSON for `json` in any case, otherwise MessagePack."""
        return cls.JSON if isinstance(name, str) and name.lower() == "json" else cls.MSGPACK

    @property
    def headers(self) -> Headers:
        """The headers of a record."""
        return ((SERIALIZATION_HEADER, self.value),)

    def headers_of_epoch(self, epoch: str) -> Headers:
        """Returns the headers of a record of a gateway with an epoch, see `epochs`; it has none if it is empty."""
        return (*self.headers, (EPOCH_HEADER, epoch)) if epoch else self.headers

    def event_headers(self, protocol: str, *, repeated: bool = False, epoch: str = "") -> Headers:
        """Returns the headers of a PV's event over a protocol, perhaps of one that was published before."""
        headers = (*self.headers_of_epoch(epoch), (PROTOCOL_HEADER, protocol))
        return (*headers, (REPEATED_HEADER, "1")) if repeated else headers


def _native(value: Any) -> object:
    """Converts numpy arrays and scalars for an encoder."""
    try:
        return value.tolist()
    except AttributeError:
        raise TypeError(f"a structure must not contain a {type(value).__name__}") from None


_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_native)


def _encodable(value: Any, *, finite: bool) -> Any:
    """Returns a value with replacements for what the encoders refuse.

    Strings that are not Unicode (EPICS strings are bytes without a declared encoding) get a `?` for each invalid part.

    Args:
        value: A structure, or part of one.
        finite: Whether NaN and the infinities become strings.
    """
    if isinstance(value, float):
        return value if not finite or math.isfinite(value) else _NOT_FINITE.get(float(value), "NaN")
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _encodable(item, finite=finite) for name, item in fields.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item, finite=finite) for item in cast("list[Any]", value)]
    return _encodable(_native(value), finite=finite)


def _json(value: object) -> bytes:
    try:
        return _ENCODER.encode(value).encode()
    except ValueError:  # not finite, or not Unicode: rare, so the check is left to the encoder, which is in C
        return _ENCODER.encode(_encodable(value, finite=True)).encode()


_PACKER = Packer(_native)


def _msgpack(value: object) -> bytes:
    try:
        return _PACKER.pack(value)
    except UnicodeEncodeError:
        return _PACKER.pack(_encodable(value, finite=False))


def _encode(serialization: Serialization, value: object) -> bytes:
    return _json(value) if serialization is Serialization.JSON else _msgpack(value)


def encode_structure(serialization: Serialization, structure: Structure) -> bytes:
    """Returns a structure as a fragment of a message.

    Raises:
        WireError: The structure contains an object that cannot be encoded.
    """
    try:
        return _encode(serialization, structure)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError("undecodable", f"a structure cannot be encoded: {error}") from error


@lru_cache(_CACHED_NAMES)
def _packed_name(name: str) -> bytes:
    return _msgpack(name)


def _around(serialization: Serialization, before: Fields, name: str, fragment: bytes, after: Fields) -> bytes:
    """Returns a map of the fields before, the fragment under its name, and the fields after."""
    if serialization is Serialization.MSGPACK:
        length = bytes([_FIXMAP | (len(before) + 1 + len(after))])
        return b"".join((length, _msgpack(before)[1:], _packed_name(name), fragment, _msgpack(after)[1:]))
    parts = [_json(before)[1:-1], _json(name) + b":" + fragment, _json(after)[1:-1]]
    return b"{" + b",".join(part for part in parts if part) + b"}"


def with_fields(serialization: Serialization, body: bytes, fields: Fields) -> bytes:
    """Returns a message, which is a map of at most 15 entries with the added ones, with fields added at its end."""
    if serialization is Serialization.MSGPACK:
        return b"".join((bytes([body[0] + len(fields)]), body[1:], _msgpack(fields)[1:]))
    return b"".join((body[:-1], b",", _json(fields)[1:]))


def encode_event(serialization: Serialization, pv_name: str, fragment: bytes) -> bytes:
    """Returns a monitor event."""
    return _around(serialization, {}, pv_name, fragment, {})


def encode_value(
    serialization: Serialization, reply_id: str, pv_name: str, fragment: bytes, types: Fields | None = None
) -> bytes:
    """Returns a reply with a PV's value: that of a get, or one of a one-shot snapshot.

    Args:
        serialization: The serialization.
        reply_id: The command's reply id.
        pv_name: The key of the value: the name as requested, without the protocol.
        fragment: The encoded structure.
        types: The PV's types, if they were requested.
    """
    after: Fields = {} if types is None else {"pv_type": types}
    return _around(serialization, {"error": 0, "reply_id": reply_id}, pv_name, fragment, after)


def encode_reply(
    serialization: Serialization,
    reply_id: str,
    error: int,
    message: str | None = None,
    topic: str | None = None,
    *,
    completed: bool = False,
    uri_keys: Sequence[str] | None = None,
    gateway_topic: str = "",
    further: Fields | None = None,
) -> bytes:
    """Returns a reply without a PV's value.

    Args:
        serialization: The serialization.
        reply_id: The command's reply id.
        error: 0 for success, negative for a failure, 1 for the end of a one-shot snapshot.
        message: The text; None where the protocol has none.
        topic: The topic of a recurring snapshot that was started.
        completed: Whether it is about a put whose record has completed, which only our gateway says.
        uri_keys: The PVs whose events have the URI as their key; only our gateway says that.
        gateway_topic: The topic of the starts of gateways; only our gateway has one.
        further: Fields of this reply only.
    """
    body: dict[str, Any] = {"error": error, "reply_id": reply_id}
    if message is not None:
        body["message"] = message
    if topic is not None:
        body["publishing_topic"] = topic
    if completed:
        body["completed"] = True
    if uri_keys is not None:
        body["uri_keys"] = list(uri_keys)
    if gateway_topic:
        body["gateway_topic"] = gateway_topic
    body |= further or {}
    return _encode(serialization, body)


def encode_start(gateway: str, version: str, time_ms: int) -> bytes:
    """Returns the body of a gateway's start: JSON.

    Args:
        gateway: A name of the process, for people.
        version: The gateway's version.
        time_ms: The start in Unix milliseconds.
    """
    return _json({"gateway": gateway, "epoch": time_ms, "version": version})


def encode_header(serialization: Serialization, header: SnapshotHeader) -> bytes:
    """Returns the header of an iteration."""
    name, timestamp, index = header.snapshot_name, header.timestamp // _MILLISECOND, header.iter_index
    tags: Fields = {"tags": dict(header.tags)} if header.tags else {}
    if serialization is Serialization.JSON:
        return _json(
            {"message_type": _HEADER, "iter_index": index, "snapshot_name": name, "timestamp": timestamp, **tags},
        )
    fields = {"message_type": _HEADER, "snapshot_name": name, "timestamp": timestamp, "iter_index": index, **tags}
    return _msgpack(fields)


def encode_data(serialization: Serialization, timestamp: int, iter_index: int, pv_name: str, fragment: bytes) -> bytes:
    """Returns one PV's sample in an iteration; `timestamp` is in nanoseconds, on the wire in milliseconds."""
    timestamp //= _MILLISECOND
    if serialization is Serialization.MSGPACK:
        return b"".join((_data_start(timestamp, iter_index), _packed_name(pv_name), fragment))
    before = {"message_type": _DATA, "iter_index": iter_index, "timestamp": timestamp}
    return _around(serialization, before, pv_name, fragment, {})


@lru_cache(16)  # the samples of one push are encoded one after the other
def _data_start(timestamp_ms: int, iter_index: int) -> bytes:
    """Returns what the samples of one push begin with: a map of four entries without the last one."""
    before = _msgpack({"message_type": _DATA, "timestamp": timestamp_ms, "iter_index": iter_index})
    return bytes([_FIXMAP | 4]) + before[1:]


def encode_tail(serialization: Serialization, tail: SnapshotTail) -> bytes:
    """Returns the tail of an iteration. JSON always has an `error_message`, MessagePack only if it is not empty."""
    body: dict[str, Any] = {"message_type": _TAIL, "error": tail.error}
    if serialization is Serialization.JSON or tail.error_message:
        body["error_message"] = tail.error_message
    timestamp = tail.timestamp // _MILLISECOND
    body |= {"iter_index": tail.iter_index, "timestamp": timestamp, "snapshot_name": tail.snapshot_name}
    return _encode(serialization, body)
