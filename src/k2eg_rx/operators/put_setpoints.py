"""Checks of the numbers that are written to PVs.

Thread safety: all objects are immutable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, cast

from k2eg_rx.arguments import one_of
from k2eg_rx.protocol import PVData
from k2eg_rx.texts import shown

OnLimit = Literal["clamp", "refuse"]
"""What to do with a number outside the limits."""


@dataclass(frozen=True, slots=True)
class Setpoint:
    """An item of the stream, checked: one number for each PV, or none.

    Attributes:
        wanted: Item of the stream.
        values: Values to write, by URI; None if they are refused.
        is_clamped: Whether a value is a limit in place of the number.
        large_step: Which change was larger than `max_step`; empty if none was.
        refusal: Reason of the refusal, or an empty string.
        faults: Reasons by URI, of the PVs whose numbers are refused.
    """

    wanted: Any
    values: Mapping[str, float] | None
    is_clamped: bool = False
    large_step: str = ""
    refusal: str = ""
    faults: Mapping[str, str] = field(default_factory=dict[str, str])

    def refused(self, reason: str, faults: Mapping[str, str] | None = None) -> Setpoint:
        """Returns the item, refused."""
        return Setpoint(self.wanted, None, large_step=self.large_step, refusal=reason, faults=faults or {})


class CheckedNumber(NamedTuple):
    """A number checked against the limits of a PV.

    Attributes:
        value: Value to write; None if it is refused.
        is_clamped: Whether it is a limit in place of the number.
        refusal: Reason of the refusal, or an empty string.
    """

    value: float | None
    is_clamped: bool = False
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

    def check(self, wanted: Any) -> CheckedNumber:
        """Returns a number of the stream, checked."""
        number = wanted.item() if getattr(wanted, "shape", None) == () else wanted  # a numpy scalar
        if isinstance(number, PVData):
            return CheckedNumber(None, refusal="item is an update, not a number: put value() before put_to")
        if not isinstance(number, int | float):
            return CheckedNumber(None, refusal=f"item must be a number, got {type(number).__name__}")
        if not math.isfinite(number):
            return CheckedNumber(None, refusal=f"number must be finite, got {number}")
        if self.includes(number):
            return CheckedNumber(number)
        if self.on_limit == "refuse":
            return CheckedNumber(None, refusal=f"{number} is outside {self.low} to {self.high}")
        return CheckedNumber(min(max(number, self.low), self.high), is_clamped=True)

    def includes(self, number: float) -> bool:
        """Returns whether a number is within the limits."""
        return self.low <= number <= self.high


def _limit(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError
    _ = float(number)  # not beyond the range of floats
    return cast("float", number)
