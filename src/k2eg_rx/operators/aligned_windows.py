"""Matrices of the newest rows of aligned PVs, for models: `aligned_windows`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from reactivex import Observable

from k2eg_rx.arguments import LONGEST_DURATION, at_least_one, one_of, positive, pv_names
from k2eg_rx.errors import require_extra
from k2eg_rx.operators.align_join import Aligned
from k2eg_rx.operators.resample import Resampled
from k2eg_rx.operators.stage import collected
from k2eg_rx.protocol import NANOSECONDS, PVUpdate, Severity, numpy_module
from k2eg_rx.texts import printable, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class AlignedWindow:
    """Some consecutive rows of several PVs. The arrays are shared with no other window.

    Attributes:
        pvs: Names of the PVs, one for each column.
        times: EPICS times of the rows, ``int64``, in nanoseconds since the Unix epoch, oldest first.
        values: Values, ``float64``, of shape ``(rows, PVs)``; NaN where a value is missing or INVALID.
    """

    pvs: tuple[str, ...]
    times: NDArray[Any]
    values: NDArray[Any]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.times)


_Row = tuple[int, list[float]]


class _Windows:
    """Collects rows. Between two windows that do not overlap, rows are skipped."""

    def __init__(self, pvs: tuple[str, ...], count: int, step: int, max_gap: float, *, keeps_missing: bool) -> None:
        self._pvs = pvs
        self._count = count
        self._step = step
        self._max_gap = max_gap
        self._keeps_missing = keeps_missing
        self._rows: deque[_Row] = deque()
        self._skip = 0
        self._time: int | None = None

    def feed(self, item: Aligned | Resampled) -> Iterable[AlignedWindow]:
        """Adds the rows of an item; returns the windows that they complete."""
        windows: list[AlignedWindow] = []
        for time, values in self._aligned(item) if isinstance(item, Aligned) else self._resampled(item):
            if self._keeps_missing or not any(map(math.isnan, values)):
                self._add(time, values, windows)
        return windows

    def finish(self) -> Iterable[AlignedWindow]:
        """Drops the rows of an incomplete window."""
        return ()

    def abandon(self) -> Iterable[AlignedWindow]:
        """Drops them, too."""
        return ()

    def _aligned(self, item: Aligned) -> Iterator[_Row]:
        yield item.timestamp, [_number(name, item.updates.get(name)) for name in self._pvs]

    def _resampled(self, item: Resampled) -> Iterator[_Row]:
        for name in self._pvs:
            column = item.columns.get(name)
            if column is None or column.dtype.kind == "O":
                raise TypeError(f"{printable(name)}: aligned_windows needs a column of numbers for each PV")
        columns = [item.columns[name].tolist() for name in self._pvs]
        for time, *values in zip(item.times.tolist(), *columns, strict=True):
            yield time, values

    def _add(self, time: int, values: list[float], windows: list[AlignedWindow]) -> None:
        if self._time is not None and not 0 < time - self._time <= self._max_gap:
            self._rows.clear()
            self._skip = 0
        self._time = time
        if self._skip:
            self._skip -= 1
            return
        self._rows.append((time, values))
        if len(self._rows) < self._count:
            return
        windows.append(self._window())
        kept = max(0, self._count - self._step)
        self._rows = deque(islice(self._rows, self._count - kept, None))
        self._skip = max(0, self._step - self._count)

    def _window(self) -> AlignedWindow:
        numpy = numpy_module()
        times = numpy.array([time for time, _ in self._rows], dtype="int64")
        return AlignedWindow(self._pvs, times, numpy.array([values for _, values in self._rows], dtype="float64"))


def _number(name: str, update: PVUpdate | None) -> float:
    if update is None or update.severity >= Severity.INVALID:
        return math.nan
    value = update.value if update.choices is None else int(update)
    if not isinstance(value, int | float):
        raise TypeError(f"{printable(name)}: aligned_windows takes numbers and enums, got {shown(value)}")
    return float(value)


def aligned_windows(
    pvs: Iterable[str],
    count: int,
    *,
    step: int | None = None,
    max_gap: float | None = None,
    incomplete: Literal["drop", "nan"] = "drop",
) -> Callable[[Observable[Aligned | Resampled]], Observable[AlignedWindow]]:
    """Emits the newest rows of aligned or resampled PVs as a matrix, for models.

    A row is an instant of `align` or a point of `resample`. Windows overlap if `step` is below `count`. An incomplete
    window is dropped when the stream ends.

    Args:
        pvs: PVs of the columns, in their order, by name or URI. Others in the stream are left out.
        count: Rows of a window.
        step: Rows from one window to the next; by default `count`.
        max_gap: Seconds between two rows of one window at most: after a larger gap, in which instants were dropped, the
            window begins anew. None: any. It also begins anew when times go back or repeat.
        incomplete: What to do with a row that lacks a value, or has an INVALID one: "drop" leaves it out, "nan" keeps
            it with NaN in its place.

    Emits:
        `AlignedWindow`: one for each `step` rows, from the first `count` on.

    Raises:
        ValueError: `pvs` is empty, or an argument is out of range.
        ModuleNotFoundError: numpy is not installed; the text names the extra.

    Example:
        >>> from reactivex import from_iterable, merge
        >>> from k2eg_rx.operators import align, aligned_windows
        >>> from k2eg_rx.testing import series
        >>> x, y = series("bpm:x", [1.0, 2.0, 3.0, 4.0]), series("bpm:y", [5.0, 6.0, 7.0, 8.0])
        >>> shots = merge(from_iterable(x), from_iterable(y)).pipe(align(["bpm:x", "bpm:y"]))
        >>> windows = shots.pipe(aligned_windows(["bpm:x", "bpm:y"], 3, step=1))
        >>> _ = windows.subscribe(lambda window: print(window.values.tolist()))
        [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
        [[2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]
    """
    require_extra("analysis", ["numpy"], "aligned_windows")
    numpy_module()  # here, not on the thread of the first window: the import takes 0.1 s
    names = pv_names(pvs, least=1)
    rows = at_least_one(count, "count")
    distance = rows if step is None else at_least_one(step, "step")
    gap = math.inf if max_gap is None else positive(max_gap, "max_gap", LONGEST_DURATION) * NANOSECONDS
    one_of(incomplete, "incomplete", ("drop", "nan"))

    def operator(source: Observable[Aligned | Resampled]) -> Observable[AlignedWindow]:
        return collected(source, lambda: _Windows(names, rows, distance, gap, keeps_missing=incomplete == "nan"))

    return operator
