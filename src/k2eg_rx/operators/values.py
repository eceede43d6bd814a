"""From updates to plain values: `value`, `field`, `timestamps`.

In: updates. Out: values, on the thread the update comes on. They keep no state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import PVData, numpy_module, value_with_arrays, with_arrays


class MissingFieldError(K2EGError, LookupError):
    """A PV's structure has not the field that an operator was told to take.

    Attributes:
        name: The PV.
        path: The field asked for.
        found: What there is in its place.
    """

    def __init__(self, name: str, path: str, found: str) -> None:
        super().__init__(name, path, found)
        self.name = name
        self.path = path
        self.found = found

    def __str__(self) -> str:
        return f"{self.name} has no field {self.path!r}: {self.found}"


def _found(steps: list[str], place: object) -> str:
    where = ".".join(steps) or "it"
    if not isinstance(place, dict):
        return f"{where} is no structure"
    return f"{where} has {', '.join(map(str, cast('dict[str, Any]', place))) or 'no fields'}"


def field_of(data: PVData, path: str) -> Any:
    """Returns a field of a PV's structure, arrays of numbers as numpy arrays.

    Raises:
        MissingFieldError: There is no such field.
    """
    steps = path.split(".")
    place: Any = data.data
    for number, step in enumerate(steps):
        if not isinstance(place, dict) or step not in place:
            raise MissingFieldError(data.name, path, _found(steps[:number], cast("object", place)))
        place = cast("dict[str, Any]", place)[step]
    return with_arrays(place)


def value_of(data: PVData) -> Any:
    """Returns a PV's ``value``, arrays of numbers as numpy arrays, an image in its shape.

    Raises:
        MissingFieldError: There is none.
    """
    structure = data.data
    if "value" not in structure:
        raise MissingFieldError(data.name, "value", _found([], structure))
    return value_with_arrays(structure)


def value() -> Callable[[Observable[PVData]], Observable[Any]]:
    """Returns an operator that emits the ``value`` of each update: a number, a string, or an array.

    An array of numbers is a numpy array where numpy is installed, else a list; an array of strings is a list. An
    image (NTNDArray) has the shape of its dimensions, rows first. A table is a dict of columns. An enum stays the map
    ``{"index", "choices"}``; ``field("value.index")`` gives its index.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import value
        >>> from k2eg_rx.testing import series
        >>> rx.from_iterable(series("demo:wave", [[1.5, 2.5], [3.5]])).pipe(value()).subscribe(print).dispose()
        [1.5 2.5]
        [3.5]

    The stream fails with `MissingFieldError` if the PV has no field ``value``, as some structures of PVAccess.
    """
    numpy_module()  # now, not on the thread of the first update: importing it takes a tenth of a second
    return ops.map(value_of)


def field(path: str) -> Callable[[Observable[PVData]], Observable[Any]]:
    """Returns an operator that emits one field of each update's structure.

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

    Args:
        path: The names of the fields from the outside in, separated by dots: ``alarm.severity``, ``value.index``,
            ``display.units``, a table's column ``value.current``. Arrays as for `value`.

    Raises:
        ValueError: The path is none.

    The stream fails with `MissingFieldError`, which names the PV, the path and what there is, if an update has no such
    field.
    """
    if not isinstance(path, str) or not all(path.split(".")):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a path is names of fields separated by dots, such as 'alarm.severity', not {path!r}")
    if path == "value":
        return value()
    numpy_module()

    def select(update: PVData) -> Any:
        return field_of(update, path)

    return ops.map(select)


def _timestamp_of(update: PVData) -> int | None:
    timestamp = update.timestamp
    if timestamp is None and "timeStamp" not in update.data:
        raise MissingFieldError(update.name, "timeStamp", _found([], update.data))
    return timestamp


def timestamps() -> Callable[[Observable[PVData]], Observable[int | None]]:
    """Returns an operator that emits the EPICS time of each update: integer nanoseconds since the Unix epoch, UTC.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import timestamps
        >>> from k2eg_rx.testing import series
        >>> ticks = rx.from_iterable(series("demo:x", [1, 2], every=0.5, start=1_767_225_600_000_000_000))
        >>> ticks.pipe(timestamps()).subscribe(print).dispose()
        1767225600000000000
        1767225600500000000

    An update whose time was never set gives None. The stream fails with `MissingFieldError` if a PV has no time stamp.
    """
    return ops.map(_timestamp_of)
