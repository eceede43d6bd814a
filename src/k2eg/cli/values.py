"""Values as people type them.

In: a word of the command line. Out: a Python value to put. Pure; any thread.
"""

from __future__ import annotations

import json
import re
from typing import cast

# What JSON does not take and people type all the same: +5, .5, 5., nan, inf.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")

Value = bool | int | float | str | list[object] | dict[str, object]


def parse_value(text: str) -> Value:
    """Returns the value that is meant: a number, boolean, list or object if it reads as one, else the text itself.

    Lists and objects are JSON: ``[1, 2.5]``, ``{"value": {"index": 2}}``. A text in JSON's quotes is that text, so that
    ``'"5"'`` is the string 5.
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
    # A bare null is no value that a PV can have: it is more likely to be meant as the word.
    return text if value is None else cast("Value", value)


def is_number(text: str) -> bool:
    """Whether the text reads as a number."""
    return _NUMBER.fullmatch(text) is not None
