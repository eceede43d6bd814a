"""PVs as HTML, for notebooks. All text of a PV is escaped.

Thread safety: there is no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from k2eg_rx.protocol.fields import alarm_of, columns_of, format_number, label_of, limits_of, summary
from k2eg_rx.protocol.structures import Severity, Structure, datetime_of, timestamp_of
from k2eg_rx.texts import Cell, html_table

PV_COLUMNS = ("PV", "value", "severity", "time")
"""The header of a table whose rows are those of `pv_row`."""

_MOST_PVS = 200  # rows of a snapshot's table: more are not read in a notebook
_MOST_ROWS = 10  # of an NTTable
_MOST_ELEMENTS = 5  # of an array
# Readable on white and on black.
_STYLES = {
    Severity.MINOR: "color:#b58900;font-weight:bold",
    Severity.MAJOR: "color:#dc322f;font-weight:bold",
    Severity.INVALID: "color:#d33682;font-weight:bold",
    Severity.UNDEFINED: "color:#d33682;font-weight:bold",
}


def value_text(structure: Structure) -> str:
    """Returns a value in a line: a number with units, a label, a text, the first elements of an array."""
    value = structure.get("value")
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        elements = cast("list[object]", value)
        first = ", ".join(_element(element) for element in elements[:_MOST_ELEMENTS])
        return f"{summary(structure)}: {first}{', ...' if len(elements) > _MOST_ELEMENTS else ''}"
    return label_of(structure) or summary(structure)


def _element(element: object) -> str:
    return format_number(element) if isinstance(element, int | float) else str(element)


def severity_cell(structure: Structure) -> Cell:
    """Returns the cell of an alarm, in its severity's colour."""
    alarm = alarm_of(structure)
    return f"{alarm.severity.name} {alarm.message}".rstrip(), _STYLES.get(alarm.severity, "")


def time_text(timestamp: int | None) -> str:
    """Returns an EPICS time to the millisecond, in UTC."""
    time = datetime_of(timestamp)
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}Z" if time else ""


def pv_row(name: str, structure: Structure) -> tuple[Cell, ...]:
    """Returns a PV's row of a table with `PV_COLUMNS`."""
    return name, value_text(structure), severity_cell(structure), time_text(timestamp_of(structure))


def pvs_html(pvs: Mapping[str, Structure | None], caption: str) -> str:
    """Returns a table of PVs; those without data have an empty row."""
    rows = [
        (name, "no data", "", "") if structure is None else pv_row(name, structure)
        for name, structure in list(pvs.items())[:_MOST_PVS]
    ]
    if len(pvs) > _MOST_PVS:
        rows.append((f"... and {len(pvs) - _MOST_PVS} more", "", "", ""))
    return html_table(rows, PV_COLUMNS, caption)


def pv_html(name: str, structure: Structure) -> str:
    """Returns a table of what a PV says of itself, and behind it the rows of an NTTable."""
    rows: list[tuple[Cell, ...]] = [("value", value_text(structure)), ("severity", severity_cell(structure))]
    rows.append(("time", time_text(timestamp_of(structure)) or "none"))
    display = structure.get("display")
    about = cast("Mapping[str, Any]", display).get("description") if isinstance(display, dict) else None
    if isinstance(about, str) and about:
        rows.append(("description", about))
    limits = limits_of(structure)
    for kind in ("control", "warning", "alarm"):
        if limits is not None and (ends := getattr(limits, kind)) is not None:
            rows.append((f"{kind} limits", " to ".join(map(_element, ends))))
    columns = columns_of(structure)
    shown = html_table(_table_rows(columns), list(columns)) if columns else ""
    return html_table(rows, [name, ""]) + shown


def _table_rows(columns: Mapping[str, list[Any]]) -> Iterator[tuple[str, ...]]:
    length = max(map(len, columns.values()))
    for at in range(min(length, _MOST_ROWS)):
        yield tuple(_element(column[at]) if at < len(column) else "" for column in columns.values())
    if length > _MOST_ROWS:
        yield (f"... and {length - _MOST_ROWS} more rows", *[""] * (len(columns) - 1))
