"""Entries of a frame: one for each PV value of an item, without the rest of its structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from k2eg_rx.frames.item_kinds import Instant, Result, is_instant, is_result
from k2eg_rx.protocol import (
    NO_TIME,
    Column,
    ColumnBatch,
    PVData,
    Snapshot,
    Structure,
    alarm_of,
    choice_of,
    label_of,
    timestamp_of,
    units_of,
)
from k2eg_rx.protocol.value_arrays import cell
from k2eg_rx.pv import pv_name_of

_NOT_THE_VALUE = frozenset({"alarm", "timeStamp"})
_INT64 = (-(2**63), 2**63 - 1)
_NO_DATA = "no data in this snapshot"


@dataclass(frozen=True, slots=True)
class Entry:
    """A PV's value at one time, or the error in its place.

    Attributes:
        pv: Name of the PV.
        time: EPICS time in nanoseconds since the Unix epoch, or None.
        value: Value in the form of a frame, or None.
        enum_index: Index of an enum.
        severity: Alarm severity; None without a value.
        status: Alarm status; None without an alarm.
        units: Engineering units.
        snapshot: Name of the snapshot that the value belongs to.
        iteration: Iteration of the snapshot.
        error: Reason for a missing value, or the snapshot's error.
    """

    pv: str
    time: int | None = None
    value: Any = None
    enum_index: int | None = None
    severity: int | None = None
    status: int | None = None
    units: str = ""
    snapshot: str | None = None
    iteration: int | None = None
    error: str | None = None


def entry_of(pv: str, data: Structure) -> Entry:
    """Returns the entry of a PV's structure."""
    value: object = data.get("value")
    if "value" not in data:
        value = {name: field for name, field in data.items() if name not in _NOT_THE_VALUE}
    index: int | None = None
    if (choice := choice_of(data)) is not None:
        index = _int64(choice[0])
        label = label_of(data)
        value = str(choice[0]) if label is None else label
    alarm = alarm_of(data)
    status = _int64(alarm.status) if "alarm" in data else None
    return Entry(pv, timestamp_of(data), cell(value), index, int(alarm.severity), status, units_of(data))


def entries_of(item: object) -> Iterator[Entry]:
    """Returns the entries of an item: one for each value, and one for each missing value.

    Raises:
        ValueError: The item cannot be put into a frame.
    """
    if isinstance(item, PVData):
        yield entry_of(item.name, item.data)
    elif isinstance(item, Snapshot):
        yield from _samples(item)
    elif isinstance(item, ColumnBatch):
        yield from (entry for column in item.values() for entry in _events(column))
    elif is_instant(item):
        yield from (entry_of(name, update.data) for name, update in cast("Instant", item).updates.items())
    elif is_result(item):
        yield entry_of_result(cast("Result", item))
    else:
        raise ValueError(
            "items of this frame must be PVData, ColumnBatch, Snapshot, GetResult or Aligned objects, as client and "
            f"align emit them, got {type(item).__name__}"
        )


def entry_of_result(result: Result) -> Entry:
    """Returns the entry of one PV of a batch."""
    if result.data is not None:
        return entry_of(result.data.name, result.data.data)
    return Entry(pv_name_of(result.uri), error=str(result.error) or type(result.error).__name__)


def cells_of(column: Column) -> list[Any]:
    """Returns the values of a column in the form of a frame, the labels of texts and enums."""
    if column.labels is not None:
        return cast("list[Any]", column.text.tolist())
    return list(column.value) if column.value.ndim > 1 else cast("list[Any]", column.value.tolist())


def _events(column: Column) -> Iterator[Entry]:
    indices = column.value.tolist() if column.is_enum else [None] * len(column)
    fields = (column.time.tolist(), cells_of(column), indices, column.severity.tolist(), column.status.tolist())
    for time, value, index, severity, status in zip(*fields, strict=True):
        known = None if time == NO_TIME else time
        yield Entry(column.name, known, value, index, severity, status, column.last.units)


def _samples(snapshot: Snapshot) -> Iterator[Entry]:
    error = (snapshot.error_message or f"error {snapshot.error}") if snapshot.error else None
    iteration = _int64(snapshot.iteration)
    lacking = _NO_DATA if snapshot.complete else f"{_NO_DATA}, messages missing: {snapshot.missing}"
    for pv, samples in snapshot.data.items():
        for structure in samples:
            yield replace(entry_of(pv, structure), snapshot=snapshot.name, iteration=iteration, error=error)
        if not samples:
            yield Entry(pv, snapshot=snapshot.name, iteration=iteration, error=error or lacking)


def _int64(number: int) -> int | None:
    return number if _INT64[0] <= number <= _INT64[1] else None
