"""`window`: a PV's values by stretches of time, or so many at a time, with their statistics.

In: updates, and the time. Out: `Window`s, on the thread of the source, or on that of the scheduler for a PV that has
fallen silent. It holds no state; that of a subscription is in `windowing`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reactivex import Observable, abc

from k2eg_rx.arguments import non_negative, positive
from k2eg_rx.operators.stage import staged
from k2eg_rx.operators.window_items import Window, WindowCounts
from k2eg_rx.operators.window_states import Late, Span, WindowsOfCount, WindowsOfTime
from k2eg_rx.protocol import NANOSECONDS, PVUpdate


def _steps(length: float, every: float | None, what: str) -> tuple[float, float]:
    """Returns a window's length and the distance to the next one, checked."""
    positive(length, what)
    if every is not None and positive(every, "every") > length:
        raise ValueError(f"every has to be at most {what}, {length!r}, or values would be in no window; got {every!r}")
    return length, length if every is None else every


def _whole(what: str, number: float | None) -> None:
    if number is not None and not float(number).is_integer():
        raise ValueError(f"{what} is a whole number of updates, not {number!r}")


def window(
    seconds: float | None = None,
    *,
    count: int | None = None,
    every: float | None = None,
    by: Literal["event_time", "arrival"] = "event_time",
    grace: float = 1.0,
    late: Late | abc.ObserverBase[PVUpdate] | None = None,
    counts: WindowCounts | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[PVUpdate]], Observable[Window]]:
    """Collects the values of each PV in windows; emits a `Window` with their statistics when it is complete.

    Each PV of the stream has windows of its own. Windows of time begin at the multiples of their length since 1970
    (those of 60 s at full minutes), so that those of different PVs, runs and machines lie alike; one without an update
    is not emitted. At the end of the source what is open is emitted as it is, on its failure it is dropped.

    By event time, an update belongs where its EPICS time is. A window is closed when an update of its PV comes that is
    `grace` past its end; or, of a PV that falls silent, when so much time has passed here since its last update that
    one of then would do. So the clocks of IOCs and of this machine need not agree. What comes for a closed window is
    late: counted, handed to `late`, and in no window. Ten late updates in a row mean that the PV's clock was set back,
    and start afresh.

    Statistics leave out INVALID values; see `Window`. A window of scalars takes some 150 bytes per update, for it
    keeps value, time and severity only.

    Args:
        seconds: Length of a window.
        count: Instead of it, the number of updates of a PV in a window.
        every: Seconds, or updates, from the begin of one window to that of the next, if they are to overlap; each
            value is in `seconds / every` of them.
        by: Whether the EPICS time counts, or when updates arrive here. By count it tells the window's begin and end.
        grace: Seconds that a window by event time stays open for what is delayed: by the IOC, the gateway, Kafka, and
            the queue before this operator. In a replay that is slower than life it has to be longer.
        late: Called with each late update; or an observer that gets them, such as a subject.
        counts: Filled with what became of the updates, for the caller to read.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: Both or neither of `seconds` and `count` are given, or a number is outside its range.

    Example:
        >>> from reactivex import from_iterable
        >>> from k2eg_rx.operators import window
        >>> from k2eg_rx.testing import series
        >>> currents = series("magnet:current", [1.0, 2.0, 3.0, 6.0], every=0.5)
        >>> def show(window):
        ...     print(window.name, window.values, "mean", window.mean, "to", window.max, "at", window.rate, "Hz")
        >>> _ = from_iterable(currents).pipe(window(1.0)).subscribe(show)
        magnet:current (1.0, 2.0) mean 1.5 to 2.0 at 2.0 Hz
        magnet:current (3.0, 6.0) mean 4.5 to 6.0 at 2.0 Hz
    """
    if (seconds is None) == (count is None):
        raise ValueError("a window has either a length in seconds or a count of updates")
    if by not in ("event_time", "arrival"):
        raise ValueError(f"by is 'event_time' or 'arrival', not {by!r}")
    by_arrival = by == "arrival"
    wait = 0.0 if by_arrival else non_negative(grace, "grace")
    if seconds is not None:
        length, step = _steps(seconds, every, "seconds")
    else:
        length, step = _steps(count or 0, every, "count")
        _whole("count", count)
        _whole("every", every)
    span = Span(round(length * NANOSECONDS), round(step * NANOSECONDS), round(wait * NANOSECONDS))
    if not span.every:
        raise ValueError(f"seconds and every are at least a nanosecond, not {length!r} and {step!r}")

    aside = late if late is None or callable(late) else late.on_next

    def windowed(source: Observable[PVUpdate]) -> Observable[Window]:
        def make(observer: abc.ObserverBase[Window], timing: abc.SchedulerBase) -> WindowsOfTime | WindowsOfCount:
            kept = WindowCounts() if counts is None else counts
            if seconds is None:
                return WindowsOfCount(
                    observer, timing, kept, by_arrival=by_arrival, length=int(length), every=int(step)
                )
            return WindowsOfTime(observer, timing, kept, by_arrival=by_arrival, span=span, late=aside)

        return staged(source, make, scheduler)

    return windowed
