"""pandas DataFrames from items.

Thread safety: none; a collector belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from k2eg_rx.frames.entries import Entry, entries_of
from k2eg_rx.frames.item_kinds import is_instant
from k2eg_rx.frames.value_arrays import array_of, objects, times, with_gaps
from k2eg_rx.frames.wide_rows import Instants
from k2eg_rx.protocol import Severity

_SEVERITIES = pd.CategoricalDtype([severity.name for severity in Severity], ordered=True)
_PULSE_ID = "pulse_id"
# pandas types that keep integers and booleans where values are missing
_NULLABLE: Mapping[str, Any] = {"i": "Int64", "u": "UInt64", "b": "boolean"}


class Frame:
    """Collects items for a DataFrame.

    Args:
        form: ``long`` or ``wide``; None chooses by the first item.
    """

    def __init__(self, form: str | None) -> None:
        self._form = form
        self._entries: list[Entry] = []
        self._instants = Instants()

    def add(self, item: object) -> None:
        """Adds an item.

        Raises:
            ValueError: The item cannot be put into a frame.
        """
        if self._form is None:
            self._form = "wide" if is_instant(item) else "long"
        if self._form == "wide":
            self._instants.add(item)
        else:
            self._entries.extend(entries_of(item))

    def result(self) -> pd.DataFrame:
        """Returns the DataFrame."""
        return _wide(self._instants) if self._form == "wide" else _long(self._entries)


def _long(entries: Sequence[Entry]) -> pd.DataFrame:
    severities = [-1 if entry.severity is None else entry.severity for entry in entries]
    columns: dict[str, Any] = {
        "time": pd.DatetimeIndex(times([entry.time for entry in entries])).tz_localize("UTC"),
        "pv": _texts([entry.pv for entry in entries]),
        "value": column([entry.value for entry in entries]),
        "severity": pd.Categorical.from_codes(severities, dtype=_SEVERITIES),
        "status": _integers([entry.status for entry in entries]),
        "enum_index": _integers([entry.enum_index for entry in entries]),
        "snapshot": _texts([entry.snapshot for entry in entries]),
        "iteration": _integers([entry.iteration for entry in entries]),
        "error": _texts([entry.error for entry in entries]),
    }
    return pd.DataFrame(columns)


def _wide(instants: Instants) -> pd.DataFrame:
    rows = instants.rows()
    index = pd.DatetimeIndex(times([row.time for row in rows]), name="time").tz_localize("UTC")
    columns = {pv: column([row.value(pv) for row in rows]) for pv in instants.pvs}
    if any(row.pulse_id is not None for row in rows):
        columns = {_PULSE_ID: _integers([row.pulse_id for row in rows]), **columns}
    frame = pd.DataFrame({pv: pd.Series(values, index=index) for pv, values in columns.items()}, index=index)
    frame.columns.name = "pv"
    return frame


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
