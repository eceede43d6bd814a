"""Formats PV values, snapshots and replies: as readable lines, or as JSON objects for scripts."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from k2eg.cli.printing.fitted_line import fitted_line
from k2eg.cli.printing.value_style import IN_LINE, ValueStyle, block_lines, image_text, in_block, picked
from k2eg_rx import ConnectionEvent, PVData, PVState, Severity, Snapshot, texts
from k2eg_rx.protocol import columns_of

_NANOSECONDS = 1_000_000_000
_PLAIN = ValueStyle()
_TIME_WIDTH = 26  # of a time with microseconds
_SHOWN_ROWS = 20  # of a table, on a terminal of 24 lines
_CSV_COLUMNS = ("name", "time", "value", "units", "severity", "message")


def printable(text: str) -> str:
    """Returns a text with control characters escaped, in full, so that a PV cannot control the terminal."""
    return texts.printable(text, None)


def _element(value: object, precision: int | None = None, style: ValueStyle = _PLAIN) -> str:
    if isinstance(value, bool | int | float):
        return style.number(value, precision)
    if isinstance(value, str):
        return printable(value)
    return json.dumps(jsonable(value))


def _row_count(columns: Mapping[str, Sequence[Any]]) -> int:
    return max((len(column) for column in columns.values()), default=0)


def format_value(data: PVData, style: ValueStyle = _PLAIN) -> str:
    """Returns a PV's value in one line; long arrays and tables are abbreviated."""
    if data.label is not None:
        label, index = printable(data.label), str(int(data))
        return {"both": f"{label} ({index})", "label": label, "index": index}[style.enums]
    if style.enums == "index" and data.choices is not None:
        return str(int(data))
    precision = data.precision
    match data.value:
        case [*elements]:
            if (text := style.text_of(elements)) is not None:
                return printable(text)
            count = len(elements)
            there = style.shown(count, IN_LINE)
            shown = ", ".join(_element(element, precision, style) for element in elements[:there])
            return f"[{shown}]" if there == count else f"[{shown}, ...] ({count} values)"
        case bytes(raw) if (text := style.text_of(raw)) is not None:
            return printable(text)
        case None:
            return json.dumps(jsonable(data.data))
        case value if columns := columns_of(data.data):
            count = _row_count(columns)
            return f"{count} {'row' if count == 1 else 'rows'} of {', '.join(map(printable, columns))}"
        case value:
            return image_text(data.data) or _element(value, precision, style)


def value_lines(data: PVData, style: ValueStyle = _PLAIN) -> tuple[str, list[str]]:
    """Returns a PV's value as a text for its line, and the lines of a long array below it."""
    elements: object = data.value
    if not isinstance(elements, list):
        return format_value(data, style), []
    parts = cast("list[object]", elements)
    count = in_block(style, len(parts))
    if not count or style.text_of(parts) is not None:
        return format_value(data, style), []
    shown = [_element(element, data.precision, style) for element in parts[:count]]
    return f"{len(parts)} values", list(block_lines(shown, len(parts)))


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


def _no_terminal() -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Formatter:
    """Formats results for one command.

    Attributes:
        json: Whether to print JSON objects, one per line.
        full: Whether to include the PV's whole structure.
        name_width: Width of the column of names.
        terse: Whether to print values only.
        wide: Whether to print severity, status and message of every value.
        csv: Whether to print lines of comma-separated values.
        blocks: Whether long arrays take several lines.
        separator: Stands between fields and elements, which are not aligned then; None for columns.
        fields: Paths of the fields to print instead of the value; empty for the value.
        style: How values are written.
        time_text: Returns the text of a value's time; None for EPICS time.
        columns: Width of the terminal; None without one.
    """

    json: bool = False
    full: bool = False
    name_width: int = 0
    terse: bool = False
    wide: bool = False
    csv: bool = False
    blocks: bool = False
    fields: tuple[str, ...] = ()
    separator: str | None = None
    style: ValueStyle = _PLAIN
    time_text: Callable[[PVData], str] | None = None
    columns: Callable[[], int | None] = _no_terminal

    @property
    def is_separated(self) -> bool:
        """Whether lines have the separator, which the user gave, and otherwise no control character."""
        return self.separator is not None and not (self.json or self.csv or self.fields)

    def pv(self, data: PVData) -> str:
        """Returns the line, or lines, for a PV's value."""
        if self.json:
            chosen = (
                {"fields": {path: jsonable(picked(data.data, path)) for path in self.fields}} if self.fields else {}
            )
            return json.dumps(pv_object(data, full=self.full) | chosen)
        if self.csv:
            return "\n".join(self._csv_lines(data))
        if self.separator is not None and self.is_separated:
            return self.separator.join(map(printable, self._separate(data)))
        if self.terse and not self.fields:
            return self._terse(data)
        value, block = value_lines(data, self.style) if self.blocks else (format_value(data, self.style), [])
        if self.fields:
            value, block = "", list(structure_lines({path: picked(data.data, path) for path in self.fields}))
        value = f"{value} {printable(data.units)}".rstrip() if value else ""
        parts = (printable(data.name), self._time(data), value, self.alarm(data))
        lines = [fitted_line(*parts, name_width=self.name_width, width=self.columns())]
        if self.full:
            lines += structure_lines(data.data, indent=2)
        elif not self.fields and (columns := columns_of(data.data)):
            block = list(table_lines(columns))
        return "\n".join(lines + [f"  {line}" for line in block])

    def alarm(self, data: PVData) -> str:
        """Returns the text for a PV's alarm; empty for no alarm, unless lines are wide."""
        if not self.wide:
            return format_alarm(data)
        alarm = data.alarm
        return f"{alarm.severity.name} {alarm.status} {printable(alarm.message)}".rstrip()

    def head(self) -> str:
        """Returns the line above all values; empty if there is none."""
        return ",".join(_CSV_COLUMNS) if self.csv else ""

    def _time(self, data: PVData) -> str:
        return local_time(data.timestamp) if self.time_text is None else self.time_text(data)

    def _separate(self, data: PVData) -> list[str]:
        """Returns what a line with a separator has: each element of an array for itself, nothing that is empty."""
        values = self._elements(data)
        if self.terse:
            return values
        parts = [data.name, self._time(data).strip(), *values, data.units, self.alarm(data)]
        return [part for part in parts if part]

    def _terse(self, data: PVData) -> str:
        return " ".join(self._elements(data)) if self.blocks else format_value(data, self.style)

    def _elements(self, data: PVData) -> list[str]:
        elements: object = data.value
        if not isinstance(elements, list):
            return [format_value(data, self.style)]
        parts = cast("list[object]", elements)
        if (text := self.style.text_of(parts)) is not None:
            return [printable(text)]
        count = self.style.shown(len(parts), len(parts))
        return [_element(element, data.precision, self.style) for element in parts[:count]]

    def _csv_lines(self, data: PVData) -> list[str]:
        import csv  # noqa: PLC0415 - for this form only

        value = jsonable(data.value) if data.label is None else data.label
        cell = value if isinstance(value, str | int | float) else json.dumps(value)
        alarm = data.alarm
        row = [data.name, utc_time(data.timestamp) or "", cell, data.units, alarm.severity.name, alarm.message]
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(
            [printable(part) if isinstance(part, str) else part for part in row]
        )
        return [text.getvalue()]

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
