"""`alarms`: how severities change, and how long they lasted.

In: updates. Out: `AlarmTransition`s, on the thread the update comes on. Per PV the severity and since when it holds;
that belongs to whoever hands over the updates, one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.protocol import NANOSECONDS, PVData, Severity


@dataclass(frozen=True, slots=True)
class AlarmTransition:
    """A PV went from one severity to another.

    Attributes:
        name: The PV.
        previous: The severity it left; UNDEFINED if this is the first update, which says nothing of what was before.
        current: The severity it has now.
        timestamp: When, in EPICS time: integer nanoseconds since the Unix epoch; None if the PV does not tell.
        seconds: How long it had the previous severity, by EPICS time; NaN if that is not known.
        update: The update that told it: value, alarm message and all.
    """

    name: str
    previous: Severity
    current: Severity
    timestamp: int | None
    seconds: float
    update: PVData


class _Severities:
    """The severity of each PV, and since when it has it."""

    def __init__(self, minimum: Severity) -> None:
        self._minimum = minimum
        self._current: dict[str, tuple[Severity, int | None]] = {}

    def transitions(self, update: PVData) -> list[AlarmTransition]:
        """Returns the transition that an update makes, if it makes one that counts."""
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
    """Returns an operator that emits an `AlarmTransition` when a PV's alarm severity changes.

    A PV that is in alarm at its first update is told as well, since an alarm that stands when one begins to look is
    the one that matters most: from UNDEFINED, for an unknown time. The PVs of a stream are told apart.

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

    Args:
        minimum: Transitions count into, out of and between severities from this one on.

    Raises:
        ValueError: There is no such severity.
    """
    least = Severity(minimum)

    def operator(source: Observable[PVData]) -> Observable[AlarmTransition]:
        def start(_: object) -> Observable[AlarmTransition]:
            severities = _Severities(least)
            return source.pipe(ops.map(severities.transitions), ops.filter(bool), ops.map(lambda found: found[0]))

        return rx.defer(start)

    return operator
