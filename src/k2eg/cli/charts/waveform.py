"""Draws an array as a curve over its indices, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from k2eg.cli.charts.canvas import DOTS_DOWN, Canvas, Line, axis_lines
from k2eg.cli.charts.scales import Scale, fitted
from k2eg.cli.charts.thinning import Point, thinned

_ROWS_PER_TICK = 4
_COLUMNS_PER_TICK = 12
_LEAST_COLUMNS = 10
_LEAST_ROWS = 4


def waveform_lines(points: Sequence[Point], columns: int, rows: int) -> list[Line]:
    """Returns the lines of a chart.

    Args:
        points: Index and value of each element, not none; NaN for a gap.
        columns: Width of the terminal.
        rows: Its height.
    """
    rows = max(rows - 2, _LEAST_ROWS)
    numbers = [value for _, value in points if not math.isnan(value)]
    most = max(2, rows // _ROWS_PER_TICK + 1)
    scale = fitted(min(numbers, default=math.nan), max(numbers, default=math.nan), most)

    def y_of(value: float) -> int:
        return round((1 - (scale.place(value) or 0.0)) * (rows * DOTS_DOWN - 1))

    ticks = {y_of(value) // DOTS_DOWN: text for value, text in scale.ticks(most)}
    head = max(map(len, ticks.values()), default=1)
    columns = max(columns - head - 2, _LEAST_COLUMNS)
    canvas = Canvas(columns, rows)
    last = max(len(points) - 1, 1)
    before: tuple[int, int] | None = None
    for index, value in thinned(points, canvas.width * 4):
        if math.isnan(value):
            before = None
            continue
        place = round(index * (canvas.width - 1) / last), y_of(value)
        _line(canvas, before or place, place)
        before = place
    lines: list[Line] = [
        [(f"{ticks.get(row, '').rjust(head)}{' ┤' if row in ticks else ' │'}", "axis"), *cells]
        for row, cells in enumerate(canvas.lines())
    ]
    indices = Scale(0.0, last).ticks(max(columns // _COLUMNS_PER_TICK, 2))
    below = [(round(index * (columns - 1) / last), text) for index, text in indices if index == int(index)]
    return [*lines, *axis_lines(below, columns, head)]


def _line(canvas: Canvas, start: tuple[int, int], stop: tuple[int, int]) -> None:
    """Draws a line from left to right; both ends included."""
    (left, first), (right, last) = start, stop
    across = right - left
    if not across:
        canvas.upright(left, first, last, "curve0")
    rise = (last - first) / max(across, 1)
    for step in range(across):
        canvas.upright(left + step + 1, round(first + rise * step), round(first + rise * (step + 1)), "curve0")
