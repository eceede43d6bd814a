"""Compares a value that was written with the one that was read back."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import cast

from k2eg.cli.values.value_parser import parse_value
from k2eg_rx import PVData

Tolerance = tuple[float, bool]  # the difference that is accepted, and whether it is a part of the value that was sent


def is_written(sent: object, read: PVData, tolerance: Tolerance | None = None) -> bool:
    """Returns whether a PV has the value that was sent to it, within a tolerance if it is of numbers.

    An enum may be sent as label or index. A number is rounded as the PV's type rounds it, to a 32-bit float or not. Of
    a structure, the fields that were sent are compared.
    """
    if tolerance is not None and (near := _is_near(sent, read.value, *tolerance)) is not None:
        return near
    data = read.data
    if (fields := _map_of(sent)) and fields.keys() <= data.keys():
        return all(
            _has_value(part, read) if name == "value" else _equal(part, data[name]) for name, part in fields.items()
        )
    return _has_value(sent, read)


def _is_near(sent: object, read: object, limit: float, is_relative: bool) -> bool | None:
    """Returns whether numbers differ by no more than a limit; None if they are no numbers."""
    ours, theirs = _elements_of(sent), _elements_of(read)
    if ours is not None and theirs is not None:
        if len(ours) != len(theirs):
            return False
        near = [_is_near(one, other, limit, is_relative) for one, other in zip(ours, theirs, strict=True)]
        return None if None in near else all(near)
    if not isinstance(sent, int | float) or not isinstance(read, int | float):
        return None
    if not (math.isfinite(sent) and math.isfinite(read)):
        return _equal_numbers(sent, read)
    return abs(read - sent) <= (limit * abs(sent) if is_relative else limit)


def _has_value(sent: object, read: PVData) -> bool:
    choices = read.choices
    if choices is None or _map_of(sent) is not None:
        return _equal(sent, read.value)
    if isinstance(sent, str):
        word = next((text for text in (sent, sent.strip()) if text in choices), None)
        return _equal(parse_value(sent), int(read)) if word is None else choices.index(word) == int(read)
    return _equal(sent, int(read))


def _equal(sent: object, read: object) -> bool:
    fields, parts = _map_of(sent), _map_of(read)
    if fields is not None and parts is not None:
        return all(name in parts and _equal(part, parts[name]) for name, part in fields.items())
    theirs = _elements_of(read)
    if theirs is not None:
        return _equal_elements(sent, theirs)
    if isinstance(sent, str) and isinstance(read, int | float):
        sent = parse_value(sent)
    if isinstance(sent, int | float) and isinstance(read, int | float):
        return _equal_numbers(sent, read)
    return sent == read


def _equal_elements(sent: object, read: list[object]) -> bool:
    """Compares an array, which may hold a text, or one element that was sent by itself."""
    ours = _elements_of(sent)
    if ours is not None:
        return len(ours) == len(read) and all(map(_equal, ours, read))
    if isinstance(sent, str) and read and isinstance(read[0], int):
        return _text_of(read) == sent
    return len(read) == 1 and _equal(sent, read[0])


def _map_of(value: object) -> Mapping[str, object] | None:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def _elements_of(value: object) -> list[object] | None:
    return list(cast("Sequence[object]", value)) if isinstance(value, list | tuple | bytes) else None


def _equal_numbers(sent: float, read: float) -> bool:
    if sent == read or not isinstance(read, float):
        return sent == read
    if isinstance(sent, float) and math.isnan(sent):
        return math.isnan(read)
    try:
        return read in (float(sent), struct.unpack("f", struct.pack("f", sent))[0])
    except OverflowError:
        return False


def _text_of(elements: list[object]) -> str | None:
    """Returns the text that an array of characters holds; None if it is no such array."""
    try:
        return bytes(cast("list[int]", elements)).partition(b"\0")[0].decode("utf-8", "replace")
    except (TypeError, ValueError):
        return None
