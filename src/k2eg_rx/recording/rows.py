"""Rows of a recording: conversion of `PVUpdate`, `PVData` and `Snapshot` to rows; see `assembler` for the way back.

An update is one row: its Kafka record, byte for byte, and columns that other programs can read. A snapshot is a row,
followed by a row for each of its samples.

Thread safety: functions may run on any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple, cast

from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import (
    PVData,
    PVUpdate,
    Snapshot,
    Structure,
    alarm_of,
    choice_of,
    label_of,
    timestamp_of,
    units_of,
)
from k2eg_rx.recording.value_codec import pack_exactly

_MILLISECOND = 1_000_000  # in nanoseconds
_INT64 = (-(2**63), 2**63 - 1)
_INT32 = (-(2**31), 2**31 - 1)


class Kind(StrEnum):
    """Kind of a row."""

    UPDATE = "update"  # a `PVUpdate`
    VALUE = "value"  # a `PVData` of a get
    SNAPSHOT = "snapshot"  # a `Snapshot` without its samples
    SAMPLE = "sample"  # one sample of the snapshot before it


class Row(NamedTuple):
    """A row of the file; its fields are the file's columns.

    Attributes:
        kind: Kind of the row; see `Kind`.
        published: Time of publication by the gateway in nanoseconds since the Unix epoch. For a record without Kafka
            timestamp, its EPICS time; for the value of a get, or an item without any time, when it was recorded.
        time: EPICS time in nanoseconds; for a snapshot, its own time.
        pv: Name of the PV.
        protocol: ``pva`` or ``ca``; for updates only.
        value: A number, or an enum's index, as a float.
        value_int: The same as an exact integer, if it is one.
        text: A string, or an enum's label.
        severity: Alarm severity, 0 to 4.
        status: Alarm status.
        units: Engineering units.
        snapshot: Name of the snapshot.
        iteration: Iteration of the snapshot.
        topic: Topic of the Kafka record; for updates only, as the next five.
        partition: Partition of the record.
        offset: Offset of the record.
        key: Key of the record.
        headers: Headers of the record: MessagePack of whether they are a tuple, and a list of names and values.
        kafka_timestamp_ms: Kafka timestamp in Unix milliseconds; -1 without one.
        body: For an update, the value of its record, unchanged; otherwise MessagePack of the structure of a value or
            sample, or of a snapshot without its samples.
    """

    kind: str
    published: int
    time: int | None = None
    pv: str | None = None
    protocol: str | None = None
    value: float | None = None
    value_int: int | None = None
    text: str | None = None
    severity: int | None = None
    status: int | None = None
    units: str | None = None
    snapshot: str | None = None
    iteration: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    key: bytes | None = None
    headers: bytes | None = None
    kafka_timestamp_ms: int | None = None
    body: bytes | None = None


# Columns from which items are restored; the others are for other programs.
ESSENTIAL = (
    "kind",
    "published",
    "pv",
    "protocol",
    "topic",
    "partition",
    "offset",
    "key",
    "headers",
    "kafka_timestamp_ms",
    "body",
)

Recordable = PVData | Snapshot


def rows_of(item: object, now: int) -> list[Row]:
    """Returns an item's rows.

    Args:
        item: A `PVUpdate`, `PVData` or `Snapshot`.
        now: Time of recording in nanoseconds since the Unix epoch.

    Raises:
        ValueError: The item is of another type, or contains a type that a file cannot hold.
    """
    try:
        match item:
            case PVUpdate():
                return [_update(item, now)]
            case PVData():
                return [_value(Kind.VALUE, item.name, item.data, now)]
            case Snapshot():
                return list(_snapshot(item, now))
            case _:
                raise ValueError(
                    f"recorded items must be PVUpdate, PVData or Snapshot, got {type(item).__name__}: "
                    "put record before operators that convert them"
                )
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"item cannot be recorded: {error}: {item!r:.200}") from error


def _update(update: PVUpdate, now: int) -> Row:
    record, address = update.record, update.address
    try:
        columns = _columns_of(update.data)
    except K2EGError:  # the record is kept; reading it raises the same error
        columns = {}
    kafka = record.timestamp_ms * _MILLISECOND if record.timestamp_ms >= 0 else None
    time = cast("int | None", columns.get("time"))
    return Row(
        Kind.UPDATE,
        next(known for known in (_within(_INT64, kafka), time, now) if known is not None),
        pv=address.name,
        protocol=address.protocol,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers=pack_exactly([isinstance(record.headers, tuple), [list(header) for header in record.headers]]),
        kafka_timestamp_ms=record.timestamp_ms,
        body=record.value,
        **columns,
    )


def _value(kind: Kind, pv: str, data: Structure, published: int) -> Row:
    return Row(kind, published, pv=pv, body=pack_exactly(data), **_columns_of(data))


def _snapshot(snapshot: Snapshot, now: int) -> Iterator[Row]:
    time = _within(_INT64, snapshot.timestamp) if snapshot.timestamp > 0 else None
    published = now if time is None else time
    iteration = _within(_INT64, snapshot.iteration)
    head = {
        "name": snapshot.name,
        "samples": [[pv, len(samples)] for pv, samples in snapshot.data.items()],
        "timestamp": snapshot.timestamp,
        "iteration": snapshot.iteration,
        "header_timestamp": snapshot.header_timestamp,
        "tail_timestamp": snapshot.tail_timestamp,
        "error": snapshot.error,
        "error_message": snapshot.error_message,
        "missing": snapshot.missing,
        "tags": dict(snapshot.tags),
    }
    name = _unicode(snapshot.name)
    yield Row(Kind.SNAPSHOT, published, time, snapshot=name, iteration=iteration, body=pack_exactly(head))
    for pv, samples in snapshot.data.items():
        for structure in samples:
            yield _value(Kind.SAMPLE, pv, structure, published)._replace(snapshot=name, iteration=iteration)


def _columns_of(data: Structure) -> dict[str, Any]:
    """Returns the columns of a structure for other programs."""
    alarm = alarm_of(data)
    columns: dict[str, Any] = {"time": _within(_INT64, timestamp_of(data)), "severity": int(alarm.severity)}
    if units := units_of(data):
        columns["units"] = _unicode(units)
    if "alarm" in data:
        columns["status"] = _within(_INT32, alarm.status)
    value = data.get("value")
    if (choice := choice_of(data)) is not None:
        value, label = choice[0], label_of(data)
        columns["text"] = None if label is None else _unicode(label)
    elif isinstance(value, str):
        columns["text"] = _unicode(value)
    if isinstance(value, int | float):
        columns["value"] = _float(value)
        columns["value_int"] = _within(_INT64, int(value)) if isinstance(value, int) else None
    return columns


def _within(bounds: tuple[int, int], number: int | None) -> int | None:
    return number if number is not None and bounds[0] <= number <= bounds[1] else None


def _float(number: float) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


def _unicode(text: str) -> str:
    """Replaces invalid Unicode, which Arrow strings cannot hold; the body keeps it."""
    return text.encode("utf-8", "replace").decode()
