"""Connections of PVs as streams of a client, with the real gateway in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from reactivex import Observable

from k2eg_rx import Client, ConnectionEvent, OperationTimeout, Overflow, PVUpdate, first
from k2eg_rx.testing import ScriptedGateway

X, DEAD = "pva://demo:x", "ca://demo:dead"


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as scripted:
        yield scripted


@pytest.fixture
def client(gateway: ScriptedGateway) -> Iterator[Client]:
    with gateway.client() as connected:
        yield connected


def seen(stream: Observable[Any]) -> list[Any]:
    """Subscribes; returns what follows: names and states of connections, values of updates."""
    items: list[Any] = []

    def on_next(item: PVUpdate | ConnectionEvent) -> None:
        items.append((item.name, item.state.value) if isinstance(item, ConnectionEvent) else item.value)

    stream.subscribe(on_next, items.append, lambda: items.append("completed"))
    return items


def test_connections_are_a_stream_of_states_current_ones_first(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    early = seen(client.connection_stream([X, DEAD]))
    gateway.advance(6.0)
    assert early == [("demo:x", "connected"), ("demo:dead", "never_connected")]
    pv.disconnect()
    late = seen(client.connection_stream([X, DEAD]))
    gateway.settle()
    assert late == [("demo:x", "disconnected"), ("demo:dead", "never_connected")]
    pv.connect()
    gateway.pv("demo:dead", 2)
    gateway.settle()
    assert late[2:] == [("demo:x", "connected"), ("demo:dead", "connected")]
    assert early[2:] == [("demo:x", "disconnected"), *late[2:]]


def test_a_new_client_learns_at_once_that_a_pv_is_down(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen(client.monitor_many_stream([X, DEAD]))
    gateway.advance(6.0)
    pv.disconnect()
    since = gateway.clock.nanoseconds
    gateway.advance(100.0)
    with gateway.client("another") as other:
        events: list[ConnectionEvent] = []
        other.connection_stream([X, DEAD]).subscribe(events.append)
        gateway.settle()
    assert [event.state.value for event in events] == ["disconnected", "never_connected"]
    assert abs(events[0].since - since) < 1_000_000
    assert [(event.uri, event.protocol) for event in events] == [(X, "pva"), (DEAD, "ca")]


@pytest.mark.parametrize("overflow", Overflow)
def test_connections_stand_in_order_among_the_updates(
    gateway: ScriptedGateway, client: Client, overflow: Overflow
) -> None:
    pv = gateway.pv("demo:x", 1)
    both, values = seen(client.monitor_stream(X, connection=True, overflow=overflow)), seen(client.monitor_stream(X))
    gateway.settle()
    pv.post(2)
    pv.disconnect()
    assert both == [("demo:x", "connected"), 1, 2, ("demo:x", "disconnected")]
    pv.connect()
    assert both[4:] == [("demo:x", "connected"), 2], "although the value is the same"
    pv.post(3)
    assert both[6:] == [3]
    assert values == [1, 2, 3]


def test_subscribers_of_connections_and_updates_share_one_monitor(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1)
    watching = client.connection_stream([X]).subscribe()
    gateway.settle()
    values = seen(client.monitor_stream(X))
    gateway.settle()
    assert (values, client.status.monitors) == ([1], 1)
    assert len(gateway.commands) == 1
    watching.dispose()
    assert client.status.monitors == 1


def test_connections_end_with_the_client(gateway: ScriptedGateway) -> None:
    with gateway.client() as client:
        events = seen(client.connection_stream([DEAD]))
        gateway.settle()
    gateway.settle()
    assert events == ["completed"]


def test_a_history_has_no_connections(client: Client) -> None:
    with pytest.raises(ValueError, match="connection must be False with since"):
        client.monitor_stream(X, since=timedelta(seconds=1), connection=True)  # type: ignore[call-overload]


# values_ready_stream


def test_values_are_ready_once_each_pv_has_one(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1)
    ready: list[Any] = []
    client.values_ready_stream([X, DEAD], timeout=20.0).subscribe(ready.append)
    gateway.advance(10.0)
    assert ready == []
    gateway.pv("demo:dead", 2)
    gateway.settle()
    assert [{uri: update.value for uri, update in values.items()} for values in ready] == [{X: 1, DEAD: 2}]
    assert client.status.monitors == 0


def test_values_that_are_there_are_ready_at_once(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1)
    seen(client.monitor_stream(X))
    gateway.settle()
    before = gateway.clock.elapsed
    assert first(client.values_ready_stream([X]))[X].value == 1
    assert gateway.clock.elapsed == before


def test_a_disconnected_pv_is_not_ready(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen(client.monitor_stream(X))
    gateway.settle()
    pv.disconnect()
    with pytest.raises(OperationTimeout, match=r"1 of 1 PVs: pva://demo:x \(disconnected since \d\d:\d\d:\d\d UTC\)"):
        first(client.values_ready_stream([X], timeout=1.0))
    ready: list[Any] = []
    client.values_ready_stream([X]).subscribe(ready.append)
    gateway.settle()
    assert ready == []
    pv.connect()
    assert [values[X].value for values in ready] == [1]


def test_the_error_names_ten_pvs_the_number_of_the_others_and_why(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1)
    missing = [f"pva://demo:m{number:02}" for number in range(12)]
    with pytest.raises(OperationTimeout) as caught:
        first(client.values_ready_stream([*missing, X], timeout=6.0))
    text = str(caught.value)
    assert text.startswith(
        "Timeout: values of 13 PVs from pva://demo:m00 on: no value of 12 of 13 PVs: pva://demo:m00 ("
    )
    assert text.count("(never connected)") == 10
    assert "pva://demo:m09 (never connected) and 2 more within 6 s" in text
    with pytest.raises(OperationTimeout, match=r"pva://demo:m12 \(no event\)"):
        first(client.values_ready_stream(["pva://demo:m12"], timeout=1.0))


def test_the_error_says_that_no_gateway_replies(gateway: ScriptedGateway, client: Client) -> None:
    gateway.go_down()
    with pytest.raises(OperationTimeout, match=r"pva://demo:x \(the gateway has not replied\)"):
        first(client.values_ready_stream([X], timeout=20.0))


def test_members_of_a_group_cannot_wait_for_values(gateway: ScriptedGateway) -> None:
    with gateway.client("one", "work") as member, pytest.raises(ValueError, match="without group_name, got 'work'"):
        member.values_ready_stream([X])


def test_values_are_not_ready_when_the_client_is_closed(gateway: ScriptedGateway) -> None:
    with gateway.client() as client:
        failed = seen(client.values_ready_stream([DEAD]))
        gateway.settle()
    gateway.settle()
    assert [type(error).__name__ for error in failed] == ["ClientClosedError"]
