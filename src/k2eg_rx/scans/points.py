"""The points of a scan: where it goes, and what it measures there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from k2eg_rx.arguments import mapping, non_negative, positive
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import shown


@dataclass(frozen=True, slots=True)
class Readback:
    """The PV that shows when a set point has been reached.

    Attributes:
        uri: Its URI.
        tolerance: Largest distance from the set point, in the units of the PV.
        stays: Seconds to stay within it.
        timeout: Seconds until the scan fails.
    """

    uri: str
    tolerance: float
    stays: float = 0.5
    timeout: float = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError for an argument out of range."""
        _ = PVAddress.parse(self.uri)
        non_negative(self.tolerance, "tolerance")
        non_negative(self.stays, "stays")
        positive(self.timeout, "timeout")


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """A point of a scan.

    Attributes:
        index: Its number, from 0.
        total: How many points the scan has.
        setpoints: The values that were set, by URI.
        readbacks: The update of each read-back when it had settled, by the URI of its set point.
        shots: The measurements: mappings from PV name to update, or what `align` emits.
    """

    index: int
    total: int
    setpoints: Mapping[str, float]
    readbacks: Mapping[str, PVUpdate]
    shots: tuple[Any, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields a row for each shot: point, shot, set points by URI, read-backs and measurements by PV name."""
        before = {"point": self.index, **self.setpoints}
        readbacks = {update.name: update.value for update in self.readbacks.values()}
        for number, shot in enumerate(self.shots):
            updates = cast("Mapping[str, PVUpdate]", shot if isinstance(shot, Mapping) else shot.updates)
            yield before | {"shot": number} | readbacks | {name: update.value for name, update in updates.items()}


def checked_points(setpoints: Mapping[str, Iterable[float]] | Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """Returns the points of a scan: the grid of a mapping, or those that are given.

    Raises:
        ValueError: There are none, their set points differ, or a value is no finite number.
    """
    if isinstance(setpoints, Mapping):
        grid = cast("Mapping[str, Iterable[float]]", setpoints)
        axes = {_uri(uri): [_number(uri, value) for value in values] for uri, values in grid.items()}
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    else:
        given = [mapping(point, "setpoints", "a mapping, or a list of mappings, by PV URI") for point in setpoints]
        points = [{_uri(uri): _number(uri, value) for uri, value in point.items()} for point in given]
    if not points or not points[0]:
        raise ValueError("setpoints must have at least one PV and one value")
    names = list(points[0])
    for point in points:
        if list(point) != names:
            raise ValueError(f"each point must set the same PVs, {', '.join(names)}, got {', '.join(point)}")
    records = [record_of(uri) for uri in names]
    if len(set(records)) < len(records):
        raise ValueError(f"setpoints must be different PVs, got {', '.join(names)}")
    return points


def record_of(uri: str) -> str:
    """Returns what two URIs of the same PV have in common."""
    address = PVAddress.parse(uri)
    field = address.field.removesuffix("$")
    return f"{address.base}.{field}" if address.is_record_field and field != "VAL" else address.base


def _uri(uri: object) -> str:
    return PVAddress.parse(cast("str", uri)).uri


def _number(uri: object, value: object) -> float:
    number = cast("Any", value).item() if getattr(value, "shape", None) == () else value  # a numpy scalar
    try:
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    except OverflowError:  # an integer beyond the range of floats
        is_number = False
    if not is_number:
        raise ValueError(f"{shown(uri)}: values must be finite numbers, got {shown(value)}")
    return cast("float", number)
