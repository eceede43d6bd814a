"""Arrow tables of columns. Imported only where a table is made, since pyarrow is an extra.

Thread safety: functions may run on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow
from numpy.typing import NDArray

from k2eg_rx.protocol.columns import NO_TIME, Column

Array: TypeAlias = NDArray[Any]

_pa: Any = pyarrow

_SCHEMA = _pa.schema(
    {
        "time": _pa.timestamp("ns", tz="UTC"),
        "pv": _pa.string(),
        "protocol": _pa.string(),
        "value": _pa.float64(),
        "value_int": _pa.int64(),
        "text": _pa.large_string(),
        "array": _pa.large_list(_pa.float64()),
        "severity": _pa.int8(),
        "status": _pa.int32(),
    }.items()
)
_NUMBERS = "biuf"  # numpy's kinds


def table_of(columns: Sequence[Column]) -> Any:
    """Returns columns as one table, one after the other."""
    return _pa.concat_tables([_SCHEMA.empty_table(), *map(_table, columns)])


def _table(column: Column) -> Any:
    count, address, value = len(column), column.last.address, column.value
    is_number = value.ndim == 1 and value.dtype.kind in _NUMBERS
    is_integer = is_number and value.dtype.kind in "iu" and (count == 0 or int(value.max()) < 2**63)
    fields: dict[str, Any] = {
        "time": _pa.array(column.time.view("datetime64[ns]"), mask=column.time == NO_TIME).cast(_SCHEMA.field(0).type),
        "pv": _pa.repeat(address.name, count),
        "protocol": _pa.repeat(address.protocol, count),
        "severity": column.severity,
        "status": column.status,
    }
    if is_number and (column.labels is None or column.is_enum):
        fields["value"] = value.astype(np.float64)
    if is_integer and "value" in fields:
        fields["value_int"] = value.astype(np.int64)
    if column.labels is not None:
        fields["text"] = [text.encode("utf-8", "replace").decode() for text in column.text.tolist()]
    if (arrays := _arrays(value)) is not None:
        fields["array"] = arrays
    return _pa.table([_filled(fields.get(field.name), field.type, count) for field in _SCHEMA], schema=_SCHEMA)


def _filled(items: Any, kind: Any, count: int) -> Any:
    """Returns items as an Arrow array of a type; nulls where there are none."""
    if items is None:
        return _pa.nulls(count, kind)
    return items if isinstance(items, _pa.Array) and items.type == kind else _pa.array(items, type=kind)


def _arrays(value: Array) -> list[Array | None] | None:
    """Returns waveforms of numbers as lists; None for other values."""
    if value.ndim > 1:
        return list(value.astype(np.float64)) if value.dtype.kind in _NUMBERS else None
    if value.dtype != object:
        return None
    items: list[Any] = list(value)
    rows: list[Array | None] = [
        item.astype(np.float64) if isinstance(item, np.ndarray) and cast("Array", item).dtype.kind in _NUMBERS else None
        for item in items
    ]
    return None if all(row is None for row in rows) else rows
