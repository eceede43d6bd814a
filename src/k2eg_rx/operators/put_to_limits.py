"""What a number becomes before it is written to a PV: itself, a limit, or nothing.

In: what a stream emits. Out: a `Setpoint`. Pure; any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from k2eg_rx.protocol import PVData

OnLimit = Literal["clamp", "refuse"]
"""What happens to a number outside the limits."""


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What is to become of a number.

    Attributes:
        wanted: What came.
        value: What to write; None if nothing is.
        clamped: Whether it is a limit in place of what was wanted.
        refusal: Why nothing is written, or an empty string.
    """

    wanted: Any
    value: float | None
    clamped: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The range of what may be written, both ends included."""

    low: float
    high: float
    on_limit: OnLimit

    @classmethod
    def checked(cls, limits: tuple[float, float], on_limit: OnLimit) -> Limits:
        """Returns limits; infinite ones are none.

        Raises:
            ValueError: They are no range, or there is no such policy.
        """
        try:
            low, high = limits
            ordered = bool(low <= high)  # not so with NaN
        except (TypeError, ValueError):
            ordered, low, high = False, 0.0, 0.0
        if not ordered:
            raise ValueError(f"limits is a pair (lowest, highest) of numbers, not {limits!r}")
        if on_limit not in ("clamp", "refuse"):
            raise ValueError(f"on_limit is 'clamp' or 'refuse', not {on_limit!r}")
        return cls(low, high, on_limit)

    def setpoint(self, wanted: Any) -> Setpoint:
        """Returns what becomes of what a stream emits."""
        number = wanted.item() if getattr(wanted, "shape", None) == () else wanted  # numpy's
        if isinstance(number, PVData):
            return Setpoint(wanted, None, refusal="an update is no number; take its value with value() first")
        if not isinstance(number, int | float):
            return Setpoint(wanted, None, refusal=f"a {type(number).__name__} is no number")
        if not math.isfinite(number):
            return Setpoint(wanted, None, refusal=f"{number} is never written")
        if self.low <= number <= self.high:
            return Setpoint(wanted, number)
        if self.on_limit == "refuse":
            return Setpoint(wanted, None, refusal=f"{number} is outside {self.low} to {self.high}")
        return Setpoint(wanted, min(max(number, self.low), self.high), clamped=True)
