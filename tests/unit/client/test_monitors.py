"""Monitors of one PV over both protocols; the test acts as the gateway."""

from datetime import timedelta
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx import Client, SnapshotProperties
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.transport import Record


class Seen:
    """A subscriber that records its notifications."""

    def __init__(self, stream: Any) -> None:
        self.scheduler = TestScheduler()
        self._items: list[Any] = []
        self._errors: list[Exception] = []
        self.subscription = stream.subscribe(self._items.append, self._errors.append, scheduler=self.scheduler)

    @property
    def items(self) -> list[tuple[str, Any]]:
        """The updates' protocols and values."""
        self.scheduler.start()
        return [(item.address.protocol, item.value) for item in self._items]

    @property
    def errors(self) -> list[Exception]:
        self.scheduler.start()
        return self._errors


def event(transport: Any, name: str, value: int, protocol: str = "") -> None:
    """Publishes a value of PV `x` under a name, with the header of a protocol, if any."""
    headers = [("k2eg-ser-type", b"Msgpack")]
    if protocol:
        headers.append(("k2eg-protocol", protocol.encode()))
    record = Record("x", 0, value, name.encode(), pack({name: {"value": value}}), headers)
    transport.event_source.receiver.receive([record])


@pytest.mark.parametrize("overflow", ["block", "latest"])
@pytest.mark.parametrize(("first", "second"), [("pva", "ca"), ("ca", "pva")])
def test_both_protocols_of_a_pv_are_requested_and_told_apart(
    client: Client, transport: Any, first: str, second: str, overflow: str
) -> None:
    one = Seen(client.monitor_stream(f"{first}://x", overflow=overflow))
    two = Seen(client.monitor_stream(f"{second}://x", overflow=overflow))
    both = Seen(client.monitor_many_stream([f"{first}://x", f"{second}://x"], overflow=overflow))
    assert [(c["pv_name"], c["uri_keys"]) for c in transport.commands] == [
        (f"{first}://x", True),
        (f"{second}://x", True),
    ]
    event(transport, "x", 1, first)  # before the replies
    event(transport, f"{second}://x", 2, second)
    transport.reply(transport.commands[0], uri_keys=[])
    transport.reply(transport.commands[1], uri_keys=[f"{second}://x"])
    assert (one.items, two.items) == ([(first, 1)], [(second, 2)])
    event(transport, "x", 3, first)
    event(transport, f"{second}://x", 4, second)
    assert (one.items, two.items) == ([(first, 1), (first, 3)], [(second, 2), (second, 4)])
    assert set(both.items[-2:]) == {(first, 3), (second, 4)}
    assert client.status.monitors == 2
    one.subscription.dispose()
    both.subscription.dispose()
    event(transport, "x", 5, first)
    event(transport, f"{second}://x", 6, second)
    assert (one.items[-1], two.items[-1]) == ((first, 3), (second, 6))
    two.subscription.dispose()
    assert client.status.monitors == 0
    assert client.status.discarded == 0


def test_events_that_another_client_requested_over_the_other_protocol_are_ignored(
    client: Client, transport: Any
) -> None:
    seen = Seen(client.monitor_stream("pva://x"))
    event(transport, "x", 1, "ca")
    transport.reply(transport.commands[0], uri_keys=["pva://x"])
    event(transport, "x", 2, "ca")
    event(transport, "pva://x", 3, "pva")
    assert seen.items == [("pva", 3)]
    assert client.status.discarded == 0


def test_a_gateway_that_uses_the_name_for_the_other_protocol_since_its_start_is_asked_again(
    client: Client, transport: Any
) -> None:
    seen = Seen(client.monitor_stream("pva://x"))
    transport.reply(transport.commands[0], uri_keys=[])
    event(transport, "x", 1, "ca")
    event(transport, "x", 2, "ca")
    assert (seen.items, seen.errors) == ([], [])
    assert [c["pv_name"] for c in transport.commands] == ["pva://x"] * 2
    transport.reply(transport.commands[1], uri_keys=["pva://x"])
    event(transport, "pva://x", 3, "pva")
    assert seen.items == [("pva", 3)]


def test_a_gateway_that_does_not_tell_protocols_apart_ends_the_second_stream_with_the_reason(
    client: Client, transport: Any
) -> None:
    one, two = Seen(client.monitor_stream("ca://x")), Seen(client.monitor_stream("pva://x"))
    transport.reply(transport.commands[0])
    transport.reply(transport.commands[1])
    event(transport, "x", 1)
    assert (one.items, one.errors, two.items) == ([("ca", 1)], [], [])
    (error,) = two.errors
    assert isinstance(error, ValueError)
    assert str(error) == (
        "pva://x cannot be monitored beside ca://x in one client: this gateway publishes a PV over one protocol only"
        " and does not say which; use one of them"
    )
    with pytest.raises(ValueError, match="cannot be monitored beside ca://x"):
        client.monitor_stream("pva://x")
    with pytest.raises(ValueError, match="cannot be monitored beside"):
        client.monitor_many_stream(["pva://y", "ca://y"])
    assert client.status.monitors == 1
    one.subscription.dispose()
    again = Seen(client.monitor_stream("pva://x"))
    event(transport, "x", 2)
    assert again.items == [("pva", 2)]


def test_both_protocols_in_one_list_are_refused_by_such_a_gateway(client: Client, transport: Any) -> None:
    seen = Seen(client.monitor_many_stream(["pva://x", "ca://x", "pva://y"]))
    transport.reply(transport.commands[0])
    assert "ca://x cannot be monitored beside pva://x" in str(seen.errors[0])
    assert client.status.monitors == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda client, uris: client.snapshot_stream(uris),
        lambda client, uris: client.snapshot_recurring_stream(SnapshotProperties("s", uris)),
        lambda client, uris: client.snapshot_events_stream(SnapshotProperties("s", uris)),
        lambda client, uris: client.replay_stream(uris, timedelta(minutes=1)),
        lambda client, uris: client.monitor_many_stream(uris, since=timedelta(minutes=1)),
    ],
)
def test_what_is_by_name_refuses_both_protocols_of_a_pv_by_the_call(client: Client, transport: Any, call: Any) -> None:
    with pytest.raises(ValueError, match=r"pva://x and ca://x cannot be requested together: .* by the PV's name"):
        call(client, ["pva://x", "pva://y", "ca://x"])
    assert transport.commands == []
