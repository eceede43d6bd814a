"""The newest item of each PV as a table.

Thread safety: not thread-safe; it belongs to a view, which has a lock.
"""

from __future__ import annotations

from typing import Any

from k2eg_rx.operators import Aligned
from k2eg_rx.protocol import PV_COLUMNS, ConnectionEvent, PVData, Snapshot, pv_row
from k2eg_rx.texts import Cell, html_table, shown

# Rows: more than a screen has. Drawn five times a second, their 50 kB stay below the megabyte per second beyond which
# Jupyter's server drops output.
MOST_ROWS = 200

_LOST = "color:#d33682;font-weight:bold"


class NewestRows:
    """Keeps a row for each PV of a stream, or for each name or type of other items."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Any, int]] = {}  # the newest item and the number of items, by PV
        self._lost: dict[str, str] = {}  # the connection of PVs that have none
        self._beyond = 0

    def add(self, item: object) -> None:
        """Takes an item of the stream."""
        if isinstance(item, Aligned):
            for update in item.updates.values():
                self._add(update.name, update)
        elif isinstance(item, Snapshot):
            for name, samples in item.data.items():
                if samples:
                    self._add(name, PVData(name, samples[-1]))
        elif isinstance(item, ConnectionEvent):
            self._connected(item)
        else:
            name = getattr(item, "name", None)
            self._add(name if isinstance(name, str) else type(item).__name__, item)

    def _add(self, name: str, item: object) -> None:
        row = self._rows.get(name)
        if row is None and len(self._rows) >= MOST_ROWS:
            self._beyond += 1
            return
        self._rows[name] = item, row[1] + 1 if row else 1

    def _connected(self, event: ConnectionEvent) -> None:
        if event.is_connected:
            self._lost.pop(event.name, None)
        elif event.name in self._rows or len(self._rows) < MOST_ROWS:
            self._rows.setdefault(event.name, (None, 0))
            self._lost[event.name] = f"{event.state} {event.reason}".rstrip()

    def html(self) -> str:
        """Returns the table."""
        rows = [self._row(name, item, count) for name, (item, count) in self._rows.items()]
        if self._beyond:
            rows.append((f"{self._beyond} items of other PVs than these {MOST_ROWS}", "", "", "", ""))
        return html_table(rows, (*PV_COLUMNS, "items"))

    def _row(self, name: str, item: object, count: int) -> tuple[Cell, ...]:
        if isinstance(item, PVData):
            cells = pv_row(name, item.data)
        else:
            cells = (name, "" if item is None else shown(item), "", "")
        if (lost := self._lost.get(name)) is not None:
            cells = (cells[0], cells[1], (lost, _LOST), cells[3])
        return (*cells, str(count))
