"""Alarm transitions that have lasted, were repeated, or are acknowledged: the state of `alarms` with options.

Thread safety: the lock of the stage protects all state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reactivex import Observable, abc

from k2eg_rx.operators.alarm_transition import AlarmTransition
from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.protocol import NANOSECONDS, PVData, Severity
from k2eg_rx.pv import pv_name_of


@dataclass(frozen=True, slots=True)
class DebounceOptions:
    """Options of `alarms`, checked."""

    minimum: Severity
    delay: float
    clear_after: float
    count: int
    latch: Observable[str | None] | None


@dataclass(slots=True)
class _Pv:
    """A PV: the severity that was emitted last, and one that may follow it."""

    emitted: Severity | None = None  # None: no update was seen
    since: int | None = None  # EPICS time of that change
    update: PVData | None = None  # the newest one
    is_worse: bool | None = None  # whether it is worse or better than what was emitted; None: neither
    start: int | None = None  # EPICS time of the first update that is
    due: float = math.inf  # when it has lasted
    updates: int = 0  # that are worse
    acknowledged: bool = False


class DebouncedAlarms(Stage[PVData, AlarmTransition]):
    """One timer, for the change of severity that is due first."""

    def __init__(
        self, observer: abc.ObserverBase[AlarmTransition], scheduler: abc.SchedulerBase, options: DebounceOptions
    ) -> None:
        super().__init__(observer, scheduler)
        self._options = options
        self._pvs: dict[str, _Pv] = {}
        self._pending: dict[str, _Pv] = {}

    def run(self, source: Observable[PVData], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the acknowledgements and the source."""
        if self._options.latch is not None:
            self.hold(
                self._options.latch.subscribe(
                    self.catching(self._acknowledge), self.guarded(self.source_failed), scheduler=subscribed
                )
            )
        return super().run(source, subscribed)

    def take(self, item: PVData) -> None:
        pv = self._pvs.setdefault(item.name, _Pv())
        pv.update = item
        severity, emitted = item.severity, pv.emitted or Severity.NO_ALARM
        if max(severity, emitted) < self._options.minimum:
            pv.emitted, pv.since = severity, item.timestamp if severity is not pv.emitted else pv.since
            self._forget(item.name, pv)
        elif severity is pv.emitted:
            self._forget(item.name, pv)
        else:
            self._follow(item, pv, is_worse=severity > emitted)

    def _follow(self, item: PVData, pv: _Pv, *, is_worse: bool) -> None:
        if pv.is_worse is not is_worse:
            pv.is_worse, pv.start, pv.updates = is_worse, item.timestamp, 0
            pv.due = self.now() + (self._options.delay if is_worse else self._options.clear_after)
            self._pending[item.name] = pv
        pv.updates += 1
        self._emit_due()

    def _forget(self, name: str, pv: _Pv) -> None:
        pv.is_worse, pv.due, pv.acknowledged = None, math.inf, False
        self._pending.pop(name, None)

    def _acknowledge(self, uri: str | None) -> None:
        names = list(self._pending) if uri is None else [pv_name_of(uri)]
        for name in names:
            if (pv := self._pending.get(name)) is not None:
                pv.acknowledged = True
        self._emit_due()

    def tick(self) -> None:
        self._emit_due()

    def _is_ready(self, pv: _Pv) -> bool:
        if pv.is_worse:
            return pv.updates >= self._options.count
        return self._options.latch is None or pv.acknowledged

    def _emit_due(self) -> None:
        now = self.now() + RESOLUTION
        for name, pv in list(self._pending.items()):
            if pv.due <= now and self._is_ready(pv) and pv.update is not None and self.is_open:
                self._emit(name, pv, pv.update)
        waiting = min((pv.due for pv in self._pending.values() if pv.due > now), default=None)
        if waiting is not None:
            self.tick_in(waiting - self.now())

    def _emit(self, name: str, pv: _Pv, update: PVData) -> None:
        previous = Severity.UNDEFINED if pv.emitted is None else pv.emitted
        known = pv.since is not None and pv.start is not None and pv.emitted is not None
        seconds = ((pv.start or 0) - (pv.since or 0)) / NANOSECONDS if known else math.nan
        start = pv.start
        pv.emitted, pv.since = update.severity, start
        self._forget(name, pv)
        self.emit(AlarmTransition(name, previous, update.severity, start, seconds, update))
