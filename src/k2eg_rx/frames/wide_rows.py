"""What belongs to one time: the rows of the wide form.

In: items of streams, in their order. Out: rows, sorted by time. Belongs to its user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from k2eg_rx.frames.entries import Entry, entries_of, entry_of
from k2eg_rx.frames.item_kinds import Instant, is_instant
from k2eg_rx.protocol import Snapshot

_MILLISECOND = 1_000_000  # in nanoseconds


@dataclass(frozen=True, slots=True)
class Row:
    """Several PVs at one instant.

    Attributes:
        time: Nanoseconds since the Unix epoch; None if there is none.
        entries: By PV name; a PV may be missing.
    """

    time: int | None
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def value(self, pv: str) -> object:
        """Returns a PV's value, or None."""
        entry = self.entries.get(pv)
        return None if entry is None else entry.value


class Instants:
    """Collects rows.

    Attributes:
        pvs: The names of all PVs, in the order in which they were first seen.
    """

    def __init__(self) -> None:
        self._pvs: dict[str, None] = {}
        self._rows: list[Row] = []
        self._newest: dict[int, Row] = {}  # by time: where a further update of that time goes

    @property
    def pvs(self) -> list[str]:
        """The names of all PVs, in the order in which they were first seen."""
        return list(self._pvs)

    def add(self, item: object) -> None:
        """Takes an item: an instant and a snapshot are a row each, all else joins that of its time.

        Raises:
            ValueError: It is nothing that can be put into a frame.
        """
        if is_instant(item):
            instant = cast("Instant", item)
            entries = {pv: entry_of(pv, update.data) for pv, update in instant.updates.items()}
            self._note([*entries, *instant.missing])
            self._rows.append(Row(instant.timestamp, entries))
        elif isinstance(item, Snapshot):
            entries = {pv: entry_of(pv, samples[-1]) for pv, samples in item.data.items() if samples}
            self._note(item.data)
            self._rows.append(Row(_time_of(item, entries), entries))
        else:
            for entry in entries_of(item):
                self._note([entry.pv])
                self._join(entry)

    def rows(self) -> list[Row]:
        """Returns the rows by time; those without one last, and those of equal time in the order they came in."""
        return sorted(self._rows, key=lambda row: (row.time is None, row.time or 0))

    def _note(self, pvs: Mapping[str, object] | list[str]) -> None:
        self._pvs.update(dict.fromkeys(pvs))

    def _join(self, entry: Entry) -> None:
        if entry.error is not None:
            return  # there is no value; the column is there
        row = self._newest.get(entry.time) if entry.time is not None else None
        if row is None or entry.pv in row.entries:
            row = Row(entry.time)
            self._rows.append(row)
            if entry.time is not None:
                self._newest[entry.time] = row
        row.entries[entry.pv] = entry


def _time_of(snapshot: Snapshot, entries: Mapping[str, Entry]) -> int | None:
    if snapshot.timestamp > 0:
        return snapshot.timestamp * _MILLISECOND
    return max((entry.time for entry in entries.values() if entry.time is not None), default=None)
