"""The state behind a live display of PVs: the newest update of each and how fast they come.

In: updates, from the client's worker threads. Out: rows to show, asked for by the display's thread. The table belongs
to the lock.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from k2eg_rx import PVUpdate

_RATE_SECONDS = 5.0  # the rate is over so long: short enough to see a change, long enough for a PV of 1 Hz
_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Row:
    """A PV as shown.

    Attributes:
        name: Its name.
        data: Its newest value; None if none has come.
        rate: Updates per second.
    """

    name: str
    data: PVUpdate | None
    rate: float


class Rows:
    """The PVs of a display, in a fixed order.

    Args:
        names: The PVs' names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, PVUpdate | None] = dict.fromkeys(names)
        self._times: dict[str, deque[float]] = {name: deque() for name in self._newest}

    def add(self, update: PVUpdate, now: float) -> None:
        """Takes an update.

        Args:
            update: The update.
            now: A monotonic time in seconds.
        """
        with self._lock:
            self._newest[update.name] = update
            self._times.setdefault(update.name, deque()).append(now)

    def rows(self, now: float) -> list[Row]:
        """Returns a row for each PV.

        Args:
            now: A monotonic time in seconds.
        """
        with self._lock:
            return [Row(name, newest, self._rate(name, now)) for name, newest in self._newest.items()]

    def _rate(self, name: str, now: float) -> float:
        times = self._times[name]
        while times and times[0] < now - _RATE_SECONDS:
            times.popleft()
        # between the updates: right from the second one on, and a PV of 1 Hz has 1.0 and not 0.8 or 1.2
        span = times[-1] - times[0] if len(times) > 1 else 0.0
        return (len(times) - 1) / span if span else 0.0


def format_age(seconds: float) -> str:
    """Returns how old something is, in the unit that fits."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def format_rate(rate: float) -> str:
    """Returns a rate in updates per second; nothing for a PV that stands still."""
    if rate <= 0:
        return ""
    return f"{rate:.0f} Hz" if rate >= 9.95 else f"{rate:.1f} Hz"


def sparkline(values: Iterable[float], width: int) -> str:
    """Returns numbers as a row of bars, scaled to their own range; a blank for what is not finite.

    Args:
        values: The numbers.
        width: How many characters at most; of more numbers than that, evenly spaced ones are shown.
    """
    every = list(values)
    shown = [every[index * len(every) // width] for index in range(width)] if len(every) > width else every
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low = min(finite)
    step = (max(finite) - low) / (len(_SPARKS) - 1) or 1.0
    return "".join(_SPARKS[round((value - low) / step)] if math.isfinite(value) else " " for value in shown)
