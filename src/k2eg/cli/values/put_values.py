"""The value that the words of ``k2eg put`` mean for a PV: by the PV's present value, not by the form of the words."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from k2eg.cli.values.value_parser import parse_value
from k2eg_rx import PVData
from k2eg_rx.errors import require_extra
from k2eg_rx.protocol import columns_of, fields_for
from k2eg_rx.texts import shown

_ASSIGNMENT = re.compile(r"([A-Za-z]\w*(?:\.\w+)*)=(.*)", re.DOTALL)
_HEXADECIMAL = re.compile(r"([+-]?)0x([0-9a-f]+)", re.IGNORECASE)


def value_of(words: Sequence[str], data: PVData, *, is_text: bool = False, is_number: bool = False) -> Any:
    """Returns the value that the words of the command line mean for a PV.

    A text PV takes one word as it is. An enum takes a label, and an index if no label is the same. An array takes
    several words, one with commas, JSON, or a file: ``@wave.npy``, ``@wave.csv``, ``@wave.json``. Other PVs take a
    number, hexadecimal too, JSON, a file, or ``field=value``.

    Args:
        words: The words.
        data: The PV as it is.
        is_text: Whether a word is text even if it looks like a number.
        is_number: Whether a word is an enum's index even if a label is the same.

    Raises:
        ValueError: The words are no such value, or the file cannot be read.
    """
    value: object = data.value
    if isinstance(value, str) or (is_text and not isinstance(value, list)):
        return _one(words, data)
    if len(words) == 1 and (load := _loader_of(words[0])) is not None and not is_text:
        return load(Path(words[0][1:]), columns_of(data.data) is not None)
    fields = None if is_text else _fields(words, data)
    if fields is not None:
        return fields
    if isinstance(value, list | bytes):
        return _array(words, is_text=is_text, is_of_texts=_holds_texts(cast("object", value)))
    word = _one(words, data)
    if data.choices is not None and not is_number:
        label = next((text for text in (word, word.strip()) if text in data.choices), None)
        if label is not None:
            return label
    return _number(word)


def check_value(value: object, data: PVData, uri: str) -> None:
    """Raises ValueError if a value does not fit a PV as it is; the text has the PV, its type, and the reason."""
    if isinstance(value, str) and isinstance(data.value, list | bytes):
        return  # of an array of characters, whose type the value does not show
    fields_for(value, data.data, None, uri)


def parse_tolerance(text: str) -> tuple[float, bool]:
    """Returns a tolerance, and whether it is relative: ``0.5`` or ``1%``.

    Raises:
        ValueError: It is no number of 0 or more.
    """
    number = text.removesuffix("%")
    value = parse_value(number)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"must be a number of 0 or more, or one with %, got {text!r}")
    return (value / 100, True) if number != text else (float(value), False)


def _one(words: Sequence[str], data: PVData) -> str:
    if len(words) != 1:
        hint = ": a text with blanks needs quotes" if isinstance(data.value, str) else ""
        raise ValueError(f"{data.name} takes one value, got {len(words)}{hint}")
    return words[0]


def _number(word: str) -> Any:
    """Returns a number or JSON; text that is neither unchanged."""
    found = _HEXADECIMAL.fullmatch(word.strip())
    return int(found[1] + found[2], 16) if found else parse_value(word)


def _array(words: Sequence[str], *, is_text: bool, is_of_texts: bool) -> Any:
    if len(words) > 1:
        return list(words) if is_text or is_of_texts else [_number(word) for word in words]
    word = words[0]
    if is_text:
        return word
    whole = parse_value(word)
    if isinstance(whole, list | dict):
        return whole
    if is_of_texts:
        return [word]
    parts = word.split(",")
    numbers = [_number(part) for part in parts]
    if any(isinstance(number, str) for number in numbers):
        return word  # text for an array of characters; a mistake for others, which the check says
    return numbers


def _holds_texts(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(part, str) for part in cast("list[object]", value))


def _fields(words: Sequence[str], data: PVData) -> dict[str, Any] | None:
    """Returns the fields that words such as ``value=3`` and ``alarm.severity=1`` name; None if they name none."""
    found = [_ASSIGNMENT.fullmatch(word) for word in words]
    named = [match for match in found if match is not None and match[1].split(".")[0] in data.data]
    if len(named) != len(words):
        return None
    fields: dict[str, Any] = {}
    for match in named:
        *path, last = match[1].split(".")
        place = fields
        for name in path:
            place = place.setdefault(name, {})
        place[last] = _number(match[2])
    return fields


def _loader_of(word: str) -> Callable[[Path, bool], Any] | None:
    loaders = {".npy": _load_npy, ".csv": _load_csv, ".json": _load_json}
    return loaders.get(Path(word).suffix.lower()) if word.startswith("@") else None


def _load_npy(path: Path, is_table: bool) -> Any:  # noqa: ARG001 - a loader
    require_extra("analysis", ["numpy"], "a value from a .npy file")
    import numpy as np  # noqa: PLC0415 - an extra

    try:
        return np.load(path, allow_pickle=False).tolist()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _load_json(path: Path, is_table: bool) -> Any:  # noqa: ARG001 - a loader
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _load_csv(path: Path, is_table: bool) -> Any:
    """Returns the columns of a table by the names in the first line, or all numbers of a file in one list."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not is_table:
        return [_csv_number(cell, path) for row in rows for cell in row]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path}: all lines of a table must have as many cells as the first one, the column names")
    heads, *lines = rows
    return {head.strip(): [_number(line[at]) for line in lines] for at, head in enumerate(heads)}


def _csv_number(cell: str, path: Path) -> Any:
    number = _number(cell.strip())
    if isinstance(number, str):
        raise ValueError(f"{path}: an array's file must have numbers only, got {shown(cell)}")
    return number
