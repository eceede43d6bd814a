"""Batches of events as columns: numpy arrays of time, value and severity for each PV.

Thread safety: immutable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k2eg_rx.errors import require_extra
from k2eg_rx.protocol.arrays import numpy_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from k2eg_rx.protocol.messages import PVUpdate

NO_TIME = -(2**63)
"""The time of an event without one: NaT of numpy's ``datetime64[ns]``."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column:
    """The events of one PV in a batch, in order. All arrays have one item for each event.

    Attributes:
        time: EPICS times in nanoseconds since the Unix epoch, int64; ``time.view("datetime64[ns]")`` has dates. An
            event without a time has -2**63, which is NaT there.
        value: The values: float64, int64, uint64 or bool, whichever holds all of them exactly. Waveforms of one length
            are rows of a two-dimensional array. For texts and enums, indices into `labels`. Anything else, also
            waveforms of several lengths, is an array of objects.
        severity: Alarm severities, int8; see `Severity`.
        status: Alarm statuses, int32; 0 where the PV has none.
        labels: The texts that `value` has the indices of; None for other PVs. Of an enum, its choices.
        last: The newest event, with the whole structure: ``column.last.units``.
    """

    time: NDArray[Any]
    value: NDArray[Any]
    severity: NDArray[Any]
    status: NDArray[Any]
    labels: tuple[str, ...] | None
    last: PVUpdate

    @property
    def name(self) -> str:
        """The PV's name."""
        return self.last.name

    @property
    def uri(self) -> str:
        """The PV's URI."""
        return self.last.address.uri

    @property
    def is_enum(self) -> bool:
        """Whether the PV is an enum, so that `labels` are its choices."""
        return self.labels is not None and not isinstance(self.last.value, str)

    @property
    def text(self) -> NDArray[Any]:
        """The labels of the values as objects; of an enum's index without a label, the index as text.

        Raises:
            TypeError: The PV has neither texts nor an enum.
        """
        if self.labels is None:
            raise TypeError(f"{self.name}: text needs texts or an enum, got an array of {self.value.dtype}")
        labels, known = self.labels, len(self.labels)
        texts = numpy_module().empty(len(self.value), dtype=object)
        texts[:] = [labels[index] if 0 <= index < known else str(index) for index in self.value.tolist()]
        return texts

    def __len__(self) -> int:
        return len(self.time)

    def __repr__(self) -> str:
        shape = "" if self.value.ndim == 1 else f" x {self.value.shape[1]}"
        kind = self.value.dtype if self.labels is None else f"{len(self.labels)} labels"
        return f"Column({self.name!r}, {len(self)} events{shape} of {kind})"


class ColumnBatch(Mapping[str, Column]):
    """Events of several PVs as a `Column` by URI. PVs without an event in the batch are not in it.

    Attributes:
        events: The number of events of all PVs.

    Args:
        columns: The columns by URI; none is empty.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = dict(columns)
        self.events = sum(map(len, self._columns.values()))

    def __getitem__(self, uri: str) -> Column:
        return self._columns[uri]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"ColumnBatch({self.events} events of {len(self)} PVs)"

    def to_arrow(self) -> Any:
        """Returns the events as an Arrow table, ready for Parquet, polars or DuckDB.

        Its columns are the same for all batches, with the names of a recording's: ``time``, ``pv``, ``protocol``,
        ``value`` (numbers and an enum's index as floats), ``value_int`` (the same where they are integers), ``text``
        (texts and an enum's labels), ``array`` (waveforms as floats), ``severity`` and ``status``. What a PV does not
        have is null. Rows are ordered by PV.

        Raises:
            ModuleNotFoundError: pyarrow is not installed; the text names the extra.
        """
        require_extra("recording", ["numpy", "pyarrow"], "ColumnBatch.to_arrow")
        from k2eg_rx.protocol.column_tables import table_of  # noqa: PLC0415 - an extra

        return table_of(list(self.values()))
