"""Checks of the numbers that are written to PVs.

Thread safety: all objects are immutable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, cast

from k2eg_rx.arguments import one_of
from k2eg_rx.protocol import PVData
from k2eg_rx.texts import shown

OnLimit = Literal["clamp", "refuse"]
"""What to do with a number outside the limits."""


@dataclass(frozen=True, slots=True)
class Setpoint:
    """A number checked against the limits.

    Attributes:
        wanted: Item of the stream.
        value: Value to write; None if it is refused.
        clamped: Whether the value is a limit in place of the number.
        refusal: Reason of the refusal, or an empty string.
    """

    wanted: Any
    value: float | None
    clamped: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class SetpointLimits:
    """Range of values that may be written, both ends included."""

    low: float
    high: float
    on_limit: OnLimit

    @classmethod
    def checked(cls, limits: tuple[float, float], on_limit: OnLimit) -> SetpointLimits:
        """Returns the limits.

        Raises:
            ValueError: They are no ascending pair, or the policy is unknown.
        """
        try:
            low, high = map(_limit, limits)
            is_range = low <= high  # False with NaN
        except (TypeError, ValueError, OverflowError):
            is_range, low, high = False, 0.0, 0.0
        if not is_range:
            raise ValueError(f"limits must be a pair (lowest, highest) of numbers, got {shown(limits)}")
        one_of(on_limit, "on_limit", ("clamp", "refuse"))
        return cls(low, high, on_limit)

    def setpoint(self, wanted: Any) -> Setpoint:
        """Returns an item of the stream, checked."""
        number = wanted.item() if getattr(wanted, "shape", None) == () else wanted  # a numpy scalar
        if isinstance(number, PVData):
            return Setpoint(wanted, None, refusal="item is an update, not a number: put value() before put_to")
        if not isinstance(number, int | float):
            return Setpoint(wanted, None, refusal=f"item must be a number, got {type(number).__name__}")
        if not math.isfinite(number):
            return Setpoint(wanted, None, refusal=f"number must be finite, got {number}")
        if self.low <= number <= self.high:
            return Setpoint(wanted, number)
        if self.on_limit == "refuse":
            return Setpoint(wanted, None, refusal=f"{number} is outside {self.low} to {self.high}")
        return Setpoint(wanted, min(max(number, self.low), self.high), clamped=True)


def _limit(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError
    _ = float(number)  # not beyond the range of floats
    return cast("float", number)
