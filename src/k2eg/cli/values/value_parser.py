"""Parses the values of the command line: numbers, booleans, JSON, or text."""

from __future__ import annotations

import json
import re
from typing import cast

# Numbers that JSON does not allow but users type: +5, .5, 5., nan, inf.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")

Value = bool | int | float | str | list[object] | dict[str, object]


def parse_value(text: str) -> Value:
    """Returns a number, boolean, list or object if the text is one, else the text itself.

    Lists and objects are JSON: ``[1, 2.5]``, ``{"value": {"index": 2}}``. A JSON string is text: ``'"5"'`` is the
    string 5.
    """
    word = text.strip()
    if _WHOLE.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word):
        return float(word)
    try:
        value = cast("object", json.loads(word))
    except ValueError:
        return text
    # No PV has the value null, so a bare null is more likely the word.
    return text if value is None else cast("Value", value)


def is_number(text: str) -> bool:
    """Whether the text is a number."""
    return _NUMBER.fullmatch(text) is not None
