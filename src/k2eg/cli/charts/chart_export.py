"""Writes what a chart shows to a file: its values as CSV, the chart as PNG; and figures of matplotlib as PNG."""

from __future__ import annotations

import csv
import itertools
import math
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from k2eg.cli.charts.chart import letter
from k2eg.cli.charts.series import Curve, Series, SeriesBook
from k2eg.cli.charts.view import View
from k2eg.cli.printing.formatting import local_time, printable, utc_time
from k2eg_rx.errors import require_extra
from k2eg_rx.protocol import NANOSECONDS

_INCHES, _DPI = (8.0, 4.5), 100
_LIMITS = (("warning", "goldenrod"), ("alarm", "red"))

Point = tuple[int, float]


class _Drawn(NamedTuple):
    """What is drawn of a PV: a copy, so that updates do not wait for the drawing."""

    curve: Curve
    label: str
    points: list[Point]
    limits: list[tuple[float, str]]


def png_figure(what: str) -> Any:
    """Returns an empty figure.

    Args:
        what: What needs it, for the error.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the text says what to install.
    """
    require_extra("examples", ["matplotlib"], what)
    return import_module("matplotlib.figure").Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")


def save_png(figure: Any, path: Path) -> None:
    """Writes a figure to a new file.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    with path.open("xb") as out:
        figure.savefig(out, format="png")


def export_csv(book: SeriesBook, path: Path, start: int, stop: int) -> int:
    """Writes the values of an interval to a new file; returns their number.

    Args:
        book: The data.
        path: The file, which must not exist.
        start: Nanoseconds since the Unix epoch.
        stop: Likewise.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    rows: list[tuple[int, str, float, str, str]] = []
    with book.lock:
        for curve, series in zip(book.curves, book.series, strict=True):
            units = series.newest.units if series.newest is not None else ""
            rows += [
                (time, curve.name, value, units, severity.name) for time, value, severity in series.rows(start, stop)
            ]
    rows.sort(key=lambda row: row[0])
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("time", "pv", "value", "units", "severity"))
        writer.writerows((utc_time(time), *others) for time, *others in rows)
    return len(rows)


def export_png(book: SeriesBook, view: View, now: int, path: Path) -> None:
    """Draws a chart to a new file: PVs with scales of their own below each other, else together.

    Args:
        book: The data.
        view: What to show.
        now: The present time in nanoseconds since the Unix epoch.
        path: The file, which must not exist.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the text says what to install.
        OSError: The file exists, or cannot be written.
    """
    figure = png_figure("the PNG of `k2eg strip`")
    start, stop = view.window(now)
    with book.lock:
        drawn = [_drawn(book, index, start, min(stop, now)) for index in range(len(book.curves))]
    groups = [[each] for each in drawn] if view.own else [drawn]
    every: Any = figure.subplots(len(groups), sharex=True, squeeze=False)
    for group, axes in zip(groups, every[:, 0], strict=True):
        _draw(axes, group, view, drawn[view.selected])
        axes.set_xlim(_moment(start), _moment(stop))
    figure.suptitle(f"{local_time(start)[:19]} to {local_time(stop)[:19]}", fontsize=9)
    save_png(figure, path)


def _drawn(book: SeriesBook, index: int, start: int, stop: int) -> _Drawn:
    curve, series = book.curves[index], book.series[index]
    newest = series.newest
    units = "" if newest is None else newest.units
    found = None if newest is None else newest.limits
    limits = [(value, colour) for name, colour in _LIMITS for value in (getattr(found, name, None) or ())]
    points = _held(series, start, stop, book.gap_of(series))
    return _Drawn(curve, f"{letter(index)} {printable(curve.name)}  {printable(units)}".rstrip(), points, limits)


def _held(series: Series, start: int, stop: int, gap: int | None) -> list[Point]:
    """Returns times and values for a line whose values hold until the next one; NaN where there is a gap."""
    points: list[Point] = []
    known = [point for point in series.between(start, stop) if point[0] <= stop]
    for (time, value), (until, _) in itertools.pairwise([*known, (stop, math.nan)]):
        points.append((time, value))
        is_gap = gap is not None and until - time > gap
        points.append((time if is_gap else until, math.nan if is_gap else value))
    return points


def _draw(axes: Any, group: list[_Drawn], view: View, selected: _Drawn) -> None:
    lines = [
        axes.plot([_moment(time) for time, _ in each.points], [value for _, value in each.points], linewidth=1)[0]
        for each in group
    ]
    legend = axes.legend(lines, [each.label for each in group], loc="upper left", fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if view.is_log or (view.own and group[0].curve.is_log):
        axes.set_yscale("log", nonpositive="mask")
    if view.own and group[0].curve.extent is not None:
        axes.set_ylim(*group[0].curve.extent)
    axes.set_ylim(*axes.get_ylim())  # limits are drawn where they are in range, and do not extend it
    for value, colour in selected.limits if selected in group else ():
        axes.axhline(value, color=colour, linewidth=1, linestyle="dashed")


def _moment(time: int) -> datetime:
    """Returns local time without a zone, which matplotlib shows as it is."""
    return datetime.fromtimestamp(time / NANOSECONDS)
