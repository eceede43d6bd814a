"""What numbers operators take.

In: an argument, and its name for the error. Out: the argument, or ValueError. Pure.
"""

from __future__ import annotations

import math


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positive(name: str, value: float) -> float:
    """Returns a number above 0."""
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{name} is a number above 0, not {value!r}")
    return value


def not_negative(name: str, value: float) -> float:
    """Returns a number of 0 or more."""
    if not (_is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{name} is a number of 0 or more, not {value!r}")
    return value
