"""Functions and operators that collect items in a frame: `to_dataframe`, `to_xarray`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc

from k2eg_rx.arguments import one_of
from k2eg_rx.errors import require_extra
from k2eg_rx.frames.item_kinds import Framable
from k2eg_rx.protocol import ColumnBatch

if TYPE_CHECKING:
    import pandas
    import xarray

Form = Literal["long", "wide"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class _Collector(Protocol[_T_co]):
    """Collects items and makes one result of them."""

    def add(self, item: object) -> None: ...

    def result(self) -> _T_co: ...


@overload
def to_dataframe(*, form: Form | None = None) -> Callable[[Observable[Framable]], Observable[pandas.DataFrame]]: ...
@overload
def to_dataframe(items: Framable | Iterable[Framable], *, form: Form | None = None) -> pandas.DataFrame: ...
def to_dataframe(items: Framable | Iterable[Framable] | None = None, *, form: Form | None = None) -> Any:
    """Returns a pandas DataFrame of items; without items, an operator that emits one when the source completes.

    Items are updates and other `PVData`, `ColumnBatch`es, `Snapshot`s, results of `get_many_stream`, `Aligned`s,
    `Window`s and `AlarmTransition`s. The long form has a row for each value and always these columns:

    - ``time``: EPICS time, ``datetime64[ns, UTC]``, exact to the nanosecond; NaT for values without time.
    - ``pv``: name of the PV.
    - ``value``: a number, boolean or string; the label of an enum, or its index as text if it has none; a numpy array
      for a waveform; a dict of these for a table or another structure. The column has the common type of its values:
      integers stay integers, also with missing values (``Int64``). Otherwise it is ``object``.
    - ``severity``: ordered categorical of severity names, so that ``frame.severity >= "MAJOR"`` works.
    - ``status``: alarm status as sent by the gateway, ``Int64``.
    - ``enum_index``: index of an enum, ``Int64``.
    - ``snapshot``, ``iteration``: name and iteration of the snapshot that the value belongs to.
    - ``error``: reason for a missing value (a failed get, a PV without data in its snapshot), or the snapshot's error.

    The wide form has a row for each instant, the index ``time``, and a column for each PV with values as above. An
    `Aligned` or a `Snapshot` is an instant. A snapshot has the newest sample of each PV and its own time; a one-shot
    snapshot has the time of its newest sample. Updates with equal timestamps share a row. Rows are sorted by time.
    Instants that are joined by pulse id have the column ``pulse_id``, ``Int64``, before those of the PVs.

    `Window`s have a table of their own, with ``start``, ``end``, ``pv``, ``count``, ``excluded``, ``late``, ``rate``,
    ``mean``, ``std``, ``min`` and ``max``. That of `AlarmTransition`s has ``time``, ``pv``, ``previous``, ``current``,
    ``seconds``, ``value`` and ``message``.

    The long form of `ColumnBatch`es, which no other items can join, has a row for each event, ordered by PV within a
    batch. It is made without an object for each event.

    ``frame.attrs["units"]`` has the newest units of each PV, by name; ``frame.to_parquet`` keeps them in the file.

    Args:
        items: One item or several. None returns the operator.
        form: "long" or "wide", not for windows and transitions. By default "wide" if the first item is an `Aligned`,
            otherwise "long".

    Raises:
        ValueError: An item is of another type; the operator's stream fails with this error.
        ModuleNotFoundError: pandas is not installed; the text names the extra.

    Example:
        >>> from reactivex import from_iterable
        >>> from reactivex import operators as ops
        >>> from k2eg_rx.frames import to_dataframe
        >>> from k2eg_rx.testing import series, update
        >>> updates = [*series("demo:current", [1, 2]), update("demo:mode", "Ramping", choices=["Off", "Ramping"])]
        >>> frame = from_iterable(updates).pipe(ops.take(100), to_dataframe()).run()
        >>> print(frame[["time", "pv", "value", "severity"]].to_string())
                               time            pv    value  severity
        0 2026-01-01 00:00:00+00:00  demo:current        1  NO_ALARM
        1 2026-01-01 00:00:01+00:00  demo:current        2  NO_ALARM
        2 2026-01-01 00:00:00+00:00     demo:mode  Ramping  NO_ALARM
    """
    require_extra("analysis", ["numpy", "pandas"], "to_dataframe")
    if form is not None:
        one_of(form, "form", ("long", "wide"))
    from k2eg_rx.frames.pandas_frames import Frame  # noqa: PLC0415 - an extra

    return _collected(lambda: Frame(form), items)


@overload
def to_xarray() -> Callable[[Observable[Framable]], Observable[xarray.Dataset]]: ...
@overload
def to_xarray(items: Framable | Iterable[Framable]) -> xarray.Dataset: ...
def to_xarray(items: Framable | Iterable[Framable] | None = None) -> Any:
    """Returns an xarray Dataset of items; without items, an operator that emits one when the source completes.

    The Dataset has a variable for each PV along ``time`` (``datetime64[ns]``, UTC), with one point for each instant.
    Instants and item types are those of the wide form of `to_dataframe`. Waveforms have a second dimension,
    ``element``; if PVs have waveforms of different lengths, ``element_100``, ``element_512`` and so on. Enums are
    labels; tables and structures are objects. A missing value is NaN among numbers, otherwise None. Attributes hold
    units.

    The variables ``severity`` (0 to 4) and ``status``, along ``time`` and ``pv``, hold the alarms; -1 where a value is
    missing. Instants that are joined by pulse id have a coordinate ``pulse_id`` along ``time``, -1 where it is missing.

    Args:
        items: One item or several. None returns the operator.

    Raises:
        ValueError: An item is of another type, a PV's waveforms differ in length, or a PV has a reserved name; the
            operator's stream fails with this error.
        ModuleNotFoundError: xarray is not installed; the text names the extra.

    Example:
        >>> from k2eg_rx.frames import to_xarray
        >>> from k2eg_rx.testing import series
        >>> data = to_xarray(series("demo:waveform", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], units="mm"))
        >>> data["demo:waveform"].dims, data["demo:waveform"].units
        (('time', 'element'), 'mm')
        >>> data["demo:waveform"].mean("element").values
        array([2., 5.])
    """
    require_extra("analysis", ["numpy", "pandas", "xarray"], "to_xarray")
    from k2eg_rx.frames.xarray_datasets import Arrays  # noqa: PLC0415 - an extra

    return _collected(Arrays, items)


def _collected(make: Callable[[], _Collector[_T]], items: object) -> object:
    if items is None:
        return _operator(make)
    if isinstance(items, Observable):
        raise ValueError("items must not be a stream: use stream.pipe(ops.take(100), to_dataframe())")
    collector = make()
    if isinstance(items, Iterable) and not isinstance(items, ColumnBatch):  # a batch is a mapping, of its columns
        for item in cast("Iterable[object]", items):
            collector.add(item)
    else:
        collector.add(items)
    return collector.result()


def _operator(make: Callable[[], _Collector[_T]]) -> Callable[[Observable[Framable]], Observable[_T]]:
    def operator(source: Observable[Framable]) -> Observable[_T]:
        def subscribe(observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            collector = make()

            def on_next(item: Framable) -> None:
                try:
                    collector.add(item)
                except Exception as error:
                    observer.on_error(error)

            def on_completed() -> None:
                try:
                    result = collector.result()
                except Exception as error:
                    observer.on_error(error)
                else:
                    observer.on_next(result)
                    observer.on_completed()

            return source.subscribe(on_next, observer.on_error, on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
