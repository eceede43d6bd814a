"""Drop reasons and counters of `align` and `window_statistics`.

Thread safety: the threads that call the operator write the counters; any thread may read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from k2eg_rx.protocol import PVUpdate


class DropReason(StrEnum):
    """Why an update is part of no instant, or of no window.

    `window_statistics` drops with NO_TIME and LATE only.

    Attributes:
        UNNAMED: Its PV is not among those to align.
        NO_TIME: It has no EPICS time.
        NO_PULSE: Its pulse id is invalid: all bits are set.
        DUPLICATE: An earlier update of the PV has the same time or pulse id.
        OUT_OF_ORDER: Its time is before that of the PV's previous update.
        CLOCK_STEP: It was waiting when the clock of its PV was set back.
        LATE: Its instant or window was closed before it arrived.
        UNMATCHED: Another PV has a later update and none for this instant.
        EXPIRED: Another PV had no update for its instant within the grace.
        NOT_HELD: Its instant was complete, except for a held PV without a value or with one too old.
        OVERFLOW: The queue was full, and it was the oldest.
        SUPERSEDED: A newer update of the held PV arrived before an instant used this one.
        ENDED: The stream ended before its instant was complete.
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
