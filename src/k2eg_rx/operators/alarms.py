"""Changes of alarm severity: `alarms`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.arguments import whole
from k2eg_rx.protocol import NANOSECONDS, PVData, Severity


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


class _Severities:
    """Severity of each PV, and the time since when it holds."""

    def __init__(self, minimum: Severity) -> None:
        self._minimum = minimum
        self._current: dict[str, tuple[Severity, int | None]] = {}

    def transitions(self, update: PVData) -> list[AlarmTransition]:
        """Returns the transition of an update, if there is one at or above the minimum."""
        current = update.severity
        known = self._current.get(update.name)
        if known is not None and known[0] is current:
            return []
        now = update.timestamp
        self._current[update.name] = current, now
        previous, since = (Severity.UNDEFINED, None) if known is None else known
        if max(current, previous if known else current) < self._minimum:
            return []
        seconds = math.nan if since is None or now is None else (now - since) / NANOSECONDS
        return [AlarmTransition(update.name, previous, current, now, seconds, update)]


def alarms(
    minimum: Severity | int = Severity.MINOR,
) -> Callable[[Observable[PVData]], Observable[AlarmTransition]]:
    """Emits an `AlarmTransition` when the alarm severity of a PV changes.

    Each PV of the stream has a severity of its own. A PV that is in alarm at its first update is emitted too, from
    UNDEFINED and with an unknown duration.

    Args:
        minimum: Lowest severity that counts. A transition is emitted if the severity before or after is at least this.

    Emits:
        `AlarmTransition`: one for each change.

    Raises:
        ValueError: `minimum` is no severity.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import alarms
        >>> from k2eg_rx.testing import START, update
        >>> second = 1_000_000_000
        >>> temperature = rx.of(
        ...     update("demo:t", 20.0),
        ...     update("demo:t", 81.0, severity=1, timestamp=START + 4 * second),
        ...     update("demo:t", 82.0, severity=1, timestamp=START + 5 * second),
        ...     update("demo:t", 60.0, timestamp=START + 10 * second),
        ... )
        >>> def show(alarm):
        ...     print(f"{alarm.name}: {alarm.previous.name} -> {alarm.current.name} after {alarm.seconds} s")
        >>> temperature.pipe(alarms()).subscribe(show).dispose()
        demo:t: NO_ALARM -> MINOR after 4.0 s
        demo:t: MINOR -> NO_ALARM after 6.0 s
    """
    lowest = Severity(whole(minimum, "minimum", 0, max(Severity)))

    def operator(source: Observable[PVData]) -> Observable[AlarmTransition]:
        def start(_: object) -> Observable[AlarmTransition]:
            severities = _Severities(lowest)
            return source.pipe(ops.map(severities.transitions), ops.filter(bool), ops.map(lambda found: found[0]))

        return rx.defer(start)

    return operator
