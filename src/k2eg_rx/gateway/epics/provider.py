"""What the gateway needs of an EPICS protocol: one small interface, implemented over p4p and over aioca.

Structures go out in the form of `k2eg_rx.protocol.structures`; arrays may be numpy arrays, which the encoders accept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress

# The types of a PV's fields by EPICS pvData names (boolean, byte, ubyte, short, ushort, int, uint, long, ulong,
# float, double, string; [] behind for an array), "enum", "union", "any", "structure";
# a nested map for a table's columns.
TypeMap = dict[str, Any]

# Seconds that a put's reply waits for the record to be processed to its end. A refusal comes at once, nearly every
# record is done by then, and who moves a motor is told that it was taken, not that it has arrived.
PUT_COMPLETION = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """A PV as read.

    Attributes:
        structure: Its value.
        types: The types of its fields: ``{"value": "short[]"}``; of a table ``{"value": {"column": "double[]"}}``.
    """

    structure: Structure
    types: TypeMap = field(default_factory=dict[str, Any])


class ProviderError(Exception):
    """EPICS refused or could not; the text is what the server or the library said."""


class ProviderTimeout(ProviderError):
    """The PV did not answer in time."""


class Subscription(Protocol):
    """A live EPICS subscription."""

    def close(self) -> None:
        """Ends it; no callback is made after it returns, but for one under way. Idempotent; any thread."""
        ...


class Provider(Protocol):
    """One EPICS protocol's client. Methods may be called on any thread and never block; futures fail with
    `ProviderError`. Callbacks come on the provider's own threads, in order for one subscription; one that raises
    is logged and closes nothing."""

    def get(self, address: PVAddress, timeout: float) -> Future[Reading]:
        """Reads a PV (or the field the address names), within `timeout` seconds."""
        ...

    def put(self, address: PVAddress, fields: Mapping[str, Any], timeout: float) -> Future[None]:
        """Writes fields of a PV, checking their types first: nothing is written that would not read back as given."""
        ...

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
    ) -> Subscription:
        """Subscribes to a PV: its value now, then each update; reconnects for as long as it is open."""
        ...

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent."""
        ...
