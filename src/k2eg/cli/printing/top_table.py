"""The table of `k2eg top` as lines of text; a narrow terminal gets fewer columns, the value is the last to go."""

from __future__ import annotations

from collections.abc import Sequence

from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.live_rows import format_age, format_rate
from k2eg.cli.printing.top_rows import TopRow
from k2eg_rx import Severity

_HEADINGS = ("PV", "value", "units", "severity", "since", "age", "rate", "trend")
_LEFT_OUT = (7, 4, 6, 2, 5, 3)  # columns, in the order in which a narrow terminal loses them
_STYLES = {Severity.MINOR: "minor", Severity.MAJOR: "major", Severity.INVALID: "invalid", Severity.UNDEFINED: "invalid"}
_RIGHT = (1, 4, 5, 6)
_VALUE = 30  # columns of a value; an array has more


def _cells(row: TopRow, now: int) -> list[str]:
    severity = row.state or ("" if row.severity is Severity.NO_ALARM else row.severity.name)
    since = "" if row.alarm_since is None else format_age((now - row.alarm_since) / 1e9)
    age = format_age(row.age) if row.value else ""
    return [row.name, _cut(row.value, _VALUE), row.units, severity, since, age, format_rate(row.rate), row.trend]


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: max(columns - 1, 0)]}…"


def style_of(row: TopRow) -> str:
    """Returns the style of a row: of its alarm, or ``dim`` where its value is old."""
    if row.state:
        return "dim"
    return _STYLES.get(row.severity, "")


def table_lines(rows: Sequence[TopRow], now: int, columns: int) -> list[tuple[str, str]]:
    """Returns the heading and a line for each row, with their styles.

    Args:
        rows: The rows.
        now: The present time in nanoseconds since the Unix epoch.
        columns: Width of the terminal.
    """
    cells = [list(_HEADINGS), *(_cells(row, now) for row in rows)]
    kept = [index for index in range(len(_HEADINGS)) if index < 2 or any(line[index] for line in cells[1:])]
    lines = _laid_out(cells, kept)
    for column in _LEFT_OUT:
        if max(map(len, lines)) <= columns:
            break
        kept = [index for index in kept if index != column]
        lines = _laid_out(cells, kept)
    widest = max(map(len, lines))
    if widest > columns:  # the name gives way, down to a few of its letters
        name = max(max(len(line[0]) for line in cells) - (widest - columns), 6)
        lines = _laid_out([[_cut(line[0], name), *line[1:]] for line in cells], kept)
    styles = ["heading", *map(style_of, rows)]
    return [(_cut(line, columns), style) for line, style in zip(lines, styles, strict=True)]


def _laid_out(cells: Sequence[Sequence[str]], kept: Sequence[int]) -> list[str]:
    right = [kept.index(column) for column in _RIGHT if column in kept]
    return aligned([[line[index] for index in kept] for line in cells], right)
