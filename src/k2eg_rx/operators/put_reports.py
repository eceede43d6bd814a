"""What `put_to` and `put_many_to` emit, and what they need of a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from reactivex import Observable

from k2eg_rx.protocol import ConnectionEvent


class PutClient(Protocol):
    """The part of `k2eg_rx.Client` that `put_to` uses."""

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        """Returns a single-item Observable of the reply; each subscription sends the put."""
        ...


class PutManyClient(Protocol):
    """The part of `k2eg_rx.Client` that `put_many_to` uses."""

    def get_many_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Any]:
        """Returns one result per PV."""
        ...

    def put_many_stream(
        self, values: Mapping[str, object], timeout: float | None = None, *, all_or_none: bool
    ) -> Observable[Any]:
        """Returns one result per PV; each subscription sends the puts."""
        ...

    def connection_stream(self, uris: Iterable[str]) -> Observable[ConnectionEvent]:
        """Returns the states of the PVs' connections."""
        ...


class PutOutcome(StrEnum):
    """What `put_to` did with a number.

    Attributes:
        WRITTEN: The gateway confirmed the put.
        CLAMPED: The gateway confirmed the put of a limit in place of the number.
        CLIPPED: The gateway confirmed the put of a number nearer to the one before, because of `max_step`.
        DRY_RUN: A dry run; the put was not sent.
        REFUSED: The number was invalid, outside the limits or too far away, or the loop was open; no put was sent.
        FAILED: The put failed. After an `OperationTimeout` the gateway may still write the value.
        PARTIAL: Of several PVs some were written, and the puts of the others failed.
    """

    WRITTEN = "written"
    CLAMPED = "clamped"
    CLIPPED = "clipped"
    DRY_RUN = "dry_run"
    REFUSED = "refused"
    FAILED = "failed"
    PARTIAL = "partial"


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


@dataclass(frozen=True, slots=True)
class PutStepReport:
    """Outcome of one vector of the stream: a step of several PVs.

    Attributes:
        uris: URIs of the PVs.
        wanted: Item of the stream.
        values: Values of the puts by URI, also in a dry run; None if the step was refused.
        outcome: What was done with it.
        error: Why it was refused or failed, with the PV; otherwise None.
        errors: What is wrong by URI, of the PVs whose numbers were refused or whose puts failed. They say of each put
            whether it may still be carried out.
        time: When the puts were sent or the step refused: UTC, by the scheduler's clock.
        skipped: Earlier steps that this one replaced while they waited.
    """

    uris: tuple[str, ...]
    wanted: Any
    values: Mapping[str, float] | None
    outcome: PutOutcome
    error: Exception | None
    errors: Mapping[str, Exception]
    time: datetime
    skipped: int
