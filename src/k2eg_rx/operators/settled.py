"""Waits until a PV has come to a value and stays there: `settled`.

Thread safety: the lock of the stage protects all state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from reactivex import Observable, abc

from k2eg_rx.arguments import non_negative, positive
from k2eg_rx.errors import EmptyStreamError, OperationTimeout
from k2eg_rx.operators.stage import RESOLUTION, Stage, staged
from k2eg_rx.protocol import ConnectionEvent, PVUpdate, Severity
from k2eg_rx.texts import shown

_PARTS = 4  # in which `stays` is waited for: after a stall of this process, updates that wait are looked at first


class _Settling(Stage[PVUpdate | ConnectionEvent, PVUpdate]):
    """Counts the parts of `stays` that have passed since the PV came within the tolerance."""

    def __init__(
        self,
        observer: abc.ObserverBase[PVUpdate],
        scheduler: abc.SchedulerBase,
        *,
        target: float,
        tolerance: float,
        stays: float,
        timeout: float,
    ) -> None:
        super().__init__(observer, scheduler)
        self._target = target
        self._tolerance = tolerance
        self._part = stays / _PARTS
        self._timeout = timeout
        self._passed: int | None = None  # None: the PV is not within the tolerance
        self._due = math.inf
        self._last: PVUpdate | None = None
        self._trouble = ""

    def start(self) -> None:
        self._schedule()

    def take(self, item: PVUpdate | ConnectionEvent) -> None:
        if isinstance(item, ConnectionEvent):
            if not item.is_connected:
                self._trouble = "it is not connected"
                self._leave()
            elif self._last is not None and self._part > 0:  # until its first value, which follows
                self._look_at(self._last)
        else:
            self._last = item
            self._look_at(item)

    def _look_at(self, item: PVUpdate) -> None:
        self._trouble = ""
        value = item.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(ValueError(f"{item.name}: the value must be a number to settle, got {shown(value)}"))
        elif item.severity is Severity.INVALID or not abs(value - self._target) <= self._tolerance:  # NaN is outside
            self._trouble = "it is INVALID" if item.severity is Severity.INVALID else ""
            self._leave()
        elif self._part == 0:
            self._finish(item)
        elif self._passed is None:
            self._passed, self._due = 0, self.now() + self._part
            self._schedule()

    def _leave(self) -> None:
        self._passed, self._due = None, math.inf
        self._schedule()

    def _schedule(self) -> None:
        self.tick_in(min(self._due, self._timeout) - self.now())

    def tick(self) -> None:
        now = self.now()
        if self._passed is not None and now + RESOLUTION >= self._due:
            self._passed += 1
            self._due = now + self._part  # from now: a late timer counts as one part only
            if self._passed == _PARTS and self._last is not None:
                self._finish(self._last)
                return
        if now + RESOLUTION >= self._timeout:
            self.fail(self._expired())
            return
        self._schedule()

    def _finish(self, update: PVUpdate) -> None:
        self.emit(update)
        self.complete()

    def _expired(self) -> OperationTimeout:
        last = self._last
        name = "a PV" if last is None else last.name
        value = "no value arrived" if last is None else f"the last value was {last.value} {last.units}".rstrip()
        hint = f"{value}; {self._trouble}" if self._trouble else value
        missing = f"not within {self._tolerance:g} of {self._target:g} for {self._part * _PARTS:g} s"
        return OperationTimeout("settling", name, self._timeout, hint, missing)

    def source_completed(self) -> None:
        self.fail(EmptyStreamError("the stream ended before the PV settled"))


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def settled(
    target: float,
    tolerance: float,
    *,
    stays: float = 0.5,
    timeout: float = 30.0,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[PVUpdate | ConnectionEvent]], Observable[PVUpdate]]:
    """Emits one update when a PV has been within `tolerance` of `target` for `stays` seconds, and completes.

    An update outside the tolerance, an INVALID one, or the loss of the connection (``monitor_stream(...,
    connection=True)``) begins the wait anew. A PV that sends changes only settles without further updates. The emitted
    update is the newest one: `fresh` takes it as the end of the move.

    Args:
        target: Value to reach, in the units of the PV.
        tolerance: Largest distance from it.
        stays: Seconds to stay there, by arrival.
        timeout: Seconds until the stream fails.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `PVUpdate`: the newest one. Fails with `OperationTimeout`, which names the last value, after `timeout`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import settled
        >>> from k2eg_rx.testing import series
        >>> current = rx.from_iterable(series("mag:readback", [2.0, 4.1, 4.9, 5.0]))
        >>> current.pipe(settled(5.0, 0.05, stays=0.0)).subscribe(lambda update: print(update.value)).dispose()
        5.0
    """
    if not _is_number(target):
        raise ValueError(f"target must be a finite number, got {shown(target)}")
    distance, seconds, longest = (
        non_negative(tolerance, "tolerance"),
        non_negative(stays, "stays"),
        positive(timeout, "timeout"),
    )
    if seconds >= longest:
        raise ValueError(f"timeout must be above stays, {seconds:g} s, got {longest:g}")

    def operator(source: Observable[PVUpdate | ConnectionEvent]) -> Observable[PVUpdate]:
        def make(observer: abc.ObserverBase[PVUpdate], timing: abc.SchedulerBase) -> _Settling:
            return _Settling(observer, timing, target=target, tolerance=distance, stays=seconds, timeout=longest)

        return staged(source, make, scheduler)

    return operator
