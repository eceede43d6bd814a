"""The values of several PVs at regular times: at each, the newest value of every PV up to then.

Thread safety: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from k2eg_rx import PVUpdate
from k2eg_rx.protocol import NANOSECONDS

GridRow = tuple[int, Mapping[str, PVUpdate | None]]


class HistoryGrid:
    """Turns updates in the order of their times into rows at multiples of a period since 1970.

    The rows begin when the first PV has a value.

    Args:
        names: The PVs.
        start: Time of the first row or shortly before it, in nanoseconds since the Unix epoch.
        every: Seconds between rows.
    """

    def __init__(self, names: Iterable[str], start: int, every: float) -> None:
        self._period = max(1, round(every * NANOSECONDS))
        self._next = -(-start // self._period) * self._period
        self._newest: dict[str, PVUpdate | None] = dict.fromkeys(names)
        self._is_empty = True

    def add(self, update: PVUpdate, time: int) -> Iterator[GridRow]:
        """Adds an update, and yields the rows before it."""
        yield from self._rows(time)
        self._newest[update.name] = update
        self._is_empty = False

    def end(self, stop: int) -> Iterator[GridRow]:
        """Yields the last rows, up to a time."""
        yield from self._rows(stop)

    def _rows(self, time: int) -> Iterator[GridRow]:
        if self._is_empty:
            self._next = max(self._next, -(-time // self._period) * self._period)
        while self._next < time:
            yield self._next, dict(self._newest)
            self._next += self._period
