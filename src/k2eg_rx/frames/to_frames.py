"""Data frames: finite streams, snapshots, batches and aligned data as pandas or xarray objects.

In: items of a stream, on the thread that hands them over, or an iterable of them. Out: one frame at the end, on the
same thread. Needs the extra ``analysis``. What it is made of: `entries` (items, taken apart), `instants` (what belongs
to one time), `arrays` (values and numpy), `tables` (pandas), `datasets` (xarray).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc

from k2eg_rx.errors import require_extra
from k2eg_rx.frames.item_kinds import Framable

if TYPE_CHECKING:
    import pandas
    import xarray

Form = Literal["long", "wide"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class _Collector(Protocol[_T_co]):
    """Takes items, and makes something of all of them."""

    def add(self, item: object) -> None: ...

    def result(self) -> _T_co: ...


@overload
def to_dataframe(*, form: Form | None = None) -> Callable[[Observable[Framable]], Observable[pandas.DataFrame]]: ...
@overload
def to_dataframe(items: Framable | Iterable[Framable], *, form: Form | None = None) -> pandas.DataFrame: ...
def to_dataframe(items: Framable | Iterable[Framable] | None = None, *, form: Form | None = None) -> Any:
    """Returns a pandas DataFrame of items; or, without items, an operator that emits one when the stream completes.

    Items are updates and other `PVData`, `Snapshot`s, results of `get_many_stream`, and what `align` emits. The long
    form, the default for all but the last, has a row for each value, and always these columns:

    - ``time``: EPICS time, ``datetime64[ns, UTC]``, exact to the nanosecond; NaT where there is none.
    - ``pv``: the name.
    - ``value``: numbers, booleans or strings as such, an enum's label (its index as text where it has none), a waveform
      as a numpy array, a table or another structure as a dict of these. The column has the one type of its values
      where they have one: integers stay integers, with missing values too (``Int64``); otherwise it is ``object``.
    - ``severity``: an ordered categorical of the names, so that ``frame.severity >= "MAJOR"`` works.
    - ``status``: the alarm's status as it is on the wire, ``Int64``.
    - ``enum_index``: an enum's index, ``Int64``.
    - ``snapshot``, ``iteration``: of samples of snapshots.
    - ``error``: why there is no value (a failed get, a PV without data in its snapshot), or what is wrong with the
      snapshot that it is from.

    The wide form has a row per instant, the index ``time``, and a column per PV with its values as above. An instant
    is what `align` emits, or a snapshot with the newest sample of each PV (its time is that of the snapshot; of a
    one-shot snapshot that of its newest sample). Updates with equal time stamps share a row. Rows are sorted by time.

    Args:
        items: One item, or several. None for the operator.
        form: ``long`` or ``wide``; by default wide if the first item is of `align`.

    Raises:
        ValueError: One of the items is none of these; the operator's stream then fails with it.
        ModuleNotFoundError: pandas is missing; the text says what to install.

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
    if form not in (None, "long", "wide"):
        raise ValueError(f"form is 'long' or 'wide', not {form!r}")
    from k2eg_rx.frames.pandas_frames import Frame  # noqa: PLC0415 - an extra

    return _collected(lambda: Frame(form), items)


@overload
def to_xarray() -> Callable[[Observable[Framable]], Observable[xarray.Dataset]]: ...
@overload
def to_xarray(items: Framable | Iterable[Framable]) -> xarray.Dataset: ...
def to_xarray(items: Framable | Iterable[Framable] | None = None) -> Any:
    """Returns an xarray Dataset of items; or, without items, an operator that emits one when the stream completes.

    It has a variable for each PV along ``time`` (``datetime64[ns]``, UTC), one point per instant; what an instant is
    and which items there are is as in the wide form of `to_dataframe`. Waveforms have ``element`` as second dimension;
    where PVs have waveforms of different lengths, ``element_100``, ``element_512`` and so on, after the lengths. Enums
    are labels; tables and structures are objects. A value that is missing is NaN among numbers, else what `isnull`
    finds. Units are in the variables' attributes.

    ``severity`` (0 to 4) and ``status``, along ``time`` and ``pv``, are the alarms; -1 where a value is missing.

    Args:
        items: One item, or several. None for the operator.

    Raises:
        ValueError: One of the items is none of these, a PV's waveforms are of different lengths, or it has one of
            Dataset's own names. The operator's stream then fails with it.
        ModuleNotFoundError: xarray is missing; the text says what to install.

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
        raise ValueError("of a stream it is an operator: stream.pipe(ops.take(100), to_dataframe())")
    collector = make()
    for item in cast("Iterable[object]", items) if isinstance(items, Iterable) else (items,):
        collector.add(item)
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
