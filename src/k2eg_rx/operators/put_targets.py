"""What `put_to` and `put_many_to` write to.

Thread safety: targets are immutable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from reactivex import Observable

from k2eg_rx.operators.put_reports import PutOutcome
from k2eg_rx.operators.put_setpoints import Setpoint
from k2eg_rx.protocol import ConnectionEvent, PVData

ReportT = TypeVar("ReportT")


class PutTarget(ABC, Generic[ReportT]):
    """The PVs that a stream is written to.

    Args:
        name: Names them in texts.
        uris: Their URIs.
    """

    def __init__(self, name: str, uris: tuple[str, ...]) -> None:
        self.name = name
        self.uris = uris

    @property
    def connections(self) -> Observable[ConnectionEvent] | None:
        """The states of PVs that must be connected; None: nothing is known of them."""
        return None

    @abstractmethod
    def checked(self, item: Any) -> Setpoint:
        """Returns an item of the stream, checked against the limits."""

    @abstractmethod
    def read(self) -> Observable[Mapping[str, PVData]]:
        """Returns the PVs' values, by URI, as a single-item Observable."""

    @abstractmethod
    def put(self, values: Mapping[str, float]) -> Observable[Mapping[str, Exception]]:
        """Returns the errors of the puts, by URI, as a single-item Observable; each subscription sends them."""

    @abstractmethod
    def report(
        self, setpoint: Setpoint, outcome: PutOutcome, errors: Mapping[str, Exception], time: datetime, skipped: int
    ) -> ReportT:
        """Returns the report of an item; its error is that of the setpoint if it was refused."""

    def shown(self, setpoint: Setpoint) -> tuple[object, object]:
        """Returns value and item for a line of the log."""
        return setpoint.values, setpoint.wanted
