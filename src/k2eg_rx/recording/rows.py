"""A recording's rows: what an update, a value or a snapshot is in a file, and back.

In: `PVUpdate`, `PVData`, `Snapshot`. Out: `Row`s, and the same items out of them. Pure; any thread; an `Assembler`
belongs to one reader.

An update is one row: its Kafka record as it came, byte for byte, and beside it what other programs can use without
knowing the wire. A snapshot is a row of its own, followed by one for each of its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple, cast

from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import (
    PVData,
    PVUpdate,
    ReplayedUpdate,
    Samples,
    Snapshot,
    Structure,
    choice_of,
    label_of,
    severity_of,
    timestamp_of,
)
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.recording.value_codec import pack_exactly, unpack_exactly
from k2eg_rx.transport import Record

_MILLISECOND = 1_000_000  # in nanoseconds
_INT64 = (-(2**63), 2**63 - 1)
_INT32 = (-(2**31), 2**31 - 1)


class Kind(StrEnum):
    """What a row is."""

    UPDATE = "update"  # a `PVUpdate`
    VALUE = "value"  # a `PVData`, of a get
    SNAPSHOT = "snapshot"  # the begin of a `Snapshot`: all but its samples
    SAMPLE = "sample"  # one sample of the snapshot before it


class Row(NamedTuple):
    """A row of the file; its fields are the file's columns.

    Attributes:
        kind: What it is; see `Kind`.
        published: Nanoseconds since the Unix epoch: when the gateway published it. Of what came without Kafka's time
            stamp, its EPICS time; of what has neither, and of the answers to gets, when it was recorded.
        time: EPICS time in nanoseconds; of a snapshot, its own time.
        pv: The PV's name.
        protocol: ``pva`` or ``ca``; of updates only.
        value: A number, or an enum's index, as a float.
        value_int: The same where it is an integer, exactly.
        text: A string, or an enum's label.
        severity: The alarm's severity, 0 to 4.
        status: The alarm's status.
        snapshot: The snapshot's name.
        iteration: The snapshot's iteration.
        topic: The topic of the Kafka record; of updates only, as are the next five.
        partition: Its partition.
        offset: Its offset.
        key: Its key.
        headers: Its headers: MessagePack of whether they are a tuple, and a list of name and value.
        kafka_timestamp_ms: Kafka's own time stamp in Unix milliseconds; -1 if there is none.
        body: An update's record's value as it came; else MessagePack: the structure of a value or a sample; all but the
            samples of a snapshot.
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
    snapshot: str | None = None
    iteration: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    key: bytes | None = None
    headers: bytes | None = None
    kafka_timestamp_ms: int | None = None
    body: bytes | None = None


# The columns that an item is made of again; the others are for other programs.
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
        now: When it is recorded, nanoseconds since the Unix epoch.

    Raises:
        ValueError: It is something else, or holds what has no form in a file.
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
                    f"a {type(item).__name__} cannot be recorded, only PVUpdate, PVData and Snapshot; "
                    "record before they are turned into something else"
                )
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{item!r:.200} cannot be recorded: {error}") from error


def _update(update: PVUpdate, now: int) -> Row:
    record, address = update.record, update.address
    try:
        about = _about(update.data)
    except K2EGError:  # the record is kept even so; who reads it gets the same error
        about = {}
    kafka = record.timestamp_ms * _MILLISECOND if record.timestamp_ms >= 0 else None
    time = cast("int | None", about.get("time"))
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
        **about,
    )


def _value(kind: Kind, pv: str, data: Structure, published: int) -> Row:
    return Row(kind, published, pv=pv, body=pack_exactly(data), **_about(data))


def _snapshot(snapshot: Snapshot, now: int) -> Iterator[Row]:
    time = _within(_INT64, snapshot.timestamp * _MILLISECOND) if snapshot.timestamp > 0 else None
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
    }
    name = _unicode(snapshot.name)
    yield Row(Kind.SNAPSHOT, published, time, snapshot=name, iteration=iteration, body=pack_exactly(head))
    for pv, samples in snapshot.data.items():
        for structure in samples:
            yield _value(Kind.SAMPLE, pv, structure, published)._replace(snapshot=name, iteration=iteration)


def _about(data: Structure) -> dict[str, Any]:
    """Returns what other programs can use of a structure, by column."""
    about: dict[str, Any] = {"time": _within(_INT64, timestamp_of(data)), "severity": int(severity_of(data))}
    match data.get("alarm"):
        case {"status": int(status)}:
            about["status"] = _within(_INT32, status)
        case _:
            pass
    value = data.get("value")
    if (choice := choice_of(data)) is not None:
        value, label = choice[0], label_of(data)
        about["text"] = None if label is None else _unicode(label)
    elif isinstance(value, str):
        about["text"] = _unicode(value)
    if isinstance(value, int | float):
        about["value"] = _float(value)
        about["value_int"] = _within(_INT64, int(value)) if isinstance(value, int) else None
    return about


def _within(bounds: tuple[int, int], number: int | None) -> int | None:
    return number if number is not None and bounds[0] <= number <= bounds[1] else None


def _float(number: float) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


def _unicode(text: str) -> str:
    """Files hold Unicode only: what is none is replaced here, and kept in the body."""
    return text.encode("utf-8", "replace").decode()


class Assembler:
    """Makes items out of rows, in their order."""

    def __init__(self) -> None:
        self._snapshot: dict[str, Any] | None = None  # the head of the snapshot whose samples are coming
        self._samples: list[tuple[str, Structure]] = []
        self._missing = 0

    def feed(self, row: Row) -> tuple[int, Recordable] | None:
        """Takes the next row in. Returns the item it completes, if it does, and when that was published.

        Raises:
            Exception: The row is damaged: ValueError, or one of `UNPACK_ERRORS`.
        """
        match row.kind:
            case Kind.UPDATE:
                return row.published, _restored_update(row)
            case Kind.VALUE:
                return row.published, PVData(_text(row.pv), unpack_exactly(_bytes(row.body)))
            case Kind.SNAPSHOT:
                self._snapshot = cast("dict[str, Any]", unpack_exactly(_bytes(row.body)))
                self._samples = []
                self._missing = sum(count for _, count in self._snapshot["samples"])
            case Kind.SAMPLE:
                if self._snapshot is None:
                    raise ValueError("a sample without its snapshot")
                self._samples.append((_text(row.pv), unpack_exactly(_bytes(row.body))))
                self._missing -= 1
            case _:
                raise ValueError(f"a row of the unknown kind {row.kind!r}")
        if self._missing:
            return None
        head, self._snapshot = self._snapshot, None
        return row.published, _restored_snapshot(head, iter(self._samples))


def _restored_update(row: Row) -> ReplayedUpdate:
    base, _, field = _text(row.pv).partition(".")
    as_tuple, pairs = unpack_exactly(_bytes(row.headers))
    headers = [(name, value) for name, value in pairs]
    record = Record(
        _text(row.topic),
        cast("int", row.partition),
        cast("int", row.offset),
        row.key,
        row.body,
        tuple(headers) if as_tuple else headers,
        cast("int", row.kafka_timestamp_ms),
    )
    return ReplayedUpdate(PVAddress(cast("Protocol", row.protocol), base, field), record)


def _restored_snapshot(head: dict[str, Any], samples: Iterator[tuple[str, Structure]]) -> Snapshot:
    counts: Iterable[tuple[str, int]] = head.pop("samples")
    data = {pv: Samples(next(samples)[1] for _ in range(count)) for pv, count in counts}
    return Snapshot(data=data, **head)


def _text(text: str | None) -> str:
    if text is None:
        raise ValueError("a name is missing")
    return text


def _bytes(body: bytes | None) -> bytes:
    if body is None:
        raise ValueError("a body is missing")
    return body
