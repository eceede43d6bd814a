"""Draws series as the lines of a chart: curves, limits, axes, a letter at each curve, and the values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase

from k2eg.cli.charts.canvas import DOTS_DOWN, Canvas, Line, Span, axis_lines
from k2eg.cli.charts.scales import Scale, fitted, time_ticks
from k2eg.cli.charts.series import Extent, Series, SeriesBook
from k2eg.cli.charts.view import View
from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.formatting import format_value, local_time
from k2eg_rx import Severity
from k2eg_rx.protocol import format_number

STYLES = 6  # of curves, ``curve0`` to ``curve5``, which repeat
_MARGIN = 4  # columns at the right for the letters
_ROWS_PER_TICK = 4
_COLUMNS_PER_TICK = 14
_LEAST_ROWS = 4
_LEAST_COLUMNS = 10
_SEVERITIES = {
    Severity.MINOR: "minor",
    Severity.MAJOR: "major",
    Severity.INVALID: "invalid",
    Severity.UNDEFINED: "invalid",
}


def letter(index: int) -> str:
    """Returns the letter of a curve."""
    return ascii_lowercase[index % len(ascii_lowercase)]


def chart_lines(book: SeriesBook, view: View, now: int, columns: int, rows: int) -> list[Line]:
    """Returns the lines of a chart.

    Args:
        book: The data.
        view: What to show.
        now: The present time in nanoseconds since the Unix epoch.
        columns: Width of the terminal.
        rows: Its height; values of PVs that do not fit are left out.
    """
    with book.lock:
        legend = _legend(book, view, now)
        legend = legend[: max(1, rows - 2 - _LEAST_ROWS)]
        return _Drawing(book, view, now, columns, max(rows - 2 - len(legend), _LEAST_ROWS)).lines() + legend


class _Drawing:
    """One drawing of a chart without its legend.

    Args:
        book: The data, which is locked.
        view: What to show.
        now: The present time.
        columns: Width.
        rows: Rows of the curves.
    """

    def __init__(self, book: SeriesBook, view: View, now: int, columns: int, rows: int) -> None:
        self._book, self._view, self._rows = book, view, rows
        self._most = max(2, rows // _ROWS_PER_TICK + 1)
        self._start, self._stop = view.window(now)
        self._now = now
        scales = self._scales(self._extents(max(columns // 2, _LEAST_COLUMNS)))
        self._scale = scales[view.selected]
        self._ticks = {self._row(value): text for value, text in self._scale.ticks(self._most)}
        self._head = max(map(len, self._ticks.values()), default=1)
        self._columns = max(columns - self._head - 2 - _MARGIN, _LEAST_COLUMNS)
        self._canvas = Canvas(self._columns, rows)
        self._ends: dict[int, str] = {}
        self._draw_limits()
        for index, (extents, scale) in enumerate(zip(self._extents(self._canvas.width), scales, strict=True)):
            self._draw_curve(index, extents, scale)
        if view.cursor is not None:
            self._canvas.cursor(self._column(view.cursor), "cursor")

    def _extents(self, count: int) -> list[list[Extent | None]]:
        """Returns the extents of each series in equal parts of the window."""
        span = self._stop - self._start
        edges = [self._start + span * part // count for part in range(count + 1)]
        edges[-1] += 1  # the window includes its end
        return [series.extents(edges, self._now, self._book.gap_of(series)) for series in self._book.series]

    def _scales(self, found: Sequence[Sequence[Extent | None]]) -> list[Scale]:
        """Returns the scale of each series."""
        ranges: list[tuple[Extent | None, bool]] = []
        for curve, extents in zip(self._book.curves, found, strict=True):
            is_log = self._view.is_log or (self._view.own and curve.is_log)
            ranges.append((curve.extent or _union(extents, is_log=is_log), is_log))
        if self._view.own:
            return [
                self._fixed(curve.extent, is_log=is_log) or self._fitted(extent, is_log=is_log)
                for curve, (extent, is_log) in zip(self._book.curves, ranges, strict=True)
            ]
        is_log = self._view.is_log
        return [self._fitted(_union([extent for extent, _ in ranges], is_log=is_log), is_log=is_log)] * len(ranges)

    @staticmethod
    def _fixed(extent: Extent | None, *, is_log: bool) -> Scale | None:
        if extent is None or (is_log and extent[0] <= 0):
            return None
        return Scale(*extent, is_log=is_log)

    def _fitted(self, extent: Extent | None, *, is_log: bool) -> Scale:
        low, high = extent or (math.nan, math.nan)
        return fitted(low, high, self._most, is_log=is_log)

    def _y(self, value: float, scale: Scale) -> int | None:
        place = scale.place(value)
        # far beyond, where a line still leads to it, is as good as just beyond
        return None if place is None else round((1 - min(max(place, -1.0), 2.0)) * (self._rows * DOTS_DOWN - 1))

    def _row(self, value: float) -> int:
        y = self._y(value, self._scale)
        return -1 if y is None else y // DOTS_DOWN

    def _column(self, time: int) -> int:
        x = (time - self._start) * self._columns // max(self._stop - self._start, 1)
        return self._columns - 1 if time == self._stop else x

    def _draw_limits(self) -> None:
        newest = self._book.series[self._view.selected].newest
        limits = None if newest is None else newest.limits
        if limits is None:
            return
        for extent, style in ((limits.warning, "minor"), (limits.alarm, "major")):
            for value in extent or ():
                y = self._y(value, self._scale)
                if y is not None:
                    self._canvas.dashes(y, style)

    def _draw_curve(self, index: int, extents: Sequence[Extent | None], scale: Scale) -> None:
        style = f"curve{index % STYLES}"
        last: int | None = None
        for x, extent in enumerate(extents):
            if extent is None:
                continue
            top = self._y(extent[1], scale)
            bottom = self._y(extent[0], scale)
            if top is None:  # on a logarithmic scale nothing of it is above 0
                continue
            self._canvas.upright(x, top, self._canvas.height if bottom is None else bottom, style)
            last = top
        if last is not None:
            row = min(max(last // DOTS_DOWN, 0), self._rows - 1)
            self._ends[row] = self._ends.get(row, "") + letter(index)

    def lines(self) -> list[Line]:
        """Returns the lines of curves and axes."""
        own = f"curve{self._view.selected % STYLES}" if self._view.own else "axis"
        found: list[Line] = []
        for row, cells in enumerate(self._canvas.lines()):
            text = self._ticks.get(row)
            head: list[Span] = [((text or "").rjust(self._head), own), (" ┤" if text else " │", "axis")]
            found.append([*head, *cells, (f" {self._ends.get(row, '')[: _MARGIN - 1]}", "strong")])
        times = time_ticks(self._start, self._stop, self._columns // _COLUMNS_PER_TICK)
        ticks = [(self._column(time), text) for time, text in times]
        return [*found, *axis_lines(ticks, self._columns, self._head)]


def _union(extents: Sequence[Extent | None], *, is_log: bool) -> Extent | None:
    """Returns the range that contains several; on a logarithmic scale that of what is above 0."""
    ends = [end for extent in extents if extent is not None for end in extent if end > 0 or not is_log]
    return (min(ends), max(ends)) if ends else None


def _legend(book: SeriesBook, view: View, now: int) -> list[Line]:
    start, stop = view.window(now)
    time = view.cursor if view.cursor is not None and start <= view.cursor <= stop else None
    entries = [_entry(series, stop if time is None and view.end is not None else time) for series in book.series]
    names = [f"{letter(index)} {curve.name}" for index, curve in enumerate(book.curves)]
    texts = aligned([[name, value] for name, (value, _) in zip(names, entries, strict=True)])
    lines: list[Line] = []
    if time is not None:
        lines.append([(f"at {local_time(time)}", "cursor")])
    for index, (text, (_, severity)) in enumerate(zip(texts, entries, strict=True)):
        mark = ">" if index == view.selected and len(book.curves) > 1 else " "
        line: Line = [(mark, "axis"), (text, f"curve{index % STYLES}")]
        if severity is not Severity.NO_ALARM and severity is not None:
            line.append((f"  {severity.name}", _SEVERITIES[severity]))
        lines.append(line)
    return lines


def _entry(series: Series, time: int | None) -> tuple[str, Severity | None]:
    """Returns a PV's value with units, at a time or the newest, and its severity."""
    newest = series.newest
    if newest is None:
        return "not connected" if series.is_lost else "no value", None
    if time is None:
        value = f"{format_value(newest)} {newest.units}".rstrip()
        return (f"not connected, was {value}", None) if series.is_lost else (value, newest.severity)
    there = series.at(time)
    if there is None:
        return "no value", None
    return f"{format_number(there[0], newest.precision)} {newest.units}".rstrip(), there[1]
