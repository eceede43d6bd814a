"""pandas DataFrames from items.

Thread safety: none; a collector belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from k2eg_rx.frames.entries import Entry, cells_of, entries_of, entry_of
from k2eg_rx.frames.item_kinds import TimeWindow, Transition, is_instant, is_transition, is_window
from k2eg_rx.frames.wide_rows import Instants
from k2eg_rx.protocol import Column, ColumnBatch, Severity
from k2eg_rx.protocol.value_arrays import array_of, objects, times, with_gaps

_SEVERITIES = pd.CategoricalDtype([severity.name for severity in Severity], ordered=True)
_PULSE_ID = "pulse_id"
# pandas types that keep integers and booleans where values are missing
_NULLABLE: Mapping[str, Any] = {"i": "Int64", "u": "UInt64", "b": "boolean"}


class Frame:
    """Collects items for a DataFrame.

    Args:
        form: ``long`` or ``wide``; None chooses by the first item, as it chooses the table of windows or transitions.
    """

    def __init__(self, form: str | None) -> None:
        self._form = form
        self._entries: list[Entry] = []
        self._instants = Instants()
        self._derived: list[Any] = []

    def add(self, item: object) -> None:
        """Adds an item.

        Raises:
            ValueError: The item cannot be put into a frame.
        """
        if self._form is None or (self._form == "long" and not self._entries and isinstance(item, ColumnBatch)):
            self._form = _form_of(item)
        if self._form == "wide":
            self._instants.add(item)
        elif self._form == "long":
            self._entries.extend(entries_of(item))
        elif self._form == _form_of(item):
            self._derived.append(item)
        else:
            raise ValueError(f"items of a frame of {self._form} must all be such, got {type(item).__name__}")

    def result(self) -> pd.DataFrame:
        """Returns the DataFrame."""
        match self._form:
            case "wide":
                return _wide(self._instants)
            case "windows":
                return _windows(self._derived)
            case "transitions":
                return _transitions(self._derived)
            case "columns":
                return _of_columns([column for batch in self._derived for column in batch.values()])
            case _:
                return _long(self._entries)


def _form_of(item: object) -> str:
    if is_window(item):
        return "windows"
    if is_transition(item):
        return "transitions"
    if isinstance(item, ColumnBatch):
        return "columns"
    return "wide" if is_instant(item) else "long"


def _windows(windows: Sequence[TimeWindow]) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "start": _times([each.start for each in windows]),
        "end": _times([each.end for each in windows]),
        "pv": _texts([each.name for each in windows]),
        "count": np.array([len(each) for each in windows], np.int64),
        "excluded": np.array([each.excluded for each in windows], np.int64),
        "late": np.array([each.late for each in windows], np.int64),
        "rate": np.array([each.rate for each in windows], np.float64),
        "mean": column([each.mean for each in windows]),
        "std": column([each.std for each in windows]),
        "min": column([each.min for each in windows]),
        "max": column([each.max for each in windows]),
    }
    return pd.DataFrame(columns)


def _transitions(transitions: Sequence[Transition]) -> pd.DataFrame:
    entries = [entry_of(each.update.name, each.update.data) for each in transitions]
    columns: dict[str, Any] = {
        "time": _times([each.timestamp for each in transitions]),
        "pv": _texts([entry.pv for entry in entries]),
        "previous": pd.Categorical.from_codes([int(each.previous) for each in transitions], dtype=_SEVERITIES),
        "current": pd.Categorical.from_codes([int(each.current) for each in transitions], dtype=_SEVERITIES),
        "seconds": np.array([each.seconds for each in transitions], np.float64),
        "value": column([entry.value for entry in entries]),
        "message": _texts([each.update.alarm.message for each in transitions]),
    }
    return _with_units(pd.DataFrame(columns), entries)


def _with_units(frame: pd.DataFrame, entries: Iterable[Entry]) -> pd.DataFrame:
    """Puts the units of PVs into the frame's attributes, which pandas keeps in Parquet files, too."""
    frame.attrs["units"] = {entry.pv: entry.units for entry in entries if entry.units}
    return frame


def _times(nanoseconds: Sequence[int | None]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times(nanoseconds)).tz_localize("UTC")


def _long(entries: Sequence[Entry]) -> pd.DataFrame:
    severities = [-1 if entry.severity is None else entry.severity for entry in entries]
    columns: dict[str, Any] = {
        "time": _times([entry.time for entry in entries]),
        "pv": _texts([entry.pv for entry in entries]),
        "value": column([entry.value for entry in entries]),
        "severity": pd.Categorical.from_codes(severities, dtype=_SEVERITIES),
        "status": _integers([entry.status for entry in entries]),
        "enum_index": _integers([entry.enum_index for entry in entries]),
        "snapshot": _texts([entry.snapshot for entry in entries]),
        "iteration": _integers([entry.iteration for entry in entries]),
        "error": _texts([entry.error for entry in entries]),
    }
    return _with_units(pd.DataFrame(columns), entries)


def _of_columns(columns: Sequence[Column]) -> pd.DataFrame:
    """Returns the long form of columns, without an object for each event."""
    if not columns:
        return _long([])
    counts = [len(each) for each in columns]
    nothing = [None] * sum(counts)
    values = [each.value for each in columns]
    is_uniform = len({(each.ndim, each.dtype) for each in values}) == 1 and values[0].ndim == 1
    has_numbers = is_uniform and values[0].dtype != object and all(each.labels is None for each in columns)
    indices = [each.value if each.is_enum else np.zeros(len(each), np.int64) for each in columns]
    has_index = np.repeat(np.array([each.is_enum for each in columns], np.bool_), counts)
    fields: dict[str, Any] = {
        "time": pd.DatetimeIndex(np.concatenate([each.time for each in columns]).view("datetime64[ns]")).tz_localize(
            "UTC"
        ),
        "pv": _texts(np.repeat(np.array([each.name for each in columns], dtype=object), counts).tolist()),
        "value": np.concatenate(values)
        if has_numbers
        else column([cell for each in columns for cell in cells_of(each)]),
        "severity": pd.Categorical.from_codes(np.concatenate([each.severity for each in columns]), dtype=_SEVERITIES),
        "status": pd.array(np.concatenate([each.status for each in columns]), dtype="Int64"),
        "enum_index": pd.arrays.IntegerArray(np.concatenate(indices), ~has_index),
        "snapshot": _texts(nothing),
        "iteration": _integers(nothing),
        "error": _texts(nothing),
    }
    frame = pd.DataFrame(fields)
    frame.attrs["units"] = {each.name: units for each in columns if (units := each.last.units)}
    return frame


def _wide(instants: Instants) -> pd.DataFrame:
    rows = instants.rows()
    index = pd.DatetimeIndex(times([row.time for row in rows]), name="time").tz_localize("UTC")
    columns = {pv: column([row.value(pv) for row in rows]) for pv in instants.pvs}
    if any(row.pulse_id is not None for row in rows):
        columns = {_PULSE_ID: _integers([row.pulse_id for row in rows]), **columns}
    frame = pd.DataFrame({pv: pd.Series(values, index=index) for pv, values in columns.items()}, index=index)
    frame.columns.name = "pv"
    return _with_units(frame, (entry for row in rows for entry in row.entries.values()))


def column(values: Sequence[object]) -> Any:
    """Returns values as a column of their common type, or of objects. None is a missing value."""
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    if not present or not kinds <= {bool, int, float, str}:
        return objects(values)
    if kinds == {str}:
        return _texts(cast("Sequence[str | None]", values))
    kind = array_of(present).dtype.kind
    if len(present) < len(values) and kind in _NULLABLE:
        return cast("Any", pd.array(list(values), dtype=_NULLABLE[kind]))
    return with_gaps(values)


def _texts(texts: Sequence[str | None]) -> Any:
    """Returns a column of strings, of the installed pandas' type for them."""
    return pd.Series(list(texts), dtype="str").array


def _integers(numbers: Sequence[int | None]) -> Any:
    return pd.array(np.array(numbers, dtype=object), dtype="Int64")
