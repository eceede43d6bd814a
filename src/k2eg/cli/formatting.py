"""Formats PV values, snapshots and replies: as readable lines, or as JSON objects for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from k2eg_rx import ConnectionEvent, PVData, PVState, Severity, Snapshot, texts
from k2eg_rx.protocol import columns_of, format_number

_NANOSECONDS = 1_000_000_000
_SHOWN_ELEMENTS = 8  # of an array: about 60 characters, the rest of a line after name and time
_TIME_WIDTH = 26  # of a time with microseconds
_SHOWN_ROWS = 20  # of a table, on a terminal of 24 lines


def printable(text: str) -> str:
    """Returns a text with control characters escaped, in full, so that a PV cannot control the terminal."""
    return texts.printable(text, None)


def _element(value: object, precision: int | None = None) -> str:
    if isinstance(value, bool | int | float):
        return format_number(value, precision)
    if isinstance(value, str):
        return printable(value)
    return json.dumps(jsonable(value))


def _row_count(columns: Mapping[str, Sequence[Any]]) -> int:
    return max((len(column) for column in columns.values()), default=0)


def format_value(data: PVData) -> str:
    """Returns a PV's value in one line; long arrays and tables are abbreviated."""
    if data.label is not None:
        return f"{printable(data.label)} ({int(data)})"
    precision = data.precision
    match data.value:
        case [*elements]:
            shown = ", ".join(_element(element, precision) for element in elements[:_SHOWN_ELEMENTS])
            count = len(elements)
            return f"[{shown}]" if count <= _SHOWN_ELEMENTS else f"[{shown}, ...] ({count} values)"
        case None:
            return json.dumps(jsonable(data.data))
        case value if columns := columns_of(data.data):
            count = _row_count(columns)
            return f"{count} {'row' if count == 1 else 'rows'} of {', '.join(map(printable, columns))}"
        case value:
            return _element(value, precision)


def format_exactly(data: PVData) -> str:
    """Returns a PV's value with all its digits, for errors; an enum as label and index."""
    return format_value(data) if data.label is not None else texts.shown(data.value)


def table_lines(columns: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yields the lines of a table with aligned columns."""
    cells = [
        [printable(label), *(_element(element) for element in column[:_SHOWN_ROWS])]
        for label, column in columns.items()
    ]
    height = max(map(len, cells), default=0)
    widths = [max(map(len, column)) for column in cells]
    for row in range(height):
        texts = (column[row] if row < len(column) else "" for column in cells)
        yield "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
    left_out = _row_count(columns) - _SHOWN_ROWS
    if left_out > 0:
        yield f"... {left_out} more rows"


def structure_lines(structure: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Yields the lines of a whole structure, one per field."""
    for name, value in structure.items():
        label = f"{' ' * indent}{printable(str(name))}:"
        if isinstance(value, Mapping):
            yield label
            yield from structure_lines(cast("Mapping[str, Any]", value), indent + 2)
        elif isinstance(value, str):
            yield f"{label} {printable(value)}".rstrip()
        else:
            yield f"{label} {json.dumps(jsonable(value))}"


def local_time(timestamp: int | None) -> str:
    """Returns nanoseconds since the Unix epoch as local time with microseconds; ``<undefined>`` for None.

    A time that no calendar has, as of a server whose clock is wrong, is given in seconds: ``1000000000000.000000 s``.
    """
    if timestamp is None:
        return "<undefined>".ljust(_TIME_WIDTH)
    seconds, nanoseconds = divmod(timestamp, _NANOSECONDS)
    try:
        moment = f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds}.{nanoseconds // 1000:06d} s".ljust(_TIME_WIDTH)
    return f"{moment}.{nanoseconds // 1000:06d}"


def utc_time(timestamp: int | None) -> str | None:
    """Returns nanoseconds since the Unix epoch in ISO 8601, UTC; None for a time that no calendar has."""
    if timestamp is None:
        return None
    seconds, nanoseconds = divmod(timestamp, _NANOSECONDS)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
    except (ValueError, OverflowError, OSError):
        return None


def format_alarm(data: PVData) -> str:
    """Returns the alarm's severity and message; an empty text if there is no alarm."""
    alarm = data.alarm
    if alarm.severity is Severity.NO_ALARM:
        return ""
    return f"{alarm.severity.name} ({printable(alarm.message)})" if alarm.message else alarm.severity.name


def jsonable(value: object) -> object:
    """Returns a value that JSON can represent: NaN, Infinity and -Infinity become strings."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Mapping():
            return {str(name): jsonable(part) for name, part in cast("Mapping[object, object]", value).items()}
        case list() | tuple():
            return [jsonable(part) for part in cast("Sequence[object]", value)]
        case bytes():
            return value.decode("utf-8", "replace")
        case _:
            return value


def pv_object(data: PVData, *, full: bool = False) -> dict[str, object]:
    """Returns a PV as a JSON object that always has the same keys.

    Args:
        data: The PV.
        full: Whether to add the whole structure as ``data``.
    """
    timestamp = data.timestamp
    return {
        "name": data.name,
        "value": jsonable(data.value) if data.label is None else data.label,
        **({} if data.label is None else {"index": int(data)}),
        "units": data.units,
        "severity": data.severity.name,
        "timestamp": utc_time(timestamp),
        "timestamp_ns": timestamp,
        **({"data": jsonable(data.data)} if full else {}),
    }


@dataclass(frozen=True, slots=True)
class Formatter:
    """Formats results for one command.

    Attributes:
        json: Whether to print JSON objects, one per line.
        full: Whether to include the PV's whole structure.
        name_width: Width of the column of names.
        terse: Whether to print values only.
    """

    json: bool = False
    full: bool = False
    name_width: int = 0
    terse: bool = False

    def pv(self, data: PVData) -> str:
        """Returns the line, or lines, for a PV's value."""
        if self.json:
            return json.dumps(pv_object(data, full=self.full))
        if self.terse:
            return format_value(data)
        parts = [
            printable(data.name).ljust(self.name_width),
            local_time(data.timestamp),
            f"{format_value(data)} {printable(data.units)}".rstrip(),
            format_alarm(data),
        ]
        lines = ["  ".join(part for part in parts if part)]
        columns = columns_of(data.data)
        if self.full:
            lines += structure_lines(data.data, indent=2)
        elif columns:
            lines += (f"  {line}" for line in table_lines(columns))
        return "\n".join(lines)

    def connection(self, event: ConnectionEvent) -> str:
        """Returns the line for a PV that is not connected."""
        name, time = printable(event.name).ljust(self.name_width), local_time(event.since)
        state = "disconnected" if event.state is PVState.DISCONNECTED else "not connected"
        return f"{name}  {time}  *** {state}: {printable(event.reason)}".rstrip(": ")

    def change(self, uri: str, before: PVData | None, after: PVData, *, is_completed: bool = False) -> str:
        """Returns the line for a PV that was written: the old and the new value."""
        if self.json:
            old = {} if before is None else {"old": pv_object(before)["value"]}
            completed = {"completed": True} if is_completed else {}
            return json.dumps({"uri": uri} | old | pv_object(after, full=self.full) | completed)
        if self.terse or before is None:
            return self.pv(after)
        parts = [
            printable(after.name).ljust(self.name_width),
            f"{format_value(before)} -> {format_value(after)} {printable(after.units)}".rstrip(),
            format_alarm(after),
        ]
        return "  ".join(part for part in parts if part)

    def intention(self, uri: str, before: PVData | None, value: str) -> str:
        """Returns the line for a PV that would be written."""
        old = "" if before is None else format_value(before)
        if self.json:
            return json.dumps(
                {"uri": uri, "old": None if before is None else pv_object(before)["value"], "dry_run": value}
            )
        return f"{printable(uri)}  {old} -> {printable(value)}  (not written)"

    def snapshot(self, snapshot: Snapshot) -> str:
        """Returns the lines for a snapshot: a line per sample, after a headline if the snapshot is recurring."""
        if self.json:
            samples = {
                pv: [pv_object(PVData(pv, sample), full=self.full) for sample in found]
                for pv, found in snapshot.data.items()
            }
            # a one-shot snapshot has neither iteration number nor time
            head = {"iteration": snapshot.iteration or None, "timestamp_ms": snapshot.timestamp // 1_000_000 or None}
            head |= {} if snapshot.complete else {"missing": snapshot.missing}
            return json.dumps({"snapshot": snapshot.name} | head | {"pvs": samples})
        lines: list[str] = []
        for pv, found in snapshot.data.items():
            lines += (line for sample in found for line in self.pv(PVData(pv, sample)).split("\n"))
            if not found:
                lines.append(f"{printable(pv).ljust(self.name_width)}  no value")
        if snapshot.iteration:
            head = f"{printable(snapshot.name)} {snapshot.iteration}  {local_time(snapshot.timestamp)}"
            head += "" if snapshot.complete else f"  incomplete, messages missing: {snapshot.missing}"
            lines = [head, *(f"  {line}" for line in lines)]
        return "\n".join(lines)
