"""What `put_to` emits, and what it needs of a client."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from reactivex import Observable


class PutClient(Protocol):
    """The part of `k2eg_rx.Client` that `put_to` uses."""

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        """Returns a single-item Observable of the reply; each subscription sends the put."""
        ...


class PutOutcome(StrEnum):
    """What `put_to` did with a number.

    Attributes:
        WRITTEN: The gateway confirmed the put.
        CLAMPED: The gateway confirmed the put of a limit in place of the number.
        DRY_RUN: A dry run; the put was not sent.
        REFUSED: The number was invalid or outside the limits, or an input was missing; no put was sent.
        FAILED: The put failed. After an `OperationTimeout` the gateway may still write the value.
    """

    WRITTEN = "written"
    CLAMPED = "clamped"
    DRY_RUN = "dry_run"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PutReport:
    """Outcome of one number of the stream.

    Attributes:
        uri: URI of the PV.
        wanted: Item of the stream.
        value: Value of the put, also in a dry run; None if the number was refused.
        outcome: What was done with it.
        error: Why it was refused or failed; otherwise None.
        time: When the put was sent or the number refused: UTC, by the scheduler's clock.
        skipped: Earlier numbers that this one replaced while they waited.
    """

    uri: str
    wanted: Any
    value: float | None
    outcome: PutOutcome
    error: Exception | None
    time: datetime
    skipped: int
