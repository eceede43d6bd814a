"""Fields of updates as plain items, `value`, `field`, `timestamps`, `pulse_ids`; updates that mean something: `valid`,
and those after a change: `fresh`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import PVData, PVUpdate, Severity, nanoseconds_of, numpy_module, value_with_arrays, with_arrays
from k2eg_rx.texts import printable, shown

_SCALARS = frozenset((float, int, str, bool))
_Update = TypeVar("_Update", bound=PVData)


class MissingFieldError(K2EGError, LookupError):
    """A PV's structure lacks the field that an operator selects.

    Attributes:
        name: Name of the PV.
        path: Path of the field.
        found: Description of what the structure has.
    """

    def __init__(self, name: str, path: str, found: str) -> None:
        super().__init__(name, path, found)
        self.name = name
        self.path = path
        self.found = found

    def __str__(self) -> str:
        return printable(f"{self.name} has no field {self.path!r}: {self.found}")


def _found(steps: list[str], parent: object) -> str:
    where = ".".join(steps) or "it"
    if not isinstance(parent, dict):
        return f"{where} is no structure"
    return f"{where} has {', '.join(map(str, cast('dict[str, Any]', parent))) or 'no fields'}"


def field_of(data: PVData, path: str) -> Any:
    """Returns a field of a PV's structure, with arrays of numbers as numpy arrays.

    Raises:
        MissingFieldError: The structure has no such field.
    """
    steps = path.split(".")
    found: Any = data.data
    for number, step in enumerate(steps):
        if not isinstance(found, dict) or step not in found:
            raise MissingFieldError(data.name, path, _found(steps[:number], cast("object", found)))
        found = cast("dict[str, Any]", found)[step]
    return with_arrays(found)


def value_of(data: PVData) -> Any:
    """Returns a PV's ``value``, with arrays of numbers as numpy arrays, an image in its shape.

    Raises:
        MissingFieldError: The structure has no ``value``.
    """
    number = data.value
    if type(number) in _SCALARS:  # without decoding the rest of the structure
        return number
    structure = data.data
    if "value" not in structure:
        raise MissingFieldError(data.name, "value", _found([], structure))
    return value_with_arrays(structure)


def value() -> Callable[[Observable[PVData]], Observable[Any]]:
    """Emits the ``value`` of each update: a number, a string, or an array.

    Arrays of numbers are numpy arrays where numpy is installed, otherwise lists; arrays of strings are lists. An image
    (NTNDArray) has the shape of its dimensions, rows first. A table is a dict of columns. An enum is the dict
    ``{"index", "choices"}``: ``field("value.index")`` emits its index, and `PVData.label` is its text.

    Emits:
        Values. Fails with `MissingFieldError` for a PV without ``value``, such as some PVAccess structures.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import value
        >>> from k2eg_rx.testing import series
        >>> rx.from_iterable(series("demo:wave", [[1.5, 2.5], [3.5]])).pipe(value()).subscribe(print).dispose()
        [1.5 2.5]
        [3.5]
    """
    numpy_module()  # here, not on the thread of the first update: the import takes 0.1 s
    return ops.map(value_of)


def field(path: str) -> Callable[[Observable[PVData]], Observable[Any]]:
    """Emits one field of each update's structure.

    Args:
        path: Field names from the outside in, separated by dots: ``alarm.severity``, ``value.index``,
            ``display.units``, or a table column such as ``value.current``. Arrays are those of `value`.

    Emits:
        Field values. Fails with `MissingFieldError` for an update without the field.

    Raises:
        ValueError: The path is empty or has an empty name.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import field
        >>> from k2eg_rx.testing import update
        >>> valve = rx.of(update("demo:valve", "Open", choices=["Closed", "Open"], severity=2))
        >>> valve.pipe(field("value.index")).subscribe(print).dispose()
        1
        >>> valve.pipe(field("alarm.severity")).subscribe(print).dispose()
        2
        >>> valve.pipe(field("alarm.colour")).subscribe(on_error=print).dispose()
        demo:valve has no field 'alarm.colour': alarm has severity, status, message
    """
    if not isinstance(path, str) or len(path) > 4096 or not all(path.split(".")):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"path must be field names separated by dots, such as 'alarm.severity', got {shown(path)}")
    if path == "value":
        return value()
    numpy_module()  # as in `value`

    def select(update: PVData) -> Any:
        return field_of(update, path)

    return ops.map(select)


def _timestamp_of(update: PVData) -> int | None:
    timestamp = update.timestamp  # without decoding the rest of the structure
    if timestamp is None and "timeStamp" not in update.data:
        raise MissingFieldError(update.name, "timeStamp", _found([], update.data))
    return timestamp


def timestamps() -> Callable[[Observable[PVData]], Observable[int | None]]:
    """Emits the EPICS time of each update in integer nanoseconds since the Unix epoch, UTC.

    Emits:
        Times; None for an update whose time was never set. Fails with `MissingFieldError` for a PV without a
        ``timeStamp`` field.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import timestamps
        >>> from k2eg_rx.testing import series
        >>> ticks = rx.from_iterable(series("demo:x", [1, 2], every=0.5, start=1_767_225_600_000_000_000))
        >>> ticks.pipe(timestamps()).subscribe(print).dispose()
        1767225600000000000
        1767225600500000000
    """
    return ops.map(_timestamp_of)


def pulse_ids() -> Callable[[Observable[PVUpdate]], Observable[int | None]]:
    """Emits the pulse id of each update: bits of the nanoseconds of its EPICS time, as `PVUpdate.pulse_id` has it.

    Emits:
        Pulse ids; None for an update whose time was never set, or whose pulse id is marked as invalid. Fails with
        `MissingFieldError` for a PV without a ``timeStamp`` field.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import pulse_ids
        >>> from k2eg_rx.testing import START, update
        >>> shots = rx.of(update("bpm:x", 0.1, timestamp=START + 77), update("bpm:x", 0.2, timestamp=START + 80))
        >>> shots.pipe(pulse_ids()).subscribe(print).dispose()
        77
        80
    """

    def pulse_id(update: PVUpdate) -> int | None:
        _timestamp_of(update)
        return update.pulse_id

    return ops.map(pulse_id)


def valid() -> Callable[[Observable[_Update]], Observable[_Update]]:
    """Emits the updates whose value means something: those with a severity below INVALID.

    INVALID marks a value that the IOC could not read, UNDEFINED one whose alarm is not known.

    Emits:
        Updates of the source.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import valid, value
        >>> from k2eg_rx.testing import update
        >>> readings = rx.of(update("bpm:x", 0.25), update("bpm:x", 0.0, severity=3), update("bpm:x", 0.5, severity=2))
        >>> readings.pipe(valid(), value()).subscribe(print).dispose()
        0.25
        0.5
    """
    return ops.filter(lambda update: update.severity < Severity.INVALID)


def fresh(after: int | datetime | PVData) -> Callable[[Observable[_Update]], Observable[_Update]]:
    """Emits the updates whose EPICS time is later than a time, such as that of a move.

    It decides each update by itself, so that none from before that time passes, however late it arrives. An update
    without EPICS time is dropped.

    Args:
        after: The time, by the clock of the PVs: an update of the read-back that shows the end of the move, or its
            time in integer nanoseconds. A datetime with a time zone, such as the present time, holds as well as the
            clocks of IOCs and this machine agree.

    Emits:
        Updates of the source.

    Raises:
        ValueError: `after` is no time, or an update without one.

    Example:
        >>> import reactivex as rx
        >>> from reactivex import operators as ops
        >>> from k2eg_rx.operators import fresh
        >>> from k2eg_rx.testing import START, series, update
        >>> shots = rx.from_iterable(series("bpm:x", [0.1, 0.2, 0.5, 0.6], every=0.1))
        >>> settled = update("mag:readback", 3.0, timestamp=START + 150_000_000)
        >>> shots.pipe(fresh(after=settled), ops.take(2)).subscribe(lambda shot: print(shot.value)).dispose()
        0.5
        0.6
    """
    time = _time_of_change(after)
    return ops.filter(lambda update: update.timestamp is not None and update.timestamp > time)


def _time_of_change(after: object) -> int:
    if isinstance(after, datetime) and after.utcoffset() is not None:
        return nanoseconds_of(after)
    time = after.timestamp if isinstance(after, PVData) else after
    if isinstance(time, bool) or not isinstance(time, int):
        raise ValueError(
            "after must be an update with a time, integer nanoseconds since 1970, or a datetime with a time zone, got"
            f" {shown(after)}"
        )
    return time
