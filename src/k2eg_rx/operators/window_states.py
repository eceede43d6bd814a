"""The work behind `window`: what is collected for each PV, and when it is complete.

In: updates, and the time. Out: `Window`s, on the thread of the source, or on that of the scheduler for a PV that has
fallen silent. Per PV the values of its open windows are kept; they belong to the lock of the stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reactivex import abc

from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.operators.window_items import Sample, Window, WindowCounts, window_of
from k2eg_rx.protocol import NANOSECONDS, PVUpdate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NEVER = -(1 << 80)  # before every time
_STEPS = 10  # so many late updates in a row: the PV's clock was set back
_LOOKS = 20  # in a window's length, so that many silent PVs are closed together; by so much one may close later

Late = Callable[[PVUpdate], None]


class _Series:
    """The open windows of one PV.

    Attributes:
        open: Samples by the begin of their window.
        first: The begin of the oldest of these.
        newest: The newest time, and when it came by the clock.
        horizon: What is before is closed.
        late: How many were late since the last window.
        behind: How many were late in a row.
    """

    __slots__ = ("arrived", "behind", "first", "horizon", "late", "name", "newest", "open")

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: dict[int, list[Sample]] = {}
        self.newest = self.horizon = _NEVER
        self.arrived = self.first = 0
        self.late = self.behind = 0

    def add(self, start: int, sample: Sample) -> None:
        """Adds a sample to the window that begins there."""
        samples = self.open.get(start)
        if samples is not None:
            samples.append(sample)
            return
        self.first = min(self.first, start) if self.open else start
        self.open[start] = [sample]


class _Windows(Stage[PVUpdate, Window]):
    """What both kinds have in common."""

    def __init__(
        self, observer: abc.ObserverBase[Window], scheduler: abc.SchedulerBase, counts: WindowCounts, by_arrival: bool
    ) -> None:
        super().__init__(observer, scheduler)
        self._counts = counts
        self._by_arrival = by_arrival

    def _clock(self) -> int:
        """Returns Unix time in nanoseconds, by the scheduler."""
        return (self.scheduler.now - _EPOCH) // _MICROSECOND * 1000

    def _time_of(self, item: PVUpdate) -> int | None:
        self._counts.received += 1
        time = self._clock() if self._by_arrival else item.timestamp
        if time is None:
            self._counts.no_time += 1
            return None
        return time

    def _emit_all(self, windows: Sequence[Window]) -> None:
        self._counts.windows += len(windows)
        for window in windows:
            self.emit(window)


@dataclass(frozen=True, slots=True)
class Span:
    """How windows of time lie; all in nanoseconds.

    Attributes:
        length: Of a window.
        every: From the begin of one to that of the next.
        grace: How long after its end a window is closed.
    """

    length: int
    every: int
    grace: int


class WindowsOfTime(_Windows):
    """Windows that begin at the multiples of a time."""

    def __init__(
        self,
        observer: abc.ObserverBase[Window],
        scheduler: abc.SchedulerBase,
        counts: WindowCounts,
        *,
        by_arrival: bool,
        span: Span,
        late: Late | None,
    ) -> None:
        super().__init__(observer, scheduler, counts, by_arrival)
        self._span = span
        self._late = late
        self._series: dict[str, _Series] = {}
        self._due: int | None = None  # when the next look is, by the clock

    def take(self, item: PVUpdate) -> None:
        time = self._time_of(item)
        if time is None:
            return
        series = self._series.get(item.name)
        if series is None:
            series = self._series[item.name] = _Series(item.name)
        windows: list[Window] = []
        last = time // self._span.every * self._span.every  # the begin of the last window that it is in
        if last + self._span.length <= series.horizon:
            series.behind += 1
            if series.behind < _STEPS:
                self._note_late(series, item)
                return
            windows = self._close(series, None)
            series.newest = series.horizon = _NEVER
        series.behind = 0
        sample = Sample(item.value, item.timestamp if self._by_arrival else time, item.severity)
        start = last
        while start + self._span.length > max(time, series.horizon):
            series.add(start, sample)
            start -= self._span.every
        series.newest = max(series.newest, time)
        series.arrived = time if self._by_arrival else self._clock()
        series.horizon = max(series.horizon, series.newest - self._span.grace)
        if series.first + self._span.length <= series.horizon:
            windows += self._close(series, series.horizon)
        self._look_at(self._due_of(series))
        self._emit_all(windows)

    def tick(self) -> None:
        """Closes the windows of PVs that are silent, as if their time went on with the clock."""
        self._due = None
        now = self._clock()
        windows: list[Window] = []
        for series in self._series.values():
            if series.open and self._due_of(series) <= now + RESOLUTION * NANOSECONDS:
                passed = series.newest + now - series.arrived - self._span.grace
                windows += self._close(series, passed + round(RESOLUTION * NANOSECONDS))
        left = [self._due_of(series) for series in self._series.values() if series.open]
        if left:
            self._look_at(max(min(left), now + self._span.length // _LOOKS))
        self._emit_all(windows)

    def source_completed(self) -> None:
        """Closes all windows."""
        self._emit_all([window for series in self._series.values() for window in self._close(series, None)])
        self.complete()

    def _note_late(self, series: _Series, item: PVUpdate) -> None:
        series.late += 1
        self._counts.late += 1
        if self._late is not None:
            self._late(item)

    def _due_of(self, series: _Series) -> int:
        """Returns when the first open window of a PV is to be closed by the clock, if nothing more comes."""
        return series.arrived + series.first + self._span.length + self._span.grace - series.newest

    def _look_at(self, due: int) -> None:
        """Has the next look at the open windows at a time, if none is planned about then or before."""
        if self._due is None or due < self._due - self._span.length // _LOOKS:
            self._due = due
            self.tick_in((due - self._clock()) / NANOSECONDS)

    def _close(self, series: _Series, until: int | None) -> list[Window]:
        """Takes out the windows that end by then, or all."""
        length = self._span.length
        starts = sorted(start for start in series.open if until is None or start + length <= until)
        windows: list[Window] = []
        for start in starts:
            samples = series.open.pop(start)
            windows.append(window_of(series.name, (start, start + length), samples, late=series.late))
            series.late = 0
            series.horizon = max(series.horizon, start + length)
        series.first = min(series.open, default=0)
        return windows


class _Run:
    """The newest updates of one PV.

    Attributes:
        samples: With the time of each.
        fresh: How many of them no window has had yet.
        needed: How many it takes for the next window.
    """

    __slots__ = ("fresh", "needed", "samples")

    def __init__(self, length: int) -> None:
        self.samples: deque[tuple[int, Sample]] = deque(maxlen=length)
        self.fresh = 0
        self.needed = length


class WindowsOfCount(_Windows):
    """Windows of so many updates of a PV."""

    def __init__(
        self,
        observer: abc.ObserverBase[Window],
        scheduler: abc.SchedulerBase,
        counts: WindowCounts,
        *,
        by_arrival: bool,
        length: int,
        every: int,
    ) -> None:
        super().__init__(observer, scheduler, counts, by_arrival)
        self._length = length
        self._every = every
        self._runs: dict[str, _Run] = {}

    def take(self, item: PVUpdate) -> None:
        time = self._time_of(item)
        if time is None:
            return
        run = self._runs.get(item.name)
        if run is None:
            run = self._runs[item.name] = _Run(self._length)
        timestamp = item.timestamp if self._by_arrival else time
        run.samples.append((time, Sample(item.value, timestamp, item.severity)))
        run.fresh += 1
        if run.fresh == run.needed:
            run.fresh, run.needed = 0, self._every
            self._emit_all([self._window_of(item.name, list(run.samples))])

    def source_completed(self) -> None:
        """Emits what no window has had yet."""
        left = {name: list(run.samples)[-run.fresh :] for name, run in self._runs.items() if run.fresh}
        self._emit_all([self._window_of(name, samples) for name, samples in left.items()])
        self.complete()

    def _window_of(self, name: str, timed: Sequence[tuple[int, Sample]]) -> Window:
        times = [time for time, _ in timed]
        span = min(times), max(times)
        return window_of(name, span, [sample for _, sample in timed], intervals=len(timed) - 1)
