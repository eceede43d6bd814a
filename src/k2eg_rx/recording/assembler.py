"""Restores `PVUpdate`, `PVData` and `Snapshot` from the rows of a recording, which may be damaged or crafted.

Thread safety: an `Assembler` belongs to one reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

from k2eg_rx.protocol import PVData, ReplayedUpdate, Samples, Snapshot, Structure
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.recording.rows import Kind, Recordable, Row
from k2eg_rx.recording.value_codec import unpack_exactly
from k2eg_rx.texts import shown
from k2eg_rx.transport import Record

_PACKED_BYTES = 64 * 1024 * 1024  # of a value; unpacked, it may take a hundred times as much
_SNAPSHOT_BYTES = 256 * 1024 * 1024  # of the values of one snapshot
_HEAD: dict[str, type] = {  # fields of a snapshot's body and their types
    "name": str,
    "samples": list,
    "timestamp": int,
    "iteration": int,
    "header_timestamp": int,
    "tail_timestamp": int,
    "error": int,
    "error_message": str,
}
# absent from recordings of version 0.1, whose times are in milliseconds
_LATER_HEAD: dict[str, type] = {"missing": int, "tags": dict}
_MILLISECOND = 1_000_000  # in nanoseconds


class Assembler:
    """Restores items from rows, in their order."""

    def __init__(self) -> None:
        self._snapshot: dict[str, Any] | None = None  # the snapshot whose samples follow
        self._samples: list[tuple[str, Structure]] = []
        self._missing = 0
        self._bytes = 0

    def feed(self, row: Row) -> tuple[int, Recordable] | None:
        """Adds the next row. Returns publication time and item if it completes one.

        Raises:
            Exception: ValueError or one of `UNPACK_ERRORS`: the row is damaged.
        """
        published = _required(row, "published")
        if row.kind != Kind.SAMPLE:
            self.end()
        match row.kind:
            case Kind.UPDATE:
                return published, _restored_update(row)
            case Kind.VALUE:
                return published, PVData(_required(row, "pv"), _structure(row))
            case Kind.SNAPSHOT:
                self._snapshot = _head(row)
                self._samples = []
                self._missing = sum(count for _, count in self._snapshot["samples"])
                self._bytes = 0
            case Kind.SAMPLE:
                if self._snapshot is None:
                    raise ValueError("row is a sample without a snapshot before it")
                self._bytes += len(row.body or b"")
                if self._bytes > _SNAPSHOT_BYTES:
                    raise ValueError(f"a snapshot has more than {_SNAPSHOT_BYTES:,} bytes of samples")
                self._samples.append((_required(row, "pv"), _structure(row)))
                self._missing -= 1
            case _:
                raise ValueError(f"row has the unknown kind {shown(row.kind)}")
        if self._missing:
            return None
        head, self._snapshot = self._snapshot, None
        return published, _restored_snapshot(head, iter(self._samples))

    def end(self) -> None:
        """Checks, at the end of the rows, that none is missing.

        Raises:
            ValueError: Samples of the last snapshot are missing.
        """
        if self._snapshot is not None:
            raise ValueError(f"{self._missing} samples of a snapshot are missing")


def _restored_update(row: Row) -> ReplayedUpdate:
    base, _, field = _required(row, "pv").partition(".")
    protocol = _required(row, "protocol")
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol must be one of {', '.join(get_args(Protocol))}, got {shown(protocol)}")
    record = Record(
        _required(row, "topic"),
        _required(row, "partition"),
        _required(row, "offset"),
        row.key,
        row.body,
        _headers(row),
        _required(row, "kafka_timestamp_ms"),
    )
    return ReplayedUpdate(PVAddress(cast("Protocol", protocol), base, field), record)


def _headers(row: Row) -> Any:
    unpacked = _unpacked(row, "headers")
    match unpacked:
        case [bool() as as_tuple, [*pairs]] if all(map(_is_header, cast("list[object]", pairs))):
            headers = [(name, value) for name, value in cast("list[tuple[str, bytes | None]]", pairs)]
            return tuple(headers) if as_tuple else headers
        case _:
            raise ValueError("headers must be a flag and a list of names and values")


def _is_header(pair: object) -> bool:
    match pair:
        case [str(), None | str() | bytes()]:
            return True
        case _:
            return False


def _head(row: Row) -> dict[str, Any]:
    """Returns a snapshot's fields without its data, and the names of its PVs with their numbers of samples."""
    head = _structure(row)
    if head.keys() - _LATER_HEAD.keys() != _HEAD.keys():
        raise ValueError(f"a snapshot must have the fields {', '.join(_HEAD)}")
    for name, kinds in (_HEAD | _LATER_HEAD).items():
        if name not in head:
            continue
        if isinstance(head[name], bool) or not isinstance(head[name], kinds):
            raise ValueError(f"{name} of a snapshot is of the wrong type {type(head[name]).__name__}")
    for pair in cast("list[object]", head["samples"]):
        match pair:
            case [str(), int(count)] if count >= 0 and not isinstance(count, bool):
                pass
            case _:
                raise ValueError("samples of a snapshot must be pairs of a PV and a number of at least 0")
    tags = cast("dict[object, object]", head.get("tags", {}))
    if not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise ValueError("tags of a snapshot must be texts")
    if _LATER_HEAD.keys().isdisjoint(head):
        for name in ("timestamp", "header_timestamp", "tail_timestamp"):
            head[name] *= _MILLISECOND
    return head


def _restored_snapshot(head: dict[str, Any], samples: Iterator[tuple[str, Structure]]) -> Snapshot:
    data: dict[str, Samples] = {}
    for pv, count in cast("list[tuple[str, int]]", head.pop("samples")):
        taken = [next(samples) for _ in range(count)]
        if any(name != pv for name, _ in taken):
            raise ValueError("samples of a snapshot are not of the PV that it names")
        data[pv] = Samples(structure for _, structure in taken)
    return Snapshot(data=data, **head)


def _required(row: Row, name: str) -> Any:
    value = getattr(row, name)
    if value is None:
        raise ValueError(f"row has no {name}")
    return value


def _unpacked(row: Row, name: str) -> Any:
    packed = _required(row, name)
    if len(packed) > _PACKED_BYTES:
        raise ValueError(f"{name} of a row has {len(packed):,} bytes, more than {_PACKED_BYTES:,}")
    return unpack_exactly(packed)


def _structure(row: Row) -> dict[str, Any]:
    value = _unpacked(row, "body")
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in cast("dict[object, object]", value)):
        raise ValueError("body of a row must be a map with names as keys")
    return cast("dict[str, Any]", value)
