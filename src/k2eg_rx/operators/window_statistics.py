"""Statistics of each PV over windows of time or of updates: `window_statistics`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reactivex import Observable, abc

from k2eg_rx.arguments import LONGEST_DURATION, callback, instance, non_negative, one_of, positive
from k2eg_rx.operators.drops import OnDrop, WindowCounts
from k2eg_rx.operators.stage import staged
from k2eg_rx.operators.statistics import Window
from k2eg_rx.operators.window_states import CountWindows, Span, TimeWindows, WindowOptions
from k2eg_rx.protocol import NANOSECONDS, PVUpdate
from k2eg_rx.texts import shown


def _steps(length: float, every: float | None, name: str) -> tuple[float, float]:
    """Returns a window's length and the distance between window starts, checked."""
    positive(length, name)
    if every is not None and positive(every, "every") > length:
        raise ValueError(
            f"every must be at most {name}, {length!r}, so that each value is in a window; got {shown(every)}"
        )
    return length, length if every is None else every


def _require_whole(number: float | None, name: str) -> None:
    if number is not None and not float(number).is_integer():
        raise ValueError(f"{name} must be a whole number of updates, got {shown(number)}")


def _time_span(duration: float, every: float | None, grace: float) -> Span:
    length, step = _steps(duration, every, "duration")
    span = Span(round(length * NANOSECONDS), round(step * NANOSECONDS), round(grace * NANOSECONDS))
    if not span.every:
        raise ValueError(f"duration and every must be at least a nanosecond, got {length!r} and {step!r}")
    return span


def window_statistics(
    duration: float | None = None,
    *,
    count: int | None = None,
    every: float | None = None,
    by: Literal["event_time", "arrival"] = "event_time",
    grace: float = 1.0,
    counts: WindowCounts | None = None,
    on_drop: OnDrop | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[PVUpdate]], Observable[Window]]:
    """Emits a `Window` with the values and statistics of a PV when the window is complete.

    Each PV of the stream has windows of its own. Time windows start at multiples of their distance since 1970 (windows
    of 60 s at full minutes), so that PVs, runs and machines have the same windows. Windows without an update are not
    emitted. When the source completes, open windows are emitted as they are; when it fails, they are dropped.

    By event time, an update belongs to the windows that contain its EPICS time. A window closes when an update of the
    PV arrives whose time is `grace` past the window's end. If the PV falls silent, its windows close by the scheduler's
    clock, counted from the PV's last update; clocks of IOCs and of this machine need not agree. Time in which this
    operator is busy with other updates, its subscriber blocks, or the client is far behind does not count as silence.
    An update whose windows are closed is dropped as LATE. Ten such updates in a row mean that the PV's clock was set
    back: its windows then start anew.

    Statistics leave out INVALID values; see `Window`. A scalar in an open window takes about 150 bytes.

    Args:
        duration: Length of a window in seconds. Give either this or `count`.
        count: Length of a window in updates of a PV.
        every: Distance between window starts, in seconds or updates, at most the length. Windows overlap if it is
            shorter; each value is then in `duration / every` of them.
        by: "event_time" sorts updates by EPICS time, "arrival" by the scheduler's clock when they arrive. With
            `count` it selects the times that the window reports as start and end.
        grace: Seconds that an event-time window stays open for delayed updates. Delays come from the IOC, the gateway,
            Kafka and the queue before this operator. A replay slower than real time needs a longer grace.
        counts: Filled with the numbers of updates and windows.
        on_drop: Called with each update that is part of no window, and the reason.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `Window`: one for each PV and window.

    Raises:
        ValueError: Both or neither of `duration` and `count` are given, a number is out of range, or
            `on_drop` cannot be called with two arguments.

    Example:
        >>> from reactivex import from_iterable
        >>> from k2eg_rx.operators import window_statistics
        >>> from k2eg_rx.testing import series
        >>> currents = series("magnet:current", [1.0, 2.0, 3.0, 6.0], every=0.5)
        >>> def show(window):
        ...     print(window.name, window.values, "mean", window.mean, "to", window.max, "at", window.rate, "Hz")
        >>> _ = from_iterable(currents).pipe(window_statistics(1.0)).subscribe(show)
        magnet:current (1.0, 2.0) mean 1.5 to 2.0 at 2.0 Hz
        magnet:current (3.0, 6.0) mean 4.5 to 6.0 at 2.0 Hz
    """
    if (duration is None) == (count is None):
        raise ValueError("window_statistics takes either a duration in seconds or a count of updates")
    one_of(by, "by", ("event_time", "arrival"))
    if counts is not None:
        instance(counts, "counts", WindowCounts, "WindowCounts")
    if on_drop is not None:
        callback(on_drop, "on_drop", "the update", "the reason")
    by_arrival = by == "arrival"
    wait = 0.0 if by_arrival else non_negative(grace, "grace", LONGEST_DURATION)
    span = None if duration is None else _time_span(duration, every, wait)
    length, step = (1.0, 1.0) if count is None else _steps(count, every, "count")
    if count is not None:
        _require_whole(count, "count")
        _require_whole(every, "every")

    def operator(source: Observable[PVUpdate]) -> Observable[Window]:
        def make(observer: abc.ObserverBase[Window], timing: abc.SchedulerBase) -> TimeWindows | CountWindows:
            options = WindowOptions(by_arrival, WindowCounts() if counts is None else counts, on_drop)
            if span is None:
                return CountWindows(observer, timing, options, int(length), int(step))
            return TimeWindows(observer, timing, options, span)

        return staged(source, make, scheduler)

    return operator
