"""Suppresses updates without a change: `changed`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.arguments import non_negative, pv_names
from k2eg_rx.operators.differences import Difference
from k2eg_rx.protocol import PVData, Severity, numpy_module
from k2eg_rx.texts import shown

_T = TypeVar("_T")


class _LastEmitted:
    """Severity and value last emitted for each PV; plain values count as one PV without severity."""

    def __init__(self, difference: Difference, by_pv: Mapping[str, Difference]) -> None:
        self._difference = difference
        self._by_pv = by_pv
        self._emitted: dict[str, tuple[Severity | None, Any]] = {}

    def differs(self, item: Any) -> bool:
        """Whether an item differs from the last one emitted; if so, it becomes the last one."""
        if isinstance(item, PVData):
            name, severity, value = item.name, item.severity, item.value
        else:
            name, severity, value = "", None, item
        last = self._emitted.get(name)
        if last is not None and last[0] is severity:
            difference = self._by_pv.get(name, self._difference)
            if not difference.between(last[1], value):
                return False
        self._emitted[name] = severity, value
        return True


def changed(
    deadband: float | Mapping[str, float] = 0.0, *, relative: float = 0.0
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Emits an update when its value or severity differs from the PV's last emitted update.

    The comparison is with the last *emitted* update, not the last received one, so that slow drifts are emitted too.
    The first update of each PV is emitted. Plain values, such as those of `value`, are compared with each other.

    A number must differ by more than `deadband` and by more than `relative`. An array changes with any element or its
    length, a table with any column. For strings, booleans and enums any difference counts. NaN equals NaN.

    Args:
        deadband: Largest difference that is no change, in the PV's units. A mapping has one for each PV, by name or
            URI; it is 0 for others.
        relative: Largest difference that is no change, as a fraction of the last emitted value: 0.01 is 1 %.

    Emits:
        Items of the source.

    Raises:
        ValueError: A bound is negative, infinite or NaN.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import changed, value
        >>> from k2eg_rx.testing import series
        >>> drift = rx.from_iterable(series("demo:x", [1.0, 1.04, 1.08, 1.12, 0.5]))
        >>> drift.pipe(changed(deadband=0.1), value()).subscribe(print).dispose()
        1.0
        1.12
        0.5
    """
    fraction = non_negative(relative, "relative")
    by_pv: dict[str, Difference] = {}
    if isinstance(deadband, Mapping):
        names = pv_names(deadband, "deadband")
        for name, bound in zip(names, deadband.values(), strict=True):
            by_pv[name] = Difference(non_negative(bound, f"deadband of {shown(name)}"), fraction)
    difference = Difference(0.0 if isinstance(deadband, Mapping) else non_negative(deadband, "deadband"), fraction)
    numpy_module()  # here, not on the thread of the first update: the import takes 0.1 s

    def operator(source: Observable[_T]) -> Observable[_T]:
        def start(_: object) -> Observable[_T]:
            return source.pipe(ops.filter(_LastEmitted(difference, by_pv).differs))

        return rx.defer(start)

    return operator
