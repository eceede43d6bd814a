"""Types of the items of a frame. Protocols stand for types of client and operators, which frames do not import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from k2eg_rx.protocol import PVData, Snapshot


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


Framable: TypeAlias = PVData | Snapshot | Result | Instant


def is_instant(item: object) -> bool:
    """Whether an item is an `Instant`."""
    return hasattr(item, "updates") and hasattr(item, "timestamp") and hasattr(item, "missing")


def is_result(item: object) -> bool:
    """Whether an item is a `Result`."""
    return hasattr(item, "uri") and hasattr(item, "data") and hasattr(item, "error")
