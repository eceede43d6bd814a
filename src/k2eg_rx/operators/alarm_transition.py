"""A change of a PV's alarm severity."""

from __future__ import annotations

from dataclasses import dataclass

from k2eg_rx.protocol import PVData, Severity


@dataclass(frozen=True, slots=True)
class AlarmTransition:
    """A change of a PV's alarm severity.

    Attributes:
        name: Name of the PV.
        previous: Severity before; UNDEFINED for the PV's first update.
        current: Severity after.
        timestamp: EPICS time of the change in integer nanoseconds since the Unix epoch; None if the PV has none.
        seconds: Duration of the previous severity by EPICS time; NaN if it is unknown.
        update: The update with the new severity.
    """

    name: str
    previous: Severity
    current: Severity
    timestamp: int | None
    seconds: float
    update: PVData
