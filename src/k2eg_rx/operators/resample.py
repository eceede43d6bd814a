"""Puts several PVs onto one regular grid of times: `resample`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from reactivex import Observable

from k2eg_rx.arguments import (
    LONGEST_DURATION,
    at_least_one,
    instance,
    non_negative,
    one_of,
    period_of,
    positive,
    pv_names,
)
from k2eg_rx.errors import require_extra
from k2eg_rx.operators.drops import ResampleCounts
from k2eg_rx.operators.stage import collected
from k2eg_rx.protocol import NANOSECONDS, PVUpdate, Snapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fill: TypeAlias = Literal["previous", "linear"]

_CAPACITY = 200_000  # samples of a PV: twice those of the largest snapshot, 28 minutes at 120 Hz, about 15 MB
_FINEST = 1_000_000  # the largest denominator of a rate: 59.94 Hz is 2997/50, and 0.1 Hz exactly 10 s


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Values of several PVs at some consecutive points of a grid.

    Attributes:
        times: EPICS times of the points, ``int64``, in nanoseconds since the Unix epoch.
        columns: Values by PV name, one for each point: ``float64``, with NaN where a value is missing. Labels are
            strings in an array of objects, with None where one is missing.
        filled: Number of values by PV name that come from samples of other points.
        missing: Number of missing values by PV name.
    """

    times: NDArray[Any]
    columns: dict[str, NDArray[Any]]
    filled: dict[str, int]
    missing: dict[str, int]

    def __len__(self) -> int:
        """The number of points."""
        return len(self.times)


def _period(rate: float) -> Fraction:
    """Returns the period of a rate in nanoseconds, without the rounding of binary fractions."""
    seconds = period_of(rate)
    if rate < 1:
        return Fraction(seconds).limit_denominator(_FINEST) * NANOSECONDS
    return NANOSECONDS / Fraction(float(rate)).limit_denominator(_FINEST)


def _tolerance(tolerance: float, fill: str | None) -> float:
    """Returns the tolerance, checked; infinity is for `previous`, which waits for no other sample."""
    if fill != "linear" and isinstance(tolerance, float) and tolerance == math.inf:
        return LONGEST_DURATION
    return positive(tolerance, "tolerance", LONGEST_DURATION)


def resample(
    rate: float,
    *,
    pvs: Iterable[str] | None = None,
    fill: Fill | None = "previous",
    tolerance: float = 1.0,
    enum: Literal["index", "label"] = "index",
    every: float = 1.0,
    grace: float = 1.0,
    capacity: int = _CAPACITY,
    counts: ResampleCounts | None = None,
) -> Callable[[Observable[PVUpdate | Snapshot]], Observable[Resampled]]:
    """Emits the values of several PVs at the points of a regular grid of times, as arrays.

    Points lie at multiples of the period since 1970, so that PVs, runs and machines have the same ones. The source are
    updates of the PVs or recurring snapshots, timed-buffered ones for all samples. Windows of snapshots leave no trace:
    each point is emitted once, none is missing between the first and the last, and a PV's last sample of one window
    fills the beginning of the next.

    A point takes the PV's newest sample after the previous point, up to its own time. `fill` says what a point without
    one has: "previous" the newest sample before, if it is at most `tolerance` old; None no value. "linear" takes the
    value at the point's time on the line between the samples before and behind it, if these are at most `tolerance`
    apart, also at points with a sample of their own. Enums are not interpolated, they have the previous value. A sample
    with severity INVALID or UNDEFINED is a missing value, and fills others as such.

    The grid begins with the first sample that is not the first one of its PV: the first update of a monitor is the PV's
    current value, of whatever time, which fills points like any other. A PV that never comes has missing values.

    A sample may be up to `grace` behind the newest EPICS time, its own PV's included; points are emitted after that,
    and after `tolerance` more for "linear". What comes later is dropped as LATE, unless it is the newest known sample
    of its PV and fills points that are still open. Of two samples of one time the one that came last counts. Times more
    than `grace` ahead of those of most samples wait: PVs with a wrong clock, if they are the fewer, do not affect the
    others.

    The operator has no clock: while nothing arrives, it emits nothing. When the source completes, the rest is emitted,
    up to the point at or after the newest sample; when it fails, the rest is dropped. A gap of more than a million
    points without any sample is left out, and counted.

    Args:
        rate: Hertz; as a fraction with a denominator of at most a million.
        pvs: PVs of the grid, by name or URI; others are dropped. By default those of the first snapshot; updates need
            them.
        fill: "previous", "linear" or None.
        tolerance: Seconds that a value may come from afar. ``math.inf`` with "previous" for PVs that are sent only when
            they change, such as setpoints.
        enum: Whether enums are numbers, their "index", or strings, their "label" (the index as text without one).
        every: Seconds of the grid in one item, from a multiple of it to the next; at least one point.
        grace: Seconds of EPICS time that a sample may be late.
        capacity: Samples of one PV that may wait; further ones are dropped. Only a PV whose clock is ahead reaches the
            default, unless `grace`, `every` or, with "linear", `tolerance` are many minutes.
        counts: Filled with the numbers of samples, points and values.

    Emits:
        `Resampled`: consecutive points. The stream fails with TypeError for a PV that is neither a number nor an enum,
        with ValueError for an update without `pvs`, and with `MissingFieldError` for a sample without ``value`` or
        ``timeStamp``. Integers beyond 2**53 are rounded.

    Raises:
        ValueError: An argument is out of range, such as an infinite `tolerance` with "linear".
        ModuleNotFoundError: numpy is not installed; the text names the extra.

    Example:
        >>> from reactivex import from_iterable
        >>> from k2eg_rx.operators import resample
        >>> from k2eg_rx.testing import START, series, snapshot
        >>> fast = series("bpm:x", [1.0, 2.0, 3.0, 4.0], every=0.25)
        >>> slow = series("mag:current", [5.0, 6.0], every=0.5)
        >>> windows = [snapshot("s", {"bpm:x": fast[:2], "mag:current": slow[:1]}),
        ...            snapshot("s", {"bpm:x": fast[2:], "mag:current": slow[1:]})]
        >>> def show(grid):
        ...     print((grid.times - START) // 10**6, *grid.columns.values(), grid.filled)
        >>> _ = from_iterable(windows).pipe(resample(4.0)).subscribe(show)
        [250 500 750] [2. 3. 4.] [5. 6. 6.] {'bpm:x': 0, 'mag:current': 2}
    """
    require_extra("analysis", ["numpy"], "resample")
    from k2eg_rx.operators.resample_grid import Grid, GridOptions  # noqa: PLC0415 - an extra
    from k2eg_rx.operators.resample_samples import FillOptions  # noqa: PLC0415

    if fill is not None:
        one_of(fill, "fill", ("previous", "linear"))
    one_of(enum, "enum", ("index", "label"))
    if counts is not None:
        instance(counts, "counts", ResampleCounts, "ResampleCounts")
    period = _period(rate)
    options = GridOptions(
        None if pvs is None else pv_names(pvs, least=1),
        period,
        max(round(positive(every, "every") * NANOSECONDS), math.ceil(period)),
        round(non_negative(grace, "grace", LONGEST_DURATION) * NANOSECONDS),
        at_least_one(capacity, "capacity"),
        FillOptions(fill, round(_tolerance(tolerance, fill) * NANOSECONDS), enum == "label"),
    )

    def operator(source: Observable[PVUpdate | Snapshot]) -> Observable[Resampled]:
        return collected(source, lambda: Grid(options, ResampleCounts() if counts is None else counts))

    return operator
