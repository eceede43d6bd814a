"""What `align` emits and counts: the values of several PVs at one instant, and what became of every update.

In: updates. Out: `Aligned`, `AlignCounts`. Any thread; the counts are written by the thread that calls the operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from k2eg_rx.protocol import PVUpdate


class DropReason(StrEnum):
    """Why an update became part of no instant.

    UNNAMED: its PV is not one of those to be joined. NO_TIME: it has no EPICS time. NO_PULSE: its pulse id is the
    invalid one, all bits set. DUPLICATE: a second one of its PV with the same time or pulse; the first counts.
    OUT_OF_ORDER: its time is before that of the update of its PV that came last. CLOCK_STEP: it waited while the clock
    of its PV was set back. LATE: its instant was given up before it came. UNMATCHED: another PV went past its instant
    without an update for it. EXPIRED: another PV gave nothing for its instant within the grace. NOT_HELD: its instant
    was complete, but a held PV had no value, or one too old. OVERFLOW: too many were waiting, and it was the oldest.
    SUPERSEDED: of a held PV, a newer one came before any instant needed it. ENDED: the stream ended before its instant
    was complete.
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


@dataclass(slots=True)
class AlignCounts:
    """What became of the updates that came to `align`.

    Attributes:
        received: How many came.
        used: How many are part of at least one instant that was emitted.
        instants: How many instants were emitted, the partial ones included.
        partial: How many of them lack a PV.
        dropped: How many became part of no instant, by why.
    """

    received: int = 0
    used: int = 0
    instants: int = 0
    partial: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter[DropReason])

    @property
    def waiting(self) -> int:
        """How many still wait for their instant to be complete; after a subscription is disposed, how many did."""
        return self.received - self.used - self.dropped.total()


@dataclass(frozen=True, slots=True)
class Aligned:
    """The updates of several PVs that belong to one instant.

    Attributes:
        timestamp: EPICS time of the oldest of them, held ones aside, in integer nanoseconds since the Unix epoch.
        pulse_id: Their pulse id; None if they were joined by time.
        updates: By PV name, in the order in which the PVs were named.
        missing: The PVs without an update; none unless partial instants are asked for.
    """

    timestamp: int
    pulse_id: int | None
    updates: Mapping[str, PVUpdate]
    missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every PV has an update."""
        return not self.missing

    def values(self) -> dict[str, Any]:
        """Returns the plain value of each PV."""
        return {name: update.value for name, update in self.updates.items()}
