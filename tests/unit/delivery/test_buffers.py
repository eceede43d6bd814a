"""The buffer of the newest items: updates and connections of a PV."""

from __future__ import annotations

from typing import Any

from k2eg_rx.delivery.buffers import LatestBuffer
from k2eg_rx.protocol import ConnectionEvent, PVState
from k2eg_rx.testing import update

NEVER, LOST, CONNECTED = PVState.NEVER_CONNECTED, PVState.DISCONNECTED, PVState.CONNECTED


def connection(state: PVState, uri: str = "pva://a") -> ConnectionEvent:
    return ConnectionEvent("a", uri, state, 0)


def contents(*items: Any) -> tuple[list[Any], int]:
    """Adds items one by one; returns what is left, and how many were dropped."""
    buffer: LatestBuffer[Any] = LatestBuffer()
    dropped = sum(buffer.add([item]) for item in items)
    left = buffer.take(100)
    return [item.state if isinstance(item, ConnectionEvent) else item.value for item in left], dropped


def test_the_newest_update_and_the_newest_connection_are_kept_in_the_order_of_their_arrival() -> None:
    one, two, three = (update("a", value) for value in (1, 2, 3))
    assert contents(connection(CONNECTED), one, connection(LOST)) == ([1, LOST], 1)
    assert contents(connection(CONNECTED), one, two, connection(LOST), connection(CONNECTED), three) == (
        [CONNECTED, 3],
        4,
    )
    assert contents(one, connection(LOST), connection(CONNECTED)) == ([1, CONNECTED], 1)


def test_updates_alone_keep_the_place_of_their_pv() -> None:
    assert contents(update("a", 1), update("b", 2), update("a", 3)) == ([3, 2], 1)


def test_two_protocols_of_a_pv_are_two_pvs() -> None:
    assert contents(connection(NEVER), connection(LOST, "ca://a")) == ([NEVER, LOST], 0)
