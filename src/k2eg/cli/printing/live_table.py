"""The demo's live table, drawn by rich; imported only if standard output is a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from k2eg.cli.printing.formatting import format_value, printable
from k2eg.cli.printing.live_rows import LiveRow, format_age, format_rate, sparkline
from k2eg_rx import PVAddress, Severity

_NANOSECONDS = 1_000_000_000
_SPARK_WIDTH = 28  # the rest of an 80-column terminal

_STYLES = {
    Severity.NO_ALARM: "green",
    Severity.MINOR: "yellow",
    Severity.MAJOR: "bold red",
    Severity.INVALID: "bold magenta",
    Severity.UNDEFINED: "magenta",
}


def value_text(row: LiveRow) -> str:
    """Returns a row's value in a few characters: a numeric array as a sparkline."""
    if row.data is None:
        return "waiting ..."
    value = row.data.value
    if isinstance(value, list) and value:
        elements = cast("list[object]", value)
        numbers = [element for element in elements if isinstance(element, int | float)]
        if len(numbers) == len(elements):
            return sparkline(numbers, _SPARK_WIDTH)
    return format_value(row.data)


def _cells(address: PVAddress, row: LiveRow, now: int) -> list[RenderableType]:
    name = Text.assemble((f"{address.protocol}://", "dim"), address.name)
    if row.data is None:
        return [name, Text(value_text(row), "dim"), "", "", "", ""]
    severity, timestamp = row.data.severity, row.data.timestamp
    style = _STYLES[severity]
    age = "" if timestamp is None else format_age((now - timestamp) / _NANOSECONDS)
    return [
        name,
        Text(value_text(row), style if severity is not Severity.NO_ALARM else ""),
        Text(printable(row.data.units)),
        Text(severity.name, style),
        age,
        format_rate(row.rate),
    ]


def live_table(
    heading: Sequence[str], addresses: Sequence[PVAddress], rows: Sequence[LiveRow], now: int
) -> RenderableType:
    """Returns the display: heading lines and a table with a row for each PV.

    Args:
        heading: The lines above the table.
        addresses: The PVs, in the order of the rows.
        rows: Their values.
        now: Nanoseconds since the Unix epoch, to compute the values' age.
    """
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("PV", no_wrap=True)
    table.add_column("value", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("units", no_wrap=True)
    table.add_column("severity", no_wrap=True, min_width=len(Severity.NO_ALARM.name))
    table.add_column("age", justify="right", no_wrap=True, min_width=6)
    table.add_column("rate", justify="right", no_wrap=True, min_width=6)
    for address, row in zip(addresses, rows, strict=True):
        table.add_row(*_cells(address, row, now))
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in heading), table)
