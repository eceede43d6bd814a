"""Newest values of several PVs as one item: `latest_by_pv`, `combine_pvs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import mapping, one_of, pv_names
from k2eg_rx.operators.stage import Stage, staged
from k2eg_rx.protocol import PVData, numpy_module, value_with_arrays
from k2eg_rx.pv import pv_name_of
from k2eg_rx.texts import shown

_Update = TypeVar("_Update", bound=PVData)

Incomplete = Literal["wait", "partial", "fill_none"]
"""What `combine_pvs` does while a label has no value."""


def latest_by_pv() -> Callable[[Observable[_Update]], Observable[dict[str, _Update]]]:
    """Emits a dict with the newest update of every PV so far, after each update.

    Each dict is a new one. Its cost grows with the number of PVs: for hundreds of fast PVs put `conflate` before it or
    `sample_latest` behind it.

    Emits:
        Updates by PV name.

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
    """Returns an update's value, or None if it has none; other items are values themselves."""
    if not isinstance(item, PVData):
        return item
    return value_with_arrays(item.data) if "value" in item.data else None


class _Combination(Stage[PVData, dict[str, Any]]):
    """Newest value of each label. Completes when the source and all other streams have completed."""

    def __init__(
        self,
        observer: abc.ObserverBase[dict[str, Any]],
        scheduler: abc.SchedulerBase,
        parts: Mapping[str, str | Observable[Any]],
        defaults: Mapping[str, Any],
        incomplete: Incomplete,
    ) -> None:
        super().__init__(observer, scheduler)
        self._order = tuple(parts)
        self._incomplete = incomplete
        self._values: dict[str, Any] = dict(defaults)
        self._streams = {label: part for label, part in parts.items() if not isinstance(part, str)}
        self._labels: dict[str, list[str]] = {}  # by PV name
        for label, part in parts.items():
            if isinstance(part, str):
                self._labels.setdefault(part, []).append(label)
        self._running = 1 + len(self._streams)

    def run(self, source: Observable[PVData], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the streams among the parts, then to the source."""
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
        if len(values) == len(self._order) or self._incomplete == "partial":
            self.emit({label: values[label] for label in self._order if label in values})
        elif self._incomplete == "fill_none":
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
    elif isinstance(pvs, Iterable) and not isinstance(pvs, str | bytes):
        named = {pv: pv for pv in pv_names(cast("Iterable[str]", pvs))}
    else:
        named = {}
    parts: dict[str, str | Observable[Any]] = {}
    for label, part in named.items():
        if not isinstance(label, str) or not isinstance(part, str | Observable):
            raise ValueError(f"pvs must map labels to PV names or streams, got {shown(label)}: {shown(part)}")
        parts[label] = pv_name_of(part) if isinstance(part, str) else cast("Observable[Any]", part)
    if not parts:
        given = shown(cast("object", pvs))
        raise ValueError(f"pvs must be a dict such as {{'label': 'pva://my:pv'}} or a list of PVs, got {given}")
    return parts


def combine_pvs(
    pvs: Mapping[str, str | Observable[Any]] | Iterable[str],
    *,
    incomplete: Incomplete = "wait",
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Observable[PVData]], Observable[dict[str, Any]]]:
    """Emits a dict with the newest value of each named PV, after each update of one of them.

    Values are those of `value`: numbers, strings, numpy arrays; None for a PV without ``value``. They are the newest
    values, not values of one instant: for those use `align`.

    Args:
        pvs: PV name or URI by label; or a list of PVs, whose names become the labels. A stream in place of a PV name
            supplies the label's values: plain items, or updates. Other PVs of the source are ignored.
        incomplete: What to do while a label has no value: "wait" emits nothing, "partial" leaves the label out,
            "fill_none" sets it to None.
        defaults: Initial values by label.

    Emits:
        Values by label, in the order of `pvs`. Completes when the source and all streams in `pvs` have completed; fails
        with the first that fails. With "wait", a PV without updates blocks all output: `stale` with its `pvs` detects
        that.

    Raises:
        ValueError: `pvs` is empty, `defaults` has an unknown label, or `incomplete` is none of the above.

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
    """
    parts = _checked_parts(pvs)
    initial = {} if defaults is None else mapping(defaults, "defaults")
    one_of(incomplete, "incomplete", ("wait", "partial", "fill_none"))
    if unknown := initial.keys() - parts.keys():
        raise ValueError(f"defaults must use the labels {', '.join(parts)}, got {shown(sorted(map(str, unknown)))}")
    numpy_module()  # here, not on the thread of the first update: the import takes 0.1 s

    def operator(source: Observable[PVData]) -> Observable[dict[str, Any]]:
        return staged(source, lambda observer, timing: _Combination(observer, timing, parts, initial, incomplete), None)

    return operator
