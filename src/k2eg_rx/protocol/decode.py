"""Decodes the body of a Kafka record to a map; any violation of the protocol is a `WireError`."""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.epochs import EPOCH_HEADER
from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS, Head, quick_heads, quick_unpack, unpack

if TYPE_CHECKING:
    from k2eg_rx.protocol.records import Headers, Record

SERIALIZATION_HEADER = "k2eg-ser-type"
OTHER_PROTOCOL = "protocol"  # the kind of the error for an event of the other protocol
PROTOCOL_HEADER = "k2eg-protocol"  # of a PV's event: `pva` or `ca`; the deployed gateway does not write it
REPEATED_HEADER = "k2eg-repeated"  # of an event that was published before, for another request
# as gateways write them, by the protocol that is wanted; other spellings are accepted
_USUAL_HEADERS = {
    protocol: [
        [(SERIALIZATION_HEADER, b"Msgpack")],
        [(SERIALIZATION_HEADER, b"Msgpack"), (PROTOCOL_HEADER, protocol.encode())],
    ]
    for protocol in ("pva", "ca", "")
}


def _serialization(headers: Headers) -> str:
    for name, value in headers:
        if name == SERIALIZATION_HEADER and value is not None:
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            return text.lower()
    raise WireError("header", f"no header {SERIALIZATION_HEADER!r}")


def protocol_of(headers: Headers) -> str | None:
    """Returns the protocol that an event's headers name; None if they name none."""
    for name, value in headers:
        if name == PROTOCOL_HEADER and value is not None:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None


def has_usual_headers(headers: Headers, protocol: str) -> bool:
    """Returns whether headers are those of nearly every event: of MessagePack, over a protocol, perhaps of an epoch."""
    usual = _USUAL_HEADERS[protocol]
    if headers in usual:
        return True
    return len(headers) > 1 and headers[1][0] == EPOCH_HEADER and [headers[0], *headers[2:]] in usual


def decode_head(record: Record, name: str, protocol: str, *, is_usual: bool = False) -> Head | None:
    """Returns the value, alarm and time of a PV's event, decoded without the rest of its structure.

    None where that is not possible: `decode_body` then decodes the event, or raises the error. An event that is decoded
    here is decodable as a whole, except for keys that Python cannot hash and malformed extension types.

    Args:
        record: The event.
        name: The PV's name, under which the event has its structure.
        protocol: The PV's protocol.
        is_usual: Whether it is known that the event has usual headers.
    """
    value = record.value
    if quick_heads is None or value is None:
        return None
    if not is_usual and not has_usual_headers(record.headers, protocol):
        return None
    try:
        return quick_heads(value).get(name)
    except Exception:
        return None


def decode_body(record: Record, protocol: str = "") -> dict[str, Any]:
    """Returns a record's body as a map.

    Args:
        record: The record.
        protocol: The protocol of the PV, of whose events this should be one; empty for other records.

    Raises:
        WireError: The header is missing, the serialization unknown, the body is undecodable or not a map, or the event
            came over the other protocol.
    """
    headers, value = record.headers, record.value
    if len(headers) > 1 and headers[1][0] == EPOCH_HEADER:
        headers = [headers[0], *headers[2:]]
    if value is not None and headers in _USUAL_HEADERS[protocol]:  # the fast path, for nearly every event
        try:
            decoded = quick_unpack(value)
        except Exception:  # decoded again below, which raises the right error
            decoded = None
        if isinstance(decoded, dict):
            return cast("dict[str, Any]", decoded)
    if protocol and protocol_of(headers) not in (None, protocol):
        raise WireError(OTHER_PROTOCOL, f"an event over another protocol than {protocol}")
    serialization = _serialization(headers)
    if value is None:
        raise WireError("undecodable", "no body")
    try:
        if serialization == "msgpack":
            body = unpack(value)
        elif serialization == "json":
            body = cast("object", json.loads(value.decode("utf-8", "replace")))
        else:
            raise WireError("serialization", f"{reprlib.repr(serialization)} is neither json nor msgpack")
    except UNPACK_ERRORS as error:
        raise WireError("undecodable", f"{serialization}: {error or type(error).__name__}") from error
    if not isinstance(body, dict):
        raise WireError("shape", f"a {type(body).__name__} where a map is expected")
    return cast("dict[str, Any]", body)


def require(body: dict[str, Any], key: str, kind: type) -> Any:
    """Returns a field of a message.

    Raises:
        WireError: The field is missing or of another type.
    """
    value = body.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        # reprlib: the value may be megabytes long, or nested too deeply for repr
        raise WireError("shape", f"{key!r} is {reprlib.repr(value)}, not a {kind.__name__}")
    return value
