"""xarray Datasets from items.

Thread safety: none; a collector belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import xarray as xr

from k2eg_rx.frames.wide_rows import Instants, Row
from k2eg_rx.protocol.value_arrays import Array, objects, stacked, times, with_gaps

_ELEMENT = "element"
_RESERVED = frozenset({"time", "pv", "severity", "status", "pulse_id"})
_MISSING = -1  # neither a severity nor a status of EPICS


class Arrays:
    """Collects items for a Dataset."""

    def __init__(self) -> None:
        self._instants = Instants()

    def add(self, item: object) -> None:
        """Adds an item.

        Raises:
            ValueError: The item cannot be put into a frame.
        """
        self._instants.add(item)

    def result(self) -> xr.Dataset:
        """Returns the Dataset.

        Raises:
            ValueError: A PV's waveforms differ in length, or its name is reserved.
        """
        rows, pvs = self._instants.rows(), self._instants.pvs
        for pv in pvs:
            if pv in _RESERVED or pv.startswith(_ELEMENT):
                raise ValueError(
                    f"PV names must not be {', '.join(sorted(_RESERVED))} or element..., got {pv!r}: use to_dataframe"
                )
        lengths = {pv: length for pv in pvs if (length := _length(pv, rows)) is not None}
        several = len(set(lengths.values())) > 1
        variables: dict[str, Any] = {}
        for pv in pvs:
            dims, array = ["time"], _scalars([row.value(pv) for row in rows])
            if pv in lengths:
                dims.append(f"{_ELEMENT}_{lengths[pv]}" if several else _ELEMENT)
                array = stacked([_waveform(row.value(pv)) for row in rows])
            variables[pv] = (dims, array, _attributes(pv, rows))
        variables["severity"] = (["time", "pv"], _alarms(rows, pvs, "severity", np.dtype(np.int8)))
        variables["status"] = (["time", "pv"], _alarms(rows, pvs, "status", np.dtype(np.int64)))
        coordinates: dict[str, Any] = {"time": times([row.time for row in rows]), "pv": objects(pvs)}
        if any(row.pulse_id is not None for row in rows):
            ids = [_MISSING if row.pulse_id is None else row.pulse_id for row in rows]
            coordinates["pulse_id"] = ("time", np.array(ids, np.int64))
        return xr.Dataset(variables, coords=coordinates)


def _waveform(value: object) -> Array | None:
    return cast("Array", value) if isinstance(value, np.ndarray) else None


def _length(pv: str, rows: Sequence[Row]) -> int | None:
    """Returns the length of a PV's waveforms; None if it has other values."""
    values = [value for row in rows if (value := row.value(pv)) is not None]
    waveforms = [array for value in values if (array := _waveform(value)) is not None]
    if not waveforms or len(waveforms) < len(values):
        return None
    lengths = set(map(len, waveforms))
    if len(lengths) > 1:
        few = ", ".join(map(str, sorted(lengths)[:5]))
        raise ValueError(
            f"{pv}: waveforms must have one length, got {few}{', ...' if len(lengths) > 5 else ''}: "
            "cut them, or use to_dataframe, which keeps each as it is"
        )
    return lengths.pop()


def _scalars(values: Sequence[object]) -> Array:
    present = {type(value) for value in values if value is not None}
    return with_gaps(values) if present <= {bool, int, float} else objects(values)


def _attributes(pv: str, rows: Sequence[Row]) -> dict[str, str]:
    units = next((entry.units for row in rows if (entry := row.entries.get(pv)) is not None and entry.units), "")
    return {"units": units} if units else {}


def _alarms(rows: Sequence[Row], pvs: Sequence[str], name: str, dtype: np.dtype[Any]) -> Array:
    array: Array = np.full((len(rows), len(pvs)), _MISSING, dtype)
    for place, row in enumerate(rows):
        for number, pv in enumerate(pvs):
            entry = row.entries.get(pv)
            known = None if entry is None else getattr(entry, name)
            array[place, number] = _MISSING if known is None else known
    return array
