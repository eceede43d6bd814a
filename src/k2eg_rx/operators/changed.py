"""Suppresses updates without a change: `changed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.arguments import non_negative
from k2eg_rx.operators.differences import Difference
from k2eg_rx.protocol import PVData, Severity, numpy_module

_T = TypeVar("_T")


class _LastEmitted:
    """Severity and value last emitted for each PV; plain values count as one PV without severity."""

    def __init__(self, difference: Difference) -> None:
        self._difference = difference
        self._emitted: dict[str, tuple[Severity | None, Any]] = {}

    def differs(self, item: Any) -> bool:
        """Whether an item differs from the last one emitted; if so, it becomes the last one."""
        if isinstance(item, PVData):
            name, severity, value = item.name, item.severity, item.value
        else:
            name, severity, value = "", None, item
        last = self._emitted.get(name)
        if last is not None and last[0] is severity and not self._difference.between(last[1], value):
            return False
        self._emitted[name] = severity, value
        return True


def changed(deadband: float = 0.0, *, relative: float = 0.0) -> Callable[[Observable[_T]], Observable[_T]]:
    """Emits an update when its value or severity differs from the PV's last emitted update.

    The comparison is with the last *emitted* update, not the last received one, so that slow drifts are emitted too.
    The first update of each PV is emitted. Plain values, such as those of `value`, are compared with each other.

    A number must differ by more than `deadband` and by more than `relative`. An array changes with any element or its
    length, a table with any column. For strings, booleans and enums any difference counts. NaN equals NaN.

    Args:
        deadband: Largest difference that is no change, in the PV's units.
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
    difference = Difference(non_negative(deadband, "deadband"), non_negative(relative, "relative"))
    numpy_module()  # here, not on the thread of the first update: the import takes 0.1 s

    def operator(source: Observable[_T]) -> Observable[_T]:
        def start(_: object) -> Observable[_T]:
            return source.pipe(ops.filter(_LastEmitted(difference).differs))

        return rx.defer(start)

    return operator
