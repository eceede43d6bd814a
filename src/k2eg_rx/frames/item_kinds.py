"""Types of the items of a frame. Protocols stand for types of client and operators, which frames do not import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from k2eg_rx.protocol import ColumnBatch, PVData, Severity, Snapshot


class Result(Protocol):
    """Result of one PV of a batch, such as `GetResult`."""

    @property
    def uri(self) -> str:
        """URI of the PV."""
        ...

    @property
    def data(self) -> PVData | None:
        """The value; None if the get failed."""
        ...

    @property
    def error(self) -> Exception | None:
        """The error of a failed get."""
        ...


class Instant(Protocol):
    """Updates of several PVs at one instant, such as `Aligned`."""

    @property
    def timestamp(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    @property
    def pulse_id(self) -> int | None:
        """Pulse id, if the updates are joined by it."""
        ...

    @property
    def updates(self) -> Mapping[str, PVData]:
        """Updates by PV name."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """PVs without an update."""
        ...


class Transition(Protocol):
    """A change of a PV's alarm severity, such as `AlarmTransition`."""

    @property
    def previous(self) -> Severity:
        """Severity before."""
        ...

    @property
    def current(self) -> Severity:
        """Severity after."""
        ...

    @property
    def seconds(self) -> float:
        """Duration of the previous severity."""
        ...

    @property
    def timestamp(self) -> int | None:
        """Nanoseconds since the Unix epoch."""
        ...

    @property
    def update(self) -> PVData:
        """The update with the new severity."""
        ...


class TimeWindow(Protocol):
    """Values of a PV in a time window, such as `Window`."""

    @property
    def name(self) -> str:
        """Name of the PV."""
        ...

    @property
    def start(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    @property
    def end(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    @property
    def rate(self) -> float:
        """Updates per second."""
        ...

    @property
    def late(self) -> int:
        """Late updates that were dropped."""
        ...

    @property
    def excluded(self) -> int:
        """Number of values without a part in the statistics."""
        ...

    @property
    def mean(self) -> Any:
        """The mean; `std`, `min` and `max` likewise."""
        ...

    @property
    def std(self) -> Any:
        """The standard deviation."""
        ...

    @property
    def min(self) -> Any:
        """The least value."""
        ...

    @property
    def max(self) -> Any:
        """The greatest value."""
        ...

    def __len__(self) -> int: ...


Framable: TypeAlias = PVData | ColumnBatch | Snapshot | Result | Instant | Transition | TimeWindow


def is_transition(item: object) -> bool:
    """Whether an item is a `Transition`."""
    return hasattr(item, "previous") and hasattr(item, "current") and hasattr(item, "update")


def is_window(item: object) -> bool:
    """Whether an item is a `TimeWindow`."""
    return hasattr(item, "start") and hasattr(item, "mean") and hasattr(item, "excluded")


def is_instant(item: object) -> bool:
    """Whether an item is an `Instant`."""
    return hasattr(item, "updates") and hasattr(item, "timestamp") and hasattr(item, "missing")


def is_result(item: object) -> bool:
    """Whether an item is a `Result`."""
    return hasattr(item, "uri") and hasattr(item, "data") and hasattr(item, "error")
