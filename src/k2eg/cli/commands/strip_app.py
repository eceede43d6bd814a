"""The strip chart on a terminal, by textual: keys, and drawing twice a second.

Thread safety: the main thread runs the application; `StripApp.fail` may be called on any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Footer, Static

from k2eg.cli.charts.chart import chart_lines
from k2eg.cli.charts.chart_export import export_csv, export_png
from k2eg.cli.charts.series import SeriesBook
from k2eg.cli.charts.view import View
from k2eg.cli.printing.formatting import printable
from k2eg.cli.printing.live_rows import format_age
from k2eg.cli.printing.status_text import status_text
from k2eg_rx import Status

_REDRAW_SECONDS = 0.5  # five PVs of 60,000 values each take 0.1 s of processor time
_PAN = 0.25  # of the width
_STEP = 0.01  # of the width, about a column
_COLOURS = {
    **{f"curve{index}": colour for index, colour in enumerate(("cyan", "yellow", "magenta", "green", "blue", "red"))},
    "axis": "",
    "cursor": "bold",
    "strong": "bold",
    "minor": "yellow",
    "major": "bold red",
    "invalid": "bold magenta",
}


class Chart(Widget):
    """The chart, drawn to its size.

    Args:
        draw: Returns the chart for a width and a height.
    """

    def __init__(self, draw: Callable[[int, int], Text]) -> None:
        super().__init__()
        self._draw = draw

    def render(self) -> Text:
        """Returns what the widget shows."""
        return self._draw(self.size.width, self.size.height)


class StripApp(App[None]):
    """The application.

    Args:
        book: The data.
        view: What to show first.
        status: Returns the client's status.
        clock: Returns the time in nanoseconds since the Unix epoch.
        folder: Where exports go.
        is_over: Returns whether a signal asks for the end.

    Attributes:
        view: What is shown.
        error: The error that ended a stream.
    """

    CSS = "Chart { height: 1fr; } #state { height: 1; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit", priority=True),
        Binding("ctrl+z", "suspend_process", priority=True, show=False),
        Binding("space", "pause", "pause"),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+"),
        Binding("minus", "zoom(2.0)", "out", key_display="-"),
        Binding("left", "pan(-1)", "earlier"),
        Binding("right", "pan(1)", "later"),
        Binding("comma", "point(-1)", "cursor", key_display=", ."),
        Binding("full_stop", "point(1)", "cursor right", show=False),
        Binding("less_than_sign", "point(-10)", "cursor far left", show=False),
        Binding("greater_than_sign", "point(10)", "cursor far right", show=False),
        Binding("escape", "live", "live"),
        Binding("tab", "next", "next PV", priority=True),
        Binding("o", "own", "own scales"),
        Binding("l", "log", "log"),
        Binding("e", "export", "CSV"),
        Binding("p", "picture", "PNG"),
    ]

    def __init__(
        self,
        book: SeriesBook,
        view: View,
        status: Callable[[], Status],
        *,
        clock: Callable[[], int] = time.time_ns,
        folder: Path | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._book, self._status, self._clock = book, status, clock
        self._folder = folder or Path()
        self._chart = Chart(self._drawn)
        self._state = Static(id="state", markup=False)
        self.view = view
        self._is_over = is_over
        self.error: Exception | None = None

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        yield self._chart
        yield self._state
        yield Footer()

    def on_mount(self) -> None:
        """Starts drawing."""
        self.set_interval(_REDRAW_SECONDS, self._redraw)
        self._redraw()

    def fail(self, error: Exception) -> None:
        """Ends the application with the error of a stream, at the next drawing. Any thread."""
        self.error = self.error or error

    def _redraw(self) -> None:
        if self.error is not None or self._is_over():
            self.exit()
            return
        self._chart.refresh()
        view = self.view
        moves = "live" if view.end is None else f"paused, {format_age((self._clock() - view.end) / 1e9)} ago"
        scales = ("own scales" if view.own else "one scale") + (", log" if view.is_log else "")
        self._state.update(f"{moves}  {format_age(view.span)} wide  {scales}  {status_text(self._status())}")

    def _drawn(self, columns: int, rows: int) -> Text:
        text = Text(no_wrap=True, end="")
        for number, line in enumerate(chart_lines(self._book, self.view, self._clock(), columns, rows)):
            text.append("\n" if number else "")
            for part, style in line:
                text.append(printable(part), _COLOURS[style] if style else "")
        return text

    def _show(self, view: View) -> None:
        self.view = view
        self._redraw()

    def action_pause(self) -> None:
        """Holds the chart, or lets it go on."""
        self._show(self.view.paused(self._clock()))

    def action_zoom(self, factor: float) -> None:
        """Shows a shorter or a longer time."""
        self._show(self.view.zoomed(self._clock(), factor))

    def action_pan(self, steps: int) -> None:
        """Moves in time."""
        self._show(self.view.panned(self._clock(), steps * _PAN))

    def action_point(self, steps: int) -> None:
        """Moves the cursor."""
        self._show(self.view.pointed(self._clock(), steps * _STEP))

    def action_live(self) -> None:
        """Removes the cursor and shows the present."""
        self._show(replace(self.view, cursor=None, end=None))

    def action_next(self) -> None:
        """Selects the next PV."""
        self._show(self.view.next(len(self._book.curves)))

    def action_own(self) -> None:
        """Changes between a scale for each PV and one for all."""
        self._show(replace(self.view, own=not self.view.own))

    def action_log(self) -> None:
        """Changes between linear and logarithmic scales."""
        self._show(replace(self.view, is_log=not self.view.is_log))

    def action_export(self) -> None:
        """Writes the values that are shown to a file, and says where."""
        start, stop = self.view.window(self._clock())

        def write(path: Path) -> str:
            return f"{export_csv(self._book, path, start, stop)} values in {path}"

        self._write(write, "csv")

    def action_picture(self) -> None:
        """Writes the chart to a file, and says where."""

        def write(path: Path) -> str:
            export_png(self._book, self.view, self._clock(), path)
            return f"the chart is in {path}"

        self._write(write, "png")

    def _write(self, write: Callable[[Path], str], suffix: str) -> None:
        path = self._folder / f"k2eg-strip-{datetime.now():%Y%m%d-%H%M%S}.{suffix}"
        try:
            note = write(path)
        except OSError as error:
            self.notify(f"{path} cannot be written: {error.strerror}", severity="error", markup=False)
        except ModuleNotFoundError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(note, markup=False)
