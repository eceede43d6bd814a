"""The live table on a terminal, by textual.

Thread safety: the main thread runs the application; `TopApp.fail` may be called on any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Input, Static

from k2eg.cli.printing.status_text import status_text
from k2eg.cli.printing.top_rows import SORTS, TopRows, chosen
from k2eg.cli.printing.top_table import table_lines
from k2eg_rx import Status

_REDRAW_SECONDS = 0.5  # numbers that change faster cannot be read
_COLOURS = {"heading": "bold", "minor": "yellow", "major": "bold red", "invalid": "bold magenta", "dim": "dim"}


class TopApp(App[None]):
    """The application.

    Args:
        rows: The data.
        status: Returns the client's status.
        alarms: Whether to show only what is in alarm at first.
        sort: The order at first.
        clock: Returns the time in nanoseconds since the Unix epoch.
        monotonic: Returns the monotonic time in seconds.
        is_over: Returns whether a signal asks for the end.

    Attributes:
        error: The error that ended a stream.
    """

    CSS = "#table { height: 1fr; } #state { height: 1; } #filter { display: none; }"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", "quit", priority=True, show=False),
        Binding("ctrl+z", "suspend_process", priority=True, show=False),
        Binding("q", "quit", "quit"),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("a", "alarms", "alarms only"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "clear", "all PVs"),
        Binding("down", "scroll(1)", "down", show=False),
        Binding("up", "scroll(-1)", "up", show=False),
        Binding("pagedown,space", "page(1)", "page down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
    ]

    def __init__(
        self,
        rows: TopRows,
        status: Callable[[], Status],
        *,
        alarms: bool = False,
        sort: str = SORTS[0],
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._rows, self._status, self._clock, self._monotonic = rows, status, clock, monotonic
        self._table = Static(id="table", markup=False)
        self._state = Static(id="state", markup=False)
        self._input = Input(placeholder="part of a name", id="filter")
        self._alarms, self._sort, self._reverse, self._text, self._first = alarms, sort, False, "", 0
        self._is_over = is_over
        self.error: Exception | None = None

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        yield self._table
        yield self._input
        yield self._state
        yield Footer()

    def on_mount(self) -> None:
        """Starts drawing."""
        self.set_interval(_REDRAW_SECONDS, self.redraw)
        self.call_after_refresh(self.redraw)

    def fail(self, error: Exception) -> None:
        """Ends the application with the error of a stream, at the next drawing. Any thread."""
        self.error = self.error or error

    def redraw(self) -> None:
        """Draws the table and the state."""
        if self.error is not None or self._is_over():
            self.exit()
            return
        every = self._rows.rows(self._monotonic())
        rows = chosen(every, sort=self._sort, reverse=self._reverse, text=self._text, alarms=self._alarms)
        height = max(self._table.size.height - 1, 1)
        self._first = min(self._first, max(len(rows) - height, 0))
        shown = rows[self._first : self._first + height]
        text = Text(no_wrap=True)
        for number, (line, style) in enumerate(table_lines(shown, self._clock(), max(self._table.size.width, 1))):
            text.append("\n" if number else "")
            text.append(line, _COLOURS.get(style, ""))
        self._table.update(text)
        where = f"{self._first + 1}-{self._first + len(shown)} of " if len(shown) < len(rows) else ""
        order = f"by {self._sort}" + (", reversed" if self._reverse else "") if self._sort != SORTS[0] else "as given"
        parts = [f"{where}{len(rows)} of {len(every)} PVs", order, "alarms only" if self._alarms else ""]
        self._state.update("  ".join(part for part in [*parts, status_text(self._status())] if part))

    def action_sort(self) -> None:
        """Takes the next order."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self.redraw()

    def action_reverse(self) -> None:
        """Reverses the order."""
        self._reverse = not self._reverse
        self.redraw()

    def action_alarms(self) -> None:
        """Shows only what is in alarm, or all PVs."""
        self._alarms = not self._alarms
        self.redraw()

    def action_filter(self) -> None:
        """Asks for a part of the names."""
        self._input.display = True
        self._input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Shows the PVs whose names have it."""
        self._text = event.value.strip()
        self.redraw()

    def on_input_submitted(self) -> None:
        """Closes the input and keeps what it says."""
        self._input.display = False
        self.set_focus(None)

    def action_clear(self) -> None:
        """Shows all PVs."""
        self._input.value = ""
        self._alarms = False
        self.on_input_submitted()
        self.redraw()

    def action_scroll(self, lines: int) -> None:
        """Moves by lines."""
        self._first = max(self._first + lines, 0)
        self.redraw()

    def action_page(self, pages: int) -> None:
        """Moves by pages."""
        self.action_scroll(pages * max(self._table.size.height - 1, 1))
