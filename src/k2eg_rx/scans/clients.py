"""The part of a client that scans use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from reactivex import Observable

from k2eg_rx.client import GetResult, PutResult
from k2eg_rx.protocol import ConnectionEvent, PVUpdate


class ScanClient(Protocol):
    """The part of `k2eg_rx.Client` that scans use."""

    def get_many_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[GetResult]:
        """Returns one result per PV."""
        ...

    def put_many_stream(
        self, values: Mapping[str, object], timeout: float | None = None, *, wait: bool = False
    ) -> Observable[PutResult]:
        """Returns one result per PV; each subscription sends the puts."""
        ...

    def monitor_stream(self, uri: str, *, connection: Literal[True]) -> Observable[PVUpdate | ConnectionEvent]:
        """Returns the updates of a PV, and the events of its connection."""
        ...

    def monitor_many_stream(self, uris: Iterable[str], *, last: bool = True) -> Observable[PVUpdate]:
        """Returns the updates of several PVs."""
        ...

    def values_ready_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Mapping[str, Any]]:
        """Returns the first values of several PVs, once all of them have one."""
        ...
