"""What can be put into a frame, told by its shape: frames know neither batches nor operators.

Types only; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from k2eg_rx.protocol import PVData, Snapshot


class Result(Protocol):
    """What became of one PV of a batch, such as `GetResult`."""

    @property
    def uri(self) -> str:
        """The PV."""
        ...

    @property
    def data(self) -> PVData | None:
        """Its value; None if there is an error."""
        ...

    @property
    def error(self) -> Exception | None:
        """What went wrong, if something did."""
        ...


class Instant(Protocol):
    """Several PVs at one instant, such as `Aligned`."""

    @property
    def timestamp(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    @property
    def updates(self) -> Mapping[str, PVData]:
        """By PV name."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """The PVs without a value."""
        ...


Framable: TypeAlias = PVData | Snapshot | Result | Instant


def is_instant(item: object) -> bool:
    """Whether an item is an `Instant`."""
    return hasattr(item, "updates") and hasattr(item, "timestamp") and hasattr(item, "missing")


def is_result(item: object) -> bool:
    """Whether an item is a `Result`."""
    return hasattr(item, "uri") and hasattr(item, "data") and hasattr(item, "error")
