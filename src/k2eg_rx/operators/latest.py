"""`latest_by_pv`, `combine_pvs`: the newest of several PVs together.

In: updates. Out: a dict for each of them, on the thread it comes on. Kept is the newest of each PV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.operators.stage import Stage, staged
from k2eg_rx.protocol import PVData, numpy_module, value_with_arrays
from k2eg_rx.pv import pv_name_of

_Update = TypeVar("_Update", bound=PVData)

Missing = Literal["wait", "none", "skip"]
"""What `combine_pvs` does while it has no value of some label."""


def latest_by_pv() -> Callable[[Observable[_Update]], Observable[dict[str, _Update]]]:
    """Returns an operator that emits, after each update, the newest update of every PV so far, by name.

    Each dict is the receiver's own. Making one takes time with the number of PVs, so for hundreds of fast ones a
    `conflate` before it or a `throttle` behind it is in place.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import latest_by_pv
        >>> from k2eg_rx.testing import update
        >>> updates = rx.of(update("x", 1), update("y", 2), update("x", 3))
        >>> def show(newest):
        ...     print({name: update.value for name, update in newest.items()})
        >>> updates.pipe(latest_by_pv()).subscribe(show).dispose()
        {'x': 1}
        {'x': 1, 'y': 2}
        {'x': 3, 'y': 2}
    """

    def operator(source: Observable[_Update]) -> Observable[dict[str, _Update]]:
        def start(_: object) -> Observable[dict[str, _Update]]:
            newest: dict[str, _Update] = {}

            def add(update: _Update) -> dict[str, _Update]:
                newest[update.name] = update
                return dict(newest)

            return source.pipe(ops.map(add))

        return rx.defer(start)

    return operator


def _value_of(item: Any) -> Any:
    """An update's value, with arrays as numpy's; None if it has none. What is no update is its own value."""
    if not isinstance(item, PVData):
        return item
    return value_with_arrays(item.data) if "value" in item.data else None


class _Combination(Stage[PVData, dict[str, Any]]):
    """The newest value of each label. Ends when the source and all the other streams have."""

    def __init__(
        self,
        observer: abc.ObserverBase[dict[str, Any]],
        scheduler: abc.SchedulerBase,
        parts: Mapping[str, str | Observable[Any]],
        known: Mapping[str, Any],
        missing: Missing,
    ) -> None:
        super().__init__(observer, scheduler)
        self._order = tuple(parts)
        self._missing = missing
        self._values: dict[str, Any] = dict(known)
        self._streams = {label: part for label, part in parts.items() if not isinstance(part, str)}
        self._labels: dict[str, list[str]] = {}
        for label, part in parts.items():
            if isinstance(part, str):
                self._labels.setdefault(part, []).append(label)
        self._running = 1 + len(self._streams)

    def run(self, source: Observable[PVData], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the streams that are parts themselves, and then to the source."""
        for label, stream in self._streams.items():

            def take(item: Any, label: str = label) -> None:
                self._set([label], item)

            self.hold(
                stream.subscribe(
                    self.guarded(take), self.guarded(self.fail), self.guarded(self._part_ended), scheduler=subscribed
                )
            )
        return super().run(source, subscribed)

    def take(self, item: PVData) -> None:
        labels = self._labels.get(item.name)
        if labels:
            self._set(labels, item)

    def _set(self, labels: Iterable[str], item: Any) -> None:
        value = _value_of(item)
        for label in labels:
            self._values[label] = value
        values = self._values
        if len(values) == len(self._order) or self._missing == "skip":
            self.emit({label: values[label] for label in self._order if label in values})
        elif self._missing == "none":
            self.emit({label: values.get(label) for label in self._order})

    def source_completed(self) -> None:
        self._part_ended()

    def _part_ended(self) -> None:
        self._running -= 1
        if self._running == 0:
            self.complete()


def _checked_parts(pvs: object) -> dict[str, str | Observable[Any]]:
    if isinstance(pvs, Mapping):
        named = cast("Mapping[object, object]", pvs)
    elif isinstance(pvs, Iterable) and not isinstance(pvs, str):
        named = {pv_name_of(pv) if isinstance(pv, str) else pv: pv for pv in cast("Iterable[object]", pvs)}
    else:
        named = {}
    parts: dict[str, str | Observable[Any]] = {}
    for label, part in named.items():
        if not isinstance(label, str) or not isinstance(part, str | Observable):
            raise ValueError(f"a part is a label with a PV's name or a stream, not {label!r}: {part!r}")
        parts[label] = pv_name_of(part) if isinstance(part, str) else cast("Observable[Any]", part)
    if not parts:
        raise ValueError(f"PVs to combine are given as {{'label': 'pva://my:pv'}} or as a list of them, not {pvs!r}")
    return parts


def combine_pvs(
    pvs: Mapping[str, str | Observable[Any]] | Iterable[str],
    *,
    missing: Missing = "wait",
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Observable[PVData]], Observable[dict[str, Any]]]:
    """Returns an operator that emits, after each update, the newest values of some PVs, by labels of your own.

    The values are those of `value`: numbers, strings, numpy arrays; None of a PV that has none. They are the newest,
    not of the same instant: `align` joins by time.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import combine_pvs
        >>> from k2eg_rx.testing import update
        >>> updates = rx.of(update("mag:i", 10.0), update("other", 7), update("bpm:x", 0.5), update("mag:i", 11.0))
        >>> pvs = {"current": "pva://mag:i", "x": "ca://bpm:x"}
        >>> updates.pipe(combine_pvs(pvs)).subscribe(print).dispose()
        {'current': 10.0, 'x': 0.5}
        {'current': 11.0, 'x': 0.5}
        >>> updates.pipe(combine_pvs(pvs, defaults={"x": 0.0})).subscribe(print).dispose()
        {'current': 10.0, 'x': 0.0}
        {'current': 10.0, 'x': 0.5}
        {'current': 11.0, 'x': 0.5}

    Args:
        pvs: By label the name or the URI of a PV in the stream; or another stream, whose items (updates, or values that
            were computed) are then taken for the label. A list of PVs has their names as labels. Other PVs of the
            stream are passed over.
        missing: While there is no value of some label: "wait" emits nothing (the default), "none" has None in its
            place, "skip" leaves the label out.
        defaults: Values to begin with, by label: these do not count as missing.

    Raises:
        ValueError: No PVs, or `defaults` has a label that is none; or no such policy.

    The stream ends when all it is made of has ended, and fails with the first that fails. A PV that never comes, with
    "wait", means that nothing ever does: `stale` with its `pvs` tells.
    """
    parts = _checked_parts(pvs)
    known = dict(defaults or {})
    if missing not in ("wait", "none", "skip"):
        raise ValueError(f"missing is 'wait', 'none' or 'skip', not {missing!r}")
    if unknown := known.keys() - parts.keys():
        raise ValueError(f"defaults has {', '.join(sorted(unknown))}; the labels are {', '.join(parts)}")
    numpy_module()  # now, not on the thread of the first update

    def operator(source: Observable[PVData]) -> Observable[dict[str, Any]]:
        return staged(source, lambda observer, timing: _Combination(observer, timing, parts, known, missing), None)

    return operator
