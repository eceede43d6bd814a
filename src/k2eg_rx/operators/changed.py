"""`changed`: only what is news.

In: updates or plain values. Out: those that differ from the last one passed, on the thread they come on. The last one
passed of each PV is kept; it belongs to whoever hands over the items, one at a time.
"""

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


class _LastPassed:
    """The severity and the value last passed of each PV; plain values count as those of one, without severity."""

    def __init__(self, difference: Difference) -> None:
        self._difference = difference
        self._passed: dict[str, tuple[Severity | None, Any]] = {}

    def is_news(self, item: Any) -> bool:
        if isinstance(item, PVData):
            name, severity, value = item.name, item.severity, item.value
        else:
            name, severity, value = "", None, item
        last = self._passed.get(name)
        if last is not None and last[0] is severity and not self._difference.between(last[1], value):
            return False
        self._passed[name] = severity, value
        return True


def changed(deadband: float = 0.0, *, relative: float = 0.0) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that passes an update when its value or its severity changed against the last one passed.

    It compares with the last one *passed*, not with the last one seen, so that a slow drift does not stay hidden. The
    first update of each PV passes; in a stream of several PVs each is compared with its own. Plain values, such as
    `value` emits, are compared with each other.

    Numbers have to differ by more than both bounds. An array changes with any element or its length, a table with any
    column. Strings, booleans and enums change or they do not. From NaN to NaN is no change, from NaN to a number is
    one.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import changed, value
        >>> from k2eg_rx.testing import series
        >>> drift = rx.from_iterable(series("demo:x", [1.0, 1.04, 1.08, 1.12, 0.5]))
        >>> drift.pipe(changed(deadband=0.1), value()).subscribe(print).dispose()
        1.0
        1.12
        0.5

    Args:
        deadband: How much a number may differ without being a change, in the PV's own units.
        relative: The same as a part of the last one passed: 0.01 is one per cent of it.

    Raises:
        ValueError: A bound is negative, infinite or NaN.
    """
    difference = Difference(non_negative(deadband, "deadband"), non_negative(relative, "relative"))
    numpy_module()  # now, not on the thread of the first update

    def operator(source: Observable[_T]) -> Observable[_T]:
        def start(_: object) -> Observable[_T]:
            return source.pipe(ops.filter(_LastPassed(difference).is_news))

        return rx.defer(start)

    return operator
