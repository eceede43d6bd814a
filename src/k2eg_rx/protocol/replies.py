"""Decodes replies and the messages of recurring snapshots from records."""

from __future__ import annotations

import re
import reprlib
from typing import Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import decode_body, require
from k2eg_rx.protocol.messages import Reply, SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.records import Record

_HEADER, _DATA, _TAIL = 0, 1, 2  # message_type
_DATA_FIELDS = frozenset(
    {
        "message_type",
        "timestamp",
        "iter_index",
        "msg_seq",
        "submission_seq",
        "last_submission_data",
        "message-size",
    }
)
_MILLISECOND = 1_000_000  # in nanoseconds
# Of a gateway of this package, in the message of a negative reply to a get.
_SILENT_PV = "the PV does not answer (the gateway waited {} s)"
_SILENT = re.compile(re.escape(_SILENT_PV).replace(r"\{\}", "([0-9.e+-]+)"))
# As milliseconds the year 33658, as nanoseconds 12 days after the epoch: newer gateways write nanoseconds.
_LEAST_NANOSECONDS = 10**15


def decode_reply(record: Record) -> Reply:
    """Returns the reply in a record.

    Raises:
        WireError: The record is not a reply.
    """
    body = decode_body(record)
    message = body.get("message")
    return Reply(
        reply_id=require(body, "reply_id", str),
        error=require(body, "error", int),
        message=message if isinstance(message, str) else "",
        body=body,
    )


def silent_pv_text(seconds: float) -> str:
    """Returns why a get failed whose PV has not answered for so many seconds."""
    return _SILENT_PV.format(f"{seconds:g}")


def silent_pv_seconds(message: str) -> float | None:
    """Returns for how many seconds a gateway has waited for a PV in vain, from its reply's message; None if it has not.

    Gateways that do not know the client's time for a get do not say so.
    """
    found = _SILENT.search(message)
    return float(found[1]) if found else None


def _sample(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for name, structure in body.items():
        if name not in _DATA_FIELDS and isinstance(structure, dict):
            return name, cast("dict[str, Any]", structure)
    raise WireError("shape", f"snapshot data without a PV: {reprlib.repr(list(body))}")


def _publication_time(time: int) -> int:
    """Returns a publication time in nanoseconds, given in milliseconds or nanoseconds since the Unix epoch."""
    return time if time >= _LEAST_NANOSECONDS else time * _MILLISECOND


def _number(body: dict[str, Any], key: str) -> int | None:
    """Returns a sequence number, or None for a gateway that has none."""
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _tags(body: dict[str, Any]) -> dict[str, str]:
    tags = body.get("tags")
    if not isinstance(tags, dict):
        return {}
    pairs = cast("dict[object, object]", tags).items()
    return {name: value for name, value in pairs if isinstance(name, str) and isinstance(value, str)}


def decode_snapshot_message(record: Record) -> SnapshotMessage:
    """Returns the snapshot message (header, data or tail of an iteration) in a record.

    Raises:
        WireError: The record is not a snapshot message.
    """
    body = decode_body(record)
    kind: int = require(body, "message_type", int)
    timestamp = _publication_time(require(body, "timestamp", int))
    iter_index: int = require(body, "iter_index", int)
    msg_seq, submission_seq = _number(body, "msg_seq"), _number(body, "submission_seq")
    if kind == _DATA:
        name, structure = _sample(body)
        is_last = body.get("last_submission_data") is True
        return SnapshotData(timestamp, iter_index, name, structure, msg_seq, submission_seq, is_last)
    snapshot_name: str = require(body, "snapshot_name", str)
    if kind == _HEADER:
        return SnapshotHeader(snapshot_name, timestamp, iter_index, _tags(body), msg_seq, submission_seq)
    if kind == _TAIL:
        error, text = require(body, "error", int), str(body.get("error_message") or "")
        total = _number(body, "total_messages")
        numbers = (msg_seq, total, submission_seq, _number(body, "missing_messages") or 0)
        return SnapshotTail(snapshot_name, timestamp, iter_index, error, text, *numbers)
    raise WireError("shape", f"message_type {kind}")
