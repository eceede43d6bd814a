"""Decodes the events of one PV to a column. Imported only where columns are wanted, since numpy is an extra.

Most events are read many at once; see `event_reader`. The others are decoded one by one.

Thread safety: none; a decoder belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.column_values import column_values, values_of
from k2eg_rx.protocol.columns import Column
from k2eg_rx.protocol.decode import has_usual_headers
from k2eg_rx.protocol.event_reader import Event, EventReader, EventRun
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.records import Record
from k2eg_rx.pv import PVAddress

_LEAST = 16  # events: fewer are decoded sooner one by one than by numpy


class ColumnDecoder:
    """The column of one PV, as far as its events have been decoded.

    Args:
        address: The PV.
        on_error: Called with the error of an event that cannot be decoded.
    """

    def __init__(self, address: PVAddress, on_error: Callable[[WireError], None]) -> None:
        self._address = address
        self._on_error = on_error
        self._parts: list[EventRun] = []
        self._last: Record | None = None
        self._reader = EventReader(address)
        self._has_floats = False  # then integers are floats, too: gateways may send a float without fraction as one

    def add(self, records: Sequence[Record], *, are_usual: bool = False) -> int:
        """Decodes events; returns how many could be.

        Args:
            records: The events.
            are_usual: Whether it is known that all of them have a value and usual headers.

        Raises:
            K2EGError: The events are of a record, where a field of it was requested.
        """
        if are_usual and len(records) >= _LEAST:
            lengths = [len(record.value or b"") for record in records]
            if lengths.count(lengths[0]) == len(lengths):
                return self._add_alike(records)
        decoded = 0
        for (_, is_usual), run in groupby(records, self._layout):
            events = list(run)
            decoded += self._add_alike(events) if is_usual else self._add_singly(events)
        return decoded

    def add_read(self, run: EventRun, last: Record) -> None:
        """Adds events that were read elsewhere, and the record of the last one."""
        self._parts.append(run)
        self._last = last

    def take(self) -> Column | None:
        """Returns the column of what was decoded since the last call; None if that is nothing."""
        parts, self._parts = self._parts, []
        if not parts or self._last is None:
            return None
        value, labels = column_values([part.values for part in parts], as_floats=self._has_floats)
        self._has_floats = value.dtype.kind == "f"
        return Column(
            np.concatenate([part.time for part in parts]),
            value,
            np.concatenate([part.severity for part in parts]),
            np.concatenate([part.status for part in parts]),
            labels,
            PVUpdate(self._address, self._last),
        )

    def _layout(self, record: Record) -> tuple[int, bool]:
        return len(record.value or b""), has_usual_headers(record.headers, self._address.protocol)

    def _add_alike(self, records: Sequence[Record]) -> int:
        """Decodes events of one length with usual headers."""
        start = decoded = 0
        while len(records) - start >= _LEAST:
            run = self._reader.read([record.value or b"" for record in records[start:]], records[start])
            count = 0 if run is None else len(run)
            if run is not None:
                self.add_read(run, records[start + count - 1])
                start, decoded = start + count, decoded + count
            if count < _LEAST:  # another layout in between: others may be on both sides
                decoded += self._add_singly(records[start : start + _LEAST])
                start += _LEAST
        return decoded + self._add_singly(records[start:])

    def _add_singly(self, records: Sequence[Record]) -> int:
        events: list[Event] = []
        for record in records:
            try:
                events.append(self._reader.decode(record))
            except WireError as error:
                self._on_error(error)
            else:
                self._last = record
        if events:
            self._parts.append(
                EventRun(
                    np.array([event.time for event in events], np.int64),
                    np.array([event.severity for event in events], np.int8),
                    np.array([event.status for event in events], np.int32),
                    values_of([event.value for event in events]),
                )
            )
        return len(events)
