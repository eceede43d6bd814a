"""Waits until a read-back has come to a value: `settle`."""

from __future__ import annotations

from k2eg_rx.client import first
from k2eg_rx.operators import settled
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.scans.clients import ScanClient


def settle(
    client: ScanClient, readback: str, target: float, tolerance: float, *, stays: float = 0.5, timeout: float = 30.0
) -> PVUpdate:
    """Blocks until a PV has been within `tolerance` of `target` for `stays` seconds; returns its newest update.

    Args:
        client: A `k2eg_rx.Client`.
        readback: URI of the PV.
        target: Value to reach, in the units of the PV.
        tolerance: Largest distance from it.
        stays: Seconds to stay there; updates that are outside, INVALID, or the loss of the connection begin them anew.
        timeout: Seconds to wait at most.

    Raises:
        OperationTimeout: It did not settle; the text says what its last value was.
        ValueError: An argument is out of range.

    Example:
        >>> from k2eg_rx.scans import settle
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     _ = gateway.pv("mag:readback", 4.99)
        ...     print(settle(client, "pva://mag:readback", 5.0, 0.05).value)
        4.99
    """
    operator = settled(target, tolerance, stays=stays, timeout=timeout)
    return first(client.monitor_stream(readback, connection=True).pipe(operator))
