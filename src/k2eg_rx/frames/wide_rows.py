"""Rows of the wide form: entries of one time.

Thread safety: none; a collector belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from k2eg_rx.frames.entries import Entry, entries_of, entry_of
from k2eg_rx.frames.item_kinds import Instant, is_instant
from k2eg_rx.protocol import Snapshot


@dataclass(frozen=True, slots=True)
class Row:
    """Entries of several PVs at one instant.

    Attributes:
        time: Nanoseconds since the Unix epoch, or None.
        entries: Entries by PV name; PVs may be missing.
        pulse_id: Pulse id of an instant.
    """

    time: int | None
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    pulse_id: int | None = None

    def value(self, pv: str) -> object:
        """Returns a PV's value, or None."""
        entry = self.entries.get(pv)
        return None if entry is None else entry.value


class Instants:
    """Collects rows."""

    def __init__(self) -> None:
        self._pvs: dict[str, None] = {}
        self._rows: list[Row] = []
        self._newest: dict[int, Row] = {}  # by time: the row that an update of that time joins

    @property
    def pvs(self) -> list[str]:
        """Names of all PVs, in the order of their first item."""
        return list(self._pvs)

    def add(self, item: object) -> None:
        """Adds an item. An instant or a snapshot is a row; other items join the row of their time.

        Raises:
            ValueError: The item cannot be put into a frame.
        """
        if is_instant(item):
            instant = cast("Instant", item)
            entries = {pv: entry_of(pv, update.data) for pv, update in instant.updates.items()}
            self._add_pvs([*entries, *instant.missing])
            self._rows.append(Row(instant.timestamp, entries, instant.pulse_id))
        elif isinstance(item, Snapshot):
            entries = {pv: entry_of(pv, samples[-1]) for pv, samples in item.data.items() if samples}
            self._add_pvs(item.data)
            self._rows.append(Row(_time_of(item, entries), entries))
        else:
            for entry in entries_of(item):
                self._add_pvs([entry.pv])
                self._join(entry)

    def rows(self) -> list[Row]:
        """Returns the rows sorted by time, rows without time last; equal times keep their order."""
        return sorted(self._rows, key=lambda row: (row.time is None, row.time or 0))

    def _add_pvs(self, pvs: Mapping[str, object] | list[str]) -> None:
        self._pvs.update(dict.fromkeys(pvs))

    def _join(self, entry: Entry) -> None:
        if entry.error is not None:
            return  # no value; the PV has its column
        row = self._newest.get(entry.time) if entry.time is not None else None
        if row is None or entry.pv in row.entries:
            row = Row(entry.time)
            self._rows.append(row)
            if entry.time is not None:
                self._newest[entry.time] = row
        row.entries[entry.pv] = entry


def _time_of(snapshot: Snapshot, entries: Mapping[str, Entry]) -> int | None:
    if snapshot.timestamp > 0:
        return snapshot.timestamp
    return max((entry.time for entry in entries.values() if entry.time is not None), default=None)
