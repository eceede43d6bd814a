"""Changes of alarm severity: `alarms`."""

from __future__ import annotations

import math
from collections.abc import Callable

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import LONGEST_DURATION, at_least_one, instance, non_negative, whole
from k2eg_rx.concurrency import check_scheduler
from k2eg_rx.operators.alarm_debounce import DebouncedAlarms, DebounceOptions
from k2eg_rx.operators.alarm_transition import AlarmTransition
from k2eg_rx.operators.stage import staged
from k2eg_rx.protocol import NANOSECONDS, PVData, Severity


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
    *,
    delay: float = 0.0,
    clear_after: float = 0.0,
    count: int = 1,
    latch: Observable[str | None] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[PVData]], Observable[AlarmTransition]]:
    """Emits an `AlarmTransition` when the alarm severity of a PV changes.

    Each PV of the stream has a severity of its own. A PV that is in alarm at its first update is emitted too, from
    UNDEFINED and with an unknown duration.

    With `delay`, `clear_after`, `count` or `latch`, severities that come and go are not emitted: `previous` is the
    severity that was emitted before, `timestamp` the time of the first update that is worse or better than that, and
    `current` the newest severity. A PV that goes from one alarm severity to another in the meantime is still in alarm:
    its delay does not begin anew.

    Args:
        minimum: Lowest severity that counts. A transition is emitted if the severity before or after is at least this.
        delay: Seconds for which a PV must be worse, by arrival of the updates.
        clear_after: Seconds for which a PV must be better.
        count: Updates in a row that must be worse.
        latch: Acknowledgements: name or URI of a PV, or None for all. A PV that becomes better is emitted only after an
            acknowledgement that arrives while it is. ``rx.never()`` emits each alarm once.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `AlarmTransition`: one for each change.

    Raises:
        ValueError: `minimum` is no severity, or an argument is out of range.

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
    options = DebounceOptions(
        lowest,
        non_negative(delay, "delay", LONGEST_DURATION),
        non_negative(clear_after, "clear_after", LONGEST_DURATION),
        at_least_one(count, "count"),
        latch,
    )
    if latch is not None:
        instance(latch, "latch", Observable, "an Observable of acknowledgements")
    check_scheduler(scheduler)
    is_plain = latch is None and not options.delay and not options.clear_after and options.count == 1

    def operator(source: Observable[PVData]) -> Observable[AlarmTransition]:
        if not is_plain:
            return staged(source, lambda observer, timing: DebouncedAlarms(observer, timing, options), scheduler)

        def start(_: object) -> Observable[AlarmTransition]:
            severities = _Severities(lowest)
            return source.pipe(ops.map(severities.transitions), ops.filter(bool), ops.map(lambda found: found[0]))

        return rx.defer(start)

    return operator
