"""``k2eg plot``: shows a waveform or an image once, on the terminal or as a picture in a file.

Thread safety: main thread only.
"""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reactivex import operators as ops

from k2eg.cli.charts.canvas import Line, coloured
from k2eg.cli.charts.chart_export import png_figure, save_png
from k2eg.cli.charts.pictures import is_image, picture_lines, picture_of
from k2eg.cli.charts.thinning import Point, elements_of
from k2eg.cli.charts.waveform import waveform_lines
from k2eg.cli.commands.reading import answers, failure_of, fallback_note
from k2eg.cli.output import has_colours, print_note, print_spans
from k2eg.cli.printing.formatting import format_alarm, local_time, printable
from k2eg.cli.printing.value_style import image_text
from k2eg.cli.session import CommandError, open_connected_client
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import PVData, Settings, first
from k2eg_rx.errors import require_extra

_SMALLEST = (40, 10)  # columns and rows where there is no terminal
_PICTURE_PIXELS = 4096  # of an image in a file, in both directions: more is thinned


def plot(arguments: Namespace, settings: Settings) -> None:
    """Shows a PV's array or image.

    Raises:
        CommandError: The PV could not be read, has another kind of value, or the file cannot be written.
        ModuleNotFoundError: matplotlib is not installed, which files need.
    """
    if arguments.output:
        require_extra("examples", ["matplotlib"], "`k2eg plot -o`")
    with open_connected_client(settings, arguments) as client:
        targets = targets_of([arguments.name], arguments, settings)
        found = first(answers(client, targets, arguments.timeout).pipe(ops.to_list()))
        if note := fallback_note(found):
            print_note(note)
        if failure := failure_of(found, client):
            raise failure
    (data,) = (answer.data for answer in found if answer.data is not None)
    points = None if is_image(data.data) else elements_of(data.value)
    if points is None and not is_image(data.data):
        instead = "`k2eg strip` draws it over time" if not isinstance(data.value, list | dict) else "see `k2eg get`"
        raise CommandError(f"{data.name} is neither an array of numbers nor an image: {instead}")
    try:
        if arguments.output:
            _write(data, points, arguments.output)
        else:
            _show(data, points)
    except ValueError as error:
        raise CommandError(f"{data.name}: {error}") from None


def _title(data: PVData, points: Sequence[Point] | None) -> str:
    what = image_text(data.data) or f"{len(points or ())} values"
    time = "" if data.timestamp is None else local_time(data.timestamp)
    parts = (printable(data.name), time, what, printable(data.units), format_alarm(data))
    return "  ".join(part for part in parts if part)


def _show(data: PVData, points: Sequence[Point] | None) -> None:
    columns, rows = map(max, shutil.get_terminal_size(), _SMALLEST)
    rows = min(rows - 2, 40)  # lines for the title and the prompt
    lines: list[Line] = [[(_title(data, points), "1")]]
    if points is None:
        lines += picture_lines(data.data, columns, rows, coloured=has_colours())
    else:
        lines += map(coloured, waveform_lines(points, columns, rows))
    print_spans(lines)


def _write(data: PVData, points: Sequence[Point] | None, file: str) -> None:
    figure = png_figure("`k2eg plot -o`")
    axes: Any = figure.add_subplot()
    axes.set_title(_title(data, points), fontsize=9, parse_math=False)
    if points is None:
        _draw_image(figure, axes, data.data)
    else:
        axes.plot([place for place, _ in points], [value for _, value in points], linewidth=1)
        axes.set_xlabel("index")
        axes.set_ylabel(printable(data.units), parse_math=False)
    try:
        save_png(figure, Path(file))
    except FileExistsError:
        raise CommandError(f"{file} exists; choose another name") from None
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from None


def _draw_image(figure: Any, axes: Any, structure: Mapping[str, Any]) -> None:
    picture = picture_of(structure, _PICTURE_PIXELS, _PICTURE_PIXELS)
    width, height = picture.size
    per_row = picture.width * picture.channels
    rows = [picture.pixels[start : start + per_row] for start in range(0, len(picture.pixels), per_row)]
    shown: Any = [list(row) for row in rows]
    if picture.channels > 1:
        shown = [[list(row[place : place + 3]) for place in range(0, len(row), 3)] for row in rows]
        axes.imshow(shown, extent=(0, width, height, 0), interpolation="nearest")
        return
    span = picture.high - picture.low
    scaled = [[picture.low + pixel * span / 255 for pixel in row] for row in shown] if math.isfinite(span) else shown
    drawn = axes.imshow(scaled, extent=(0, width, height, 0), interpolation="nearest", cmap="viridis")
    figure.colorbar(drawn)
