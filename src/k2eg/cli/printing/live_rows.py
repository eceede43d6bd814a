"""Newest value and update rate of each PV of a live display.

Thread safety: a lock; the client's worker threads add updates, the display's thread reads rows.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from k2eg_rx import PVUpdate

_RATE_SECONDS = 5.0  # averaging time: short enough to show a change, long enough for a PV of 1 Hz
_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A row of the display.

    Attributes:
        name: The PV's name.
        data: Its newest update; None before the first.
        rate: Updates per second.
    """

    name: str
    data: PVUpdate | None
    rate: float


class LiveRows:
    """The rows of a display, in a fixed order.

    Args:
        names: The PVs' names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, PVUpdate | None] = dict.fromkeys(names)
        self._times: dict[str, deque[float]] = {name: deque() for name in self._newest}

    def add(self, update: PVUpdate, now: float) -> None:
        """Adds an update.

        Args:
            update: The update.
            now: Monotonic time in seconds.
        """
        with self._lock:
            self._newest[update.name] = update
            self._times.setdefault(update.name, deque()).append(now)

    def rows(self, now: float) -> list[LiveRow]:
        """Returns a row for each PV.

        Args:
            now: Monotonic time in seconds.
        """
        with self._lock:
            return [LiveRow(name, newest, self._rate(name, now)) for name, newest in self._newest.items()]

    def _rate(self, name: str, now: float) -> float:
        times = self._times[name]
        while times and times[0] < now - _RATE_SECONDS:
            times.popleft()
        # Intervals between updates, not updates per averaging time: a PV of 1 Hz shows 1.0, not 0.8 or 1.2.
        span = times[-1] - times[0] if len(times) > 1 else 0.0
        return (len(times) - 1) / span if span else 0.0


def format_age(seconds: float) -> str:
    """Returns an age in the unit that fits."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def format_rate(rate: float) -> str:
    """Returns a rate in updates per second; an empty text for 0."""
    if rate <= 0:
        return ""
    return f"{rate:.0f} Hz" if rate >= 9.95 else f"{rate:.1f} Hz"


def sparkline(values: Iterable[float], width: int) -> str:
    """Returns numbers as a row of bars scaled to their range; a blank for NaN and infinity.

    Args:
        values: The numbers.
        width: Maximum number of characters; longer input is sampled evenly.
    """
    every = list(values)
    shown = [every[index * len(every) // width] for index in range(width)] if len(every) > width else every
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low = min(finite)
    step = (max(finite) - low) / (len(_SPARKS) - 1) or 1.0
    return "".join(_SPARKS[round((value - low) / step)] if math.isfinite(value) else " " for value in shown)
