"""The buffer of the newest items: updates and connections of a PV."""

from __future__ import annotations

from typing import Any

from k2eg_rx.delivery.buffers import LatestBuffer, RecordRun, RunBuffer
from k2eg_rx.protocol import ConnectionEvent, PVState, Record
from k2eg_rx.pv import PVAddress
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


def run_of(name: str, *offsets: int) -> RecordRun:
    return RecordRun(PVAddress.parse(f"pva://{name}"), [Record(name, 0, offset, None, b"") for offset in offsets])


def taken(buffer: RunBuffer, count: int = 100) -> list[Any]:
    return [
        [record.offset for record in each.records] if isinstance(each, RecordRun) else each
        for each in buffer.take(count)
    ]


def test_runs_are_counted_by_their_events_and_dropped_from_the_oldest_on() -> None:
    buffer, tick = RunBuffer(4), ()
    assert buffer.add([run_of("a", 1, 2), tick, run_of("b", 3, 4)]) == 0
    assert len(buffer) == 4
    assert buffer.add([run_of("a", 5, 6, 7)]) == 3
    assert (len(buffer), taken(buffer)) == (4, [tick, [4], [5, 6, 7]])
    assert (len(buffer), taken(buffer)) == (0, [])


def test_runs_are_taken_up_to_a_number_of_events_and_none_is_divided() -> None:
    buffer = RunBuffer(None)
    assert buffer.add([run_of("a", 1, 2), run_of("b", 3), (), run_of("a", *range(100))]) == 0
    assert taken(buffer, 3) == [[1, 2], [3]]
    assert taken(buffer, 2) == [(), list(range(100))]
