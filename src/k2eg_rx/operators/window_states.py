"""State of `window_statistics`: collects the values of open windows and closes them.

Thread safety: the lock of the stage protects all state. Windows are emitted on the source's thread or, for silent PVs,
on a thread of the scheduler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from reactivex import abc

from k2eg_rx.operators.drops import DropReason, OnDrop, WindowCounts
from k2eg_rx.operators.idle_time import IdleTime
from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.operators.statistics import Sample, Window, window_of
from k2eg_rx.protocol import NANOSECONDS, PVUpdate, nanoseconds_of

_NEVER = -(1 << 80)  # before every time
_CLOCK_STEP = 10  # late updates in a row that mean the PV's clock was set back
_CHECKS = 20  # per window length: a check closes all silent PVs due by then, so one may close later by that fraction


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """Options of both kinds of windows.

    Attributes:
        by_arrival: Whether the arrival time counts instead of the EPICS time.
        counts: The counters to fill.
        on_drop: Called with each dropped update.
    """

    by_arrival: bool
    counts: WindowCounts
    on_drop: OnDrop | None


@dataclass(frozen=True, slots=True)
class Span:
    """Layout of time windows, in nanoseconds.

    Attributes:
        length: Length of a window.
        every: Distance between window starts.
        grace: Time that a window stays open after its end.
    """

    length: int
    every: int
    grace: int


class _Windows(Stage[PVUpdate, Window]):
    """Base of both kinds of windows."""

    def __init__(
        self, observer: abc.ObserverBase[Window], scheduler: abc.SchedulerBase, options: WindowOptions
    ) -> None:
        super().__init__(observer, scheduler)
        self._by_arrival = options.by_arrival
        self._counts = options.counts
        self._on_drop = options.on_drop

    def _clock(self) -> int:
        """Returns the scheduler's time in nanoseconds since the Unix epoch."""
        return nanoseconds_of(self.scheduler.now)

    def _time_of(self, item: PVUpdate) -> int | None:
        """Counts an update and returns its time; drops one without time."""
        self._counts.received += 1
        time = self._clock() if self._by_arrival else item.timestamp
        if time is None:
            self._drop(item, DropReason.NO_TIME)
        return time

    def _drop(self, item: PVUpdate, reason: DropReason) -> None:
        self._counts.dropped[reason] += 1
        if self._on_drop is not None:
            self._on_drop(item, reason)

    def _emit_all(self, windows: Sequence[Window]) -> None:
        self._counts.windows += len(windows)
        for window in windows:
            self.emit(window)


class _OpenWindows:
    """Open time windows of one PV. Times in nanoseconds.

    Attributes:
        samples: Samples by the start of their window.
        first: Start of the oldest open window.
        newest: Newest time of an update.
        arrived: When an update last arrived, by the clock; by event time, in idle time of the operator.
        horizon: Windows that end by this time are closed.
        late: Late updates since the last emitted window.
        late_in_row: Late updates in a row.
    """

    __slots__ = ("arrived", "first", "horizon", "late", "late_in_row", "name", "newest", "samples")

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: dict[int, list[Sample]] = {}
        self.newest = self.horizon = _NEVER
        self.arrived = self.first = 0
        self.late = self.late_in_row = 0

    def add(self, start: int, sample: Sample) -> None:
        """Adds a sample to the window that starts at `start`."""
        samples = self.samples.get(start)
        if samples is not None:
            samples.append(sample)
            return
        self.first = min(self.first, start) if self.samples else start
        self.samples[start] = [sample]


class TimeWindows(_Windows):
    """Windows that start at multiples of `Span.every` since 1970."""

    def __init__(
        self,
        observer: abc.ObserverBase[Window],
        scheduler: abc.SchedulerBase,
        options: WindowOptions,
        span: Span,
    ) -> None:
        super().__init__(observer, scheduler, options)
        self._span = span
        self._pvs: dict[str, _OpenWindows] = {}
        self._idle = IdleTime(self._clock)
        self._next_check: int | None = None  # in the time of `_OpenWindows.arrived`

    def take(self, item: PVUpdate) -> None:
        idle = self._idle.enter()
        time = self._time_of(item)
        if time is not None:
            self._add(item, time, time if self._by_arrival else idle)
        self._idle.leave()

    def _add(self, item: PVUpdate, time: int, arrived: int) -> None:
        pv = self._pvs.get(item.name)
        if pv is None:
            pv = self._pvs[item.name] = _OpenWindows(item.name)
        closed: list[Window] = []
        last = time // self._span.every * self._span.every  # start of the last window that contains it
        if last + self._span.length <= pv.horizon:
            pv.late_in_row += 1
            if pv.late_in_row < _CLOCK_STEP:
                pv.late += 1
                self._drop(item, DropReason.LATE)
                return
            closed = self._close(pv, None)
            pv.newest = pv.horizon = _NEVER
        pv.late_in_row = 0
        sample = Sample(item.value, item.timestamp if self._by_arrival else time, item.severity)
        for start in range(last, max(time, pv.horizon) - self._span.length, -self._span.every):
            pv.add(start, sample)
        pv.newest = max(pv.newest, time)
        pv.arrived = arrived
        pv.horizon = max(pv.horizon, pv.newest - self._span.grace)
        if pv.first + self._span.length <= pv.horizon:
            closed += self._close(pv, pv.horizon)
        self._check_at(self._due(pv), arrived)
        self._emit_all(closed)

    def tick(self) -> None:
        """Closes windows of silent PVs: their time goes on while the operator waits for updates."""
        self._next_check = None
        idle = self._idle.enter()
        now = self._clock() if self._by_arrival else idle
        closed: list[Window] = []
        for pv in self._pvs.values():
            if pv.samples and self._due(pv) <= now + RESOLUTION * NANOSECONDS:
                passed = pv.newest + now - pv.arrived - self._span.grace
                closed += self._close(pv, passed + round(RESOLUTION * NANOSECONDS))
        due = [self._due(pv) for pv in self._pvs.values() if pv.samples]
        if due:
            self._check_at(max(min(due), now + self._span.length // _CHECKS), now)
        self._emit_all(closed)
        self._idle.leave()

    def source_completed(self) -> None:
        """Closes all windows."""
        self._emit_all([window for pv in self._pvs.values() for window in self._close(pv, None)])
        self.complete()

    def _due(self, pv: _OpenWindows) -> int:
        """Returns when the PV's oldest window closes if no update arrives, in the time of `arrived`."""
        return pv.arrived + pv.first + self._span.length + self._span.grace - pv.newest

    def _check_at(self, due: int, now: int) -> None:
        """Schedules the next check of open windows, unless one is scheduled by about that time."""
        if self._next_check is None or due < self._next_check - self._span.length // _CHECKS:
            self._next_check = due
            self.tick_in((due - now) / NANOSECONDS)

    def _close(self, pv: _OpenWindows, until: int | None) -> list[Window]:
        """Removes and returns the windows that end by `until`, or all."""
        length = self._span.length
        windows: list[Window] = []
        for start in sorted(start for start in pv.samples if until is None or start + length <= until):
            windows.append(window_of(pv.name, (start, start + length), pv.samples.pop(start), late=pv.late))
            pv.late = 0
            pv.horizon = max(pv.horizon, start + length)
        pv.first = min(pv.samples, default=0)
        return windows


class _NewestSamples:
    """The newest updates of one PV.

    Attributes:
        samples: Pairs of time and sample.
        fresh: How many of them were in no window yet.
        needed: How many fresh ones complete the next window.
    """

    __slots__ = ("fresh", "needed", "samples")

    def __init__(self, length: int) -> None:
        self.samples: deque[tuple[int, Sample]] = deque(maxlen=length)
        self.fresh = 0
        self.needed = length


class CountWindows(_Windows):
    """Windows of `length` updates of a PV; the next one starts `every` updates later."""

    def __init__(
        self,
        observer: abc.ObserverBase[Window],
        scheduler: abc.SchedulerBase,
        options: WindowOptions,
        length: int,
        every: int,
    ) -> None:
        super().__init__(observer, scheduler, options)
        self._length = length
        self._every = every
        self._pvs: dict[str, _NewestSamples] = {}

    def take(self, item: PVUpdate) -> None:
        time = self._time_of(item)
        if time is None:
            return
        pv = self._pvs.get(item.name)
        if pv is None:
            pv = self._pvs[item.name] = _NewestSamples(self._length)
        timestamp = item.timestamp if self._by_arrival else time
        pv.samples.append((time, Sample(item.value, timestamp, item.severity)))
        pv.fresh += 1
        if pv.fresh == pv.needed:
            pv.fresh, pv.needed = 0, self._every
            self._emit_all([self._window_of(item.name, list(pv.samples))])

    def source_completed(self) -> None:
        """Emits the updates that were in no window yet."""
        rest = {name: list(pv.samples)[-pv.fresh :] for name, pv in self._pvs.items() if pv.fresh}
        self._emit_all([self._window_of(name, samples) for name, samples in rest.items()])
        self.complete()

    def _window_of(self, name: str, timed: Sequence[tuple[int, Sample]]) -> Window:
        times = [time for time, _ in timed]
        span = min(times), max(times)
        return window_of(name, span, [sample for _, sample in timed], intervals=len(timed) - 1)
