"""Decodes replies and the messages of recurring snapshots from records."""

from __future__ import annotations

import reprlib
from typing import Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import decode_body, require
from k2eg_rx.protocol.messages import Reply, SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.records import Record

_HEADER, _DATA, _TAIL = 0, 1, 2  # message_type
_DATA_FIELDS = frozenset({"message_type", "timestamp", "iter_index"})


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


def _sample(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for name, structure in body.items():
        if name not in _DATA_FIELDS and isinstance(structure, dict):
            return name, cast("dict[str, Any]", structure)
    raise WireError("shape", f"snapshot data without a PV: {reprlib.repr(list(body))}")


def decode_snapshot_message(record: Record) -> SnapshotMessage:
    """Returns the snapshot message (header, data or tail of an iteration) in a record.

    Raises:
        WireError: The record is not a snapshot message.
    """
    body = decode_body(record)
    kind: int = require(body, "message_type", int)
    timestamp: int = require(body, "timestamp", int)
    iter_index: int = require(body, "iter_index", int)
    if kind == _DATA:
        name, structure = _sample(body)
        return SnapshotData(timestamp, iter_index, name, structure)
    snapshot_name: str = require(body, "snapshot_name", str)
    if kind == _HEADER:
        return SnapshotHeader(snapshot_name, timestamp, iter_index)
    if kind == _TAIL:
        error = require(body, "error", int)
        return SnapshotTail(snapshot_name, timestamp, iter_index, error, str(body.get("error_message") or ""))
    raise WireError("shape", f"message_type {kind}")
