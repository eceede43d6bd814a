"""Drop reasons and counters of `align`, `window_statistics` and `resample`.

Thread safety: the threads that call the operator write the counters; any thread may read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from k2eg_rx.protocol import PVUpdate


class DropReason(StrEnum):
    """Why an update is part of no instant, no window, or no grid.

    `window_statistics` drops with NO_TIME and LATE only; `resample` with UNNAMED, NO_TIME, DUPLICATE, LATE, OVERFLOW,
    SUPERSEDED and ENDED.

    Attributes:
        UNNAMED: Its PV is not among those to align.
        NO_TIME: It has no EPICS time.
        NO_PULSE: Its pulse id is invalid: all bits are set.
        DUPLICATE: Another update of the PV has the same time or pulse id.
        OUT_OF_ORDER: Its time is before that of the PV's previous update.
        CLOCK_STEP: It was waiting when the clock of its PV was set back.
        LATE: Its instant, window or point was closed before it arrived.
        UNMATCHED: Another PV has a later update and none for this instant.
        EXPIRED: Another PV had no update for its instant and was silent for the grace.
        DISCONNECTED: Another PV had no update for its instant, and was not connected.
        NOT_HELD: Its instant was complete, except for a held PV without a value or with one too old.
        OVERFLOW: The queue was full; it was the oldest of those of `align`, the newest of those of `resample`.
        SUPERSEDED: A newer update of the held PV arrived before an instant used this one, or is nearer to the point.
        ENDED: The stream ended before its instant was complete, or before the grid began.
    """

    UNNAMED = "unnamed"
    NO_TIME = "no_time"
    NO_PULSE = "no_pulse"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    CLOCK_STEP = "clock_step"
    LATE = "late"
    UNMATCHED = "unmatched"
    EXPIRED = "expired"
    DISCONNECTED = "disconnected"
    NOT_HELD = "not_held"
    OVERFLOW = "overflow"
    SUPERSEDED = "superseded"
    ENDED = "ended"


OnDrop = Callable[[PVUpdate, DropReason], None]
"""Called with each dropped update and the reason."""


@dataclass(slots=True)
class AlignCounts:
    """Counts of updates and instants of `align`.

    Attributes:
        received: Updates that arrived.
        used: Updates that are part of at least one emitted instant.
        instants: Emitted instants, partial ones included.
        partial: Emitted instants that lack a PV.
        dropped: Updates that are part of no instant, by reason.
    """

    received: int = 0
    used: int = 0
    instants: int = 0
    partial: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter[DropReason])

    @property
    def waiting(self) -> int:
        """Updates that wait for their instant to complete, or did so when the subscription was disposed."""
        return self.received - self.used - self.dropped.total()


@dataclass(slots=True)
class WindowCounts:
    """Counts of updates and windows of `window_statistics`.

    Attributes:
        received: Updates that arrived.
        windows: Emitted windows.
        dropped: Updates that are part of no window, by reason.
    """

    received: int = 0
    windows: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter[DropReason])


@dataclass(slots=True)
class ResampleCounts:
    """Counts of samples, points and values of `resample`.

    Attributes:
        received: Samples that arrived.
        used: Samples that are the newest ones of their point.
        carried: Samples older than the open points that later points are filled with: a PV's last sample from before
            the grid, and one that came late and is the newest known.
        dropped: All other samples that do not wait, by reason.
        points: Emitted points.
        filled: Values of emitted points that come from samples of other points.
        missing: Values of emitted points that are missing.
        gaps: Stretches without samples that were too long for points.
    """

    received: int = 0
    used: int = 0
    carried: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter[DropReason])
    points: int = 0
    filled: int = 0
    missing: int = 0
    gaps: int = 0

    @property
    def waiting(self) -> int:
        """Samples that wait for their point to close, or did so when the subscription was disposed."""
        return self.received - self.used - self.carried - self.dropped.total()
