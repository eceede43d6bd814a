"""Files of saved PV values: CSV or JSON, with units and times, which people read and edit.

Values are kept exactly: numbers with all their digits, enums by label. Arrays are JSON, in CSV too.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from k2eg.cli.printing.formatting import jsonable, utc_time
from k2eg_rx import PVAddress, PVData, Severity
from k2eg_rx.texts import shown

COLUMNS = ("pv", "value", "units", "severity", "time")
_NO_VALUE = "NO_VALUE"  # instead of a severity
_VERSION = 1
_LARGEST = 256 * 1024 * 1024  # bytes of a file: thousands of times those of a facility's settings


@dataclass(frozen=True, slots=True)
class SavedValue:
    """A PV's value in a file.

    Attributes:
        uri: The PV.
        value: A number, text, label or list; of CSV, the text of the cell.
        units: Engineering units.
        severity: The severity's name; empty if the file has none.
        time: EPICS time as text; empty without one.
        is_text: Whether `value` is the text of a cell, whose type is that of the PV.
        has_value: Whether the PV had a value when the file was written.
    """

    uri: str
    value: object
    units: str = ""
    severity: str = ""
    time: str = ""
    is_text: bool = False
    has_value: bool = True

    @property
    def record(self) -> str:
        """The record that a put to the PV writes: `X` and `X.VAL` are one, over either protocol."""
        return PVAddress.parse(self.uri).name.removesuffix(".VAL")

    @property
    def has_meaning(self) -> bool:
        """Whether the value was valid when it was saved."""
        return self.severity not in (Severity.INVALID.name, Severity.UNDEFINED.name)


def saved(uri: str, data: PVData | None) -> SavedValue:
    """Returns a PV's value for a file; without data, an entry that says so."""
    if data is None:
        return SavedValue(uri, None, severity=_NO_VALUE, has_value=False)
    value = jsonable(data.value) if data.label is None else data.label
    return SavedValue(uri, value, data.units, data.severity.name, utc_time(data.timestamp) or "")


def form_of(path: str) -> str:
    """Returns ``csv`` or ``json``, by the end of a file's name.

    Raises:
        ValueError: It ends otherwise.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".json"):
        raise ValueError(f"the name of a file of saved values must end with .csv or .json, got {shown(path)}")
    return ending[1:]


def text_of(values: Sequence[SavedValue], form: str, taken: str) -> str:
    """Returns the text of a file.

    Args:
        values: The values.
        form: ``csv`` or ``json``.
        taken: When they were taken.
    """
    if form == "json":
        rows = ",\n".join(f"  {json.dumps(_object(value))}" for value in values)
        return f'{{"k2eg_saved_values": {_VERSION}, "taken": {json.dumps(taken)}, "pvs": [\n{rows}\n]}}\n'
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for value in values:
        writer.writerow([value.uri, _cell(value.value), value.units, value.severity, value.time])
    return out.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else json.dumps(value)


def _object(value: SavedValue) -> dict[str, object]:
    about = {"units": value.units, "severity": value.severity, "time": value.time}
    return {"pv": value.uri} | ({"value": value.value} if value.has_value else {}) | about


def write_new(path: str, text: str) -> None:
    """Writes a file that must not exist; it is complete, or not there.

    Raises:
        ValueError: It exists, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8", newline="") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                Path(path).unlink()
                raise
    except FileExistsError:
        raise ValueError(f"{path} exists already; choose another name, nothing is overwritten") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None


def read_saved(path: str) -> list[SavedValue]:
    """Returns the values of a file, in its order.

    Raises:
        ValueError: It cannot be read, is malformed, or has a PV twice; the text says where.
    """
    form = form_of(path)
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise ValueError(f"{path} has more than {_LARGEST} bytes")
        text = Path(path).read_text(encoding="utf-8-sig")  # spreadsheets write a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return _without_repeats(path, _of_json(path, text) if form == "json" else _of_csv(path, text))


def _without_repeats(path: str, rows: Iterable[tuple[str, SavedValue]]) -> list[SavedValue]:
    found: dict[str, tuple[str, SavedValue]] = {}
    for place, value in rows:
        if value.record in found:
            first, before = found[value.record]
            raise ValueError(f"{path}, {place}: {value.uri} is {before.uri} of {first} again; remove one of them")
        found[value.record] = (place, value)
    if not found:
        raise ValueError(f"{path} has no PVs")
    return [value for _, value in found.values()]


def _uri(path: str, place: str, text: object) -> str:
    try:
        return PVAddress.parse(cast("str", text)).uri
    except ValueError as error:
        raise ValueError(f"{path}, {place}: {error}") from None


def _of_csv(path: str, text: str) -> Iterable[tuple[str, SavedValue]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = {"pv", "value"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: the first line must name the columns {', '.join(COLUMNS)}")
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row or row["value"] is None:
                raise ValueError(f"{path}, {place}: it must have {len(reader.fieldnames or ())} cells")
            units, severity, time = (row.get(name) or "" for name in COLUMNS[2:])
            uri = _uri(path, place, row["pv"].strip())
            yield place, SavedValue(uri, row["value"], units, severity, time, True, severity != _NO_VALUE)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _of_json(path: str, text: str) -> Iterable[tuple[str, SavedValue]]:
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(whole, dict) or cast("dict[str, Any]", whole).get("k2eg_saved_values") != _VERSION:
        raise ValueError(f"{path} is no file of saved values, version {_VERSION}")
    rows: Any = cast("dict[str, Any]", whole).get("pvs")
    for number, row in enumerate(cast("list[Any]", rows) if isinstance(rows, list) else [], 1):
        place = f"entry {number}"
        if not isinstance(row, Mapping):
            raise ValueError(f"{path}, {place}: it must be an object")
        fields = cast("Mapping[str, Any]", row)
        units, severity, time = (str(fields.get(name) or "") for name in COLUMNS[2:])
        has_value = "value" in fields and severity != _NO_VALUE
        uri = _uri(path, place, fields.get("pv"))
        yield place, SavedValue(uri, fields.get("value"), units, severity, time, False, has_value)
