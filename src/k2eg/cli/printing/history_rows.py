"""Writes the rows of a history: a row for each update, or for each time of a grid.

Thread safety: one thread at a time.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.formatting import format_value, jsonable, local_time, utc_time
from k2eg.cli.printing.history_grid import GridRow, HistoryGrid
from k2eg.cli.printing.history_summary import time_of
from k2eg_rx import PVData, PVUpdate

Write = Callable[[str], object]


class Rows:
    """Writes nothing; the base of what writes rows."""

    def add(self, update: PVUpdate) -> None:
        """Takes an update."""

    def end(self, stop: int) -> None:
        """Writes what is left, up to a time."""


class ValueRows(Rows):
    """Writes a row for each update, or for the newest ones."""

    def __init__(self, form: Callable[[PVUpdate], str], write: Write, newest: int | None = None) -> None:
        self._form = form
        self._write = write
        self._held: deque[PVUpdate] | None = None if newest is None else deque(maxlen=newest)
        self._count = 0

    def add(self, update: PVUpdate) -> None:
        """Takes an update."""
        self._count += 1
        if self._held is None:
            self._write(self._form(update))
        else:
            self._held.append(update)

    def end(self, stop: int) -> None:  # noqa: ARG002 - of the base
        """Writes the newest updates."""
        held = self._held or ()
        if self._held is not None and self._count > len(held):
            self._write(f"... {self._count - len(held)} earlier values: --all, --every or --csv prints them")
        for update in held:
            self._write(self._form(update))


class GridRows(Rows):
    """Writes a row for each time of a grid, with a column for each PV."""

    _WIDTH = 12  # of a column, at least: a number with sign, precision and exponent

    def __init__(self, grid: HistoryGrid, names: Sequence[str], write: Write, form: str) -> None:
        self._grid = grid
        self._names = names
        self._write = write
        self._form = form
        self._widths = [26, *(max(self._WIDTH, len(name)) for name in names)]
        if form == "csv":
            write(csv_line(["time", *names]))
        elif form == "text":
            write(self._line(["time", *names]))

    def add(self, update: PVUpdate) -> None:
        """Takes an update."""
        self._write_rows(self._grid.add(update, time_of(update)))

    def end(self, stop: int) -> None:
        """Writes the last rows."""
        self._write_rows(self._grid.end(stop))

    def _write_rows(self, rows: Iterable[GridRow]) -> None:
        for time, values in rows:
            ordered = [values[name] for name in self._names]
            if self._form == "json":
                found = {name: _plain(data) for name, data in values.items()}
                self._write(json.dumps({"time": utc_time(time), "timestamp_ns": time, "values": found}))
            elif self._form == "csv":
                self._write(csv_line([utc_time(time), *(_cell(_plain(data)) for data in ordered)]))
            else:
                texts = ("" if data is None else format_value(data) for data in ordered)
                self._write(self._line([local_time(time), *texts]))

    def _line(self, cells: Sequence[str]) -> str:
        (line,) = aligned([cells], range(1, len(cells)), self._widths)
        return line


VALUE_COLUMNS = ("time", "pv", "value", "units", "severity", "message")


def value_cells(data: PVData) -> list[object]:
    """Returns a PV's cells under `VALUE_COLUMNS`."""
    return [
        utc_time(data.timestamp),
        data.name,
        _cell(_plain(data)),
        data.units,
        data.severity.name,
        data.alarm.message,
    ]


def _plain(data: PVData | None) -> object:
    """Returns a value as JSON holds it, an enum as its label."""
    if data is None:
        return None
    return jsonable(data.value) if data.label is None else data.label


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def csv_line(cells: Iterable[object]) -> str:
    """Returns a line of comma-separated values."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
