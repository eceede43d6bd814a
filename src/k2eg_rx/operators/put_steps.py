"""The largest change of set points in one step: `max_step` of `put_to` and `put_many_to`.

A put that failed may still be written, so that a PV may hold one of several values. A change must not be larger than
`max_step` from any of them.

Thread safety: none; it belongs to the lock of its stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from k2eg_rx.operators.put_setpoints import Setpoint, SetpointLimits
from k2eg_rx.protocol import PVData, Severity
from k2eg_rx.texts import shown

OnStep = Literal["refuse", "clip"]
"""What to do with a change that is too large."""

_ROUNDING = 1e-12  # of the values: 0.7 + 0.1 is less than 0.8


class _Held(NamedTuple):
    """What a PV may hold: the value confirmed last, and the lowest and highest of those that may follow it."""

    value: float
    low: float
    high: float

    def or_value(self, value: float) -> _Held:
        return self._replace(low=min(self.low, value), high=max(self.high, value))


class SetpointSteps:
    """The values that PVs hold, and how far the next ones may be from them.

    Args:
        largest: The largest change, by URI.
        on_step: What to do with a larger one.
        limits: The limits, by URI.

    Attributes:
        count: How many items asked for a larger change.
    """

    def __init__(self, largest: Mapping[str, float], on_step: OnStep, limits: Mapping[str, SetpointLimits]) -> None:
        self.count = 0
        self._largest = largest
        self._on_step = on_step
        self._limits = limits
        self._held: dict[str, _Held] = {}

    @property
    def is_known(self) -> bool:
        """Whether the PVs' values are known."""
        return bool(self._held)

    def start(self, values: Mapping[str, PVData]) -> None:
        """Takes the values that were read at the start.

        Raises:
            ValueError: One is no valid number.
        """
        numbers = {uri: _number(uri, values[uri]) for uri in self._largest}
        self._held = {uri: _Held(number, number, number) for uri, number in numbers.items()}

    def limited(self, setpoint: Setpoint) -> Setpoint:
        """Returns an item whose changes are not too large: as it is, clipped, or refused."""
        values = setpoint.values or {}
        faults = {uri: fault for uri, value in values.items() if (fault := self._fault(uri, value))}
        if not faults:
            return setpoint
        self.count += 1
        reason = next(iter(faults.values()))
        setpoint = replace(setpoint, large_step=reason)
        if self._on_step == "refuse":
            return setpoint.refused(reason, faults)
        clipped = self._clipped(values)
        outside = {uri: self._outside(uri, value) for uri, value in clipped.items()}
        outside = {uri: fault for uri, fault in outside.items() if fault}
        if outside:
            return setpoint.refused(next(iter(outside.values())), outside)
        return replace(setpoint, values=clipped)

    def sent(self, values: Mapping[str, float], in_doubt: Mapping[str, object]) -> None:
        """Takes values that were written, or in a dry run would have been; `in_doubt` has the PVs whose put failed."""
        for uri, value in values.items():
            self._held[uri] = self._held[uri].or_value(value) if uri in in_doubt else _Held(value, value, value)

    def _range(self, uri: str) -> tuple[float, float]:
        held, largest = self._held[uri], self._largest[uri]
        return held.high - largest, held.low + largest

    def _fault(self, uri: str, value: float) -> str:
        low, high = self._range(uri)
        held, largest = self._held[uri], self._largest[uri]
        rounding = _ROUNDING * max(abs(low), abs(high))
        if low - rounding <= value <= high + rounding:
            return ""
        doubt = "" if held.low == held.high else f" (or {held.low:g} to {held.high:g}, after a failed put)"
        return f"{uri}: the change from {held.value:g}{doubt} to {value:g} is larger than max_step {largest:g}"

    def _clipped(self, values: Mapping[str, float]) -> dict[str, float]:
        """Returns the values of a shorter step in the same direction: all changes are reduced by one factor."""
        share, shortest = 1.0, ""
        for uri, value in values.items():
            change, bound = value - self._held[uri].value, self._bound(uri, value)
            part = (bound - self._held[uri].value) / change if change else math.inf
            if part < share:
                share, shortest = part, uri
        clipped = {
            uri: self._held[uri].value + share * (value - self._held[uri].value) for uri, value in values.items()
        }
        # not by the factor, which rounds: an integer stays whole
        return clipped | {shortest: self._bound(shortest, values[shortest])}

    def _bound(self, uri: str, value: float) -> float:
        low, high = self._range(uri)
        return high if value > self._held[uri].value else low

    def _outside(self, uri: str, value: float) -> str:
        limits = self._limits[uri]
        if limits.includes(value):
            return ""
        return f"{uri}: {value:g}, one max_step away, is outside {limits.low} to {limits.high}: set the PV within them"


def _number(uri: str, data: PVData) -> float:
    value = int(data) if data.choices is not None else data.value
    if data.severity >= Severity.INVALID:
        raise ValueError(f"{uri}: the value must be valid, got {shown(value)} with {data.severity.name}: write it once")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{uri}: the value must be a finite number, got {shown(value)}")
    return value
