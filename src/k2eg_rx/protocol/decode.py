"""Decodes the body of a Kafka record to a map; any violation of the protocol is a `WireError`."""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS, quick_unpack, unpack

if TYPE_CHECKING:
    from k2eg_rx.protocol.records import Headers, Record

SERIALIZATION_HEADER = "k2eg-ser-type"
_USUAL_HEADERS = [(SERIALIZATION_HEADER, b"Msgpack")]  # as gateways write it; other spellings are accepted


def _serialization(headers: Headers) -> str:
    for name, value in headers:
        if name == SERIALIZATION_HEADER and value is not None:
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            return text.lower()
    raise WireError("header", f"no header {SERIALIZATION_HEADER!r}")


def decode_body(record: Record) -> dict[str, Any]:
    """Returns a record's body as a map.

    Raises:
        WireError: The header is missing, the serialization unknown, or the body is undecodable or not a map.
    """
    headers, value = record.headers, record.value
    if value is not None and headers == _USUAL_HEADERS:  # the fast path, for nearly every event
        try:
            decoded = quick_unpack(value)
        except Exception:  # decoded again below, which raises the right error
            decoded = None
        if isinstance(decoded, dict):
            return cast("dict[str, Any]", decoded)
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
