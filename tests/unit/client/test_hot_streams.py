"""Activations of monitors and recurring snapshots, in virtual time; the test acts as the gateway."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from reactivex.testing import TestScheduler

import k2eg_rx
from k2eg_rx import Client, OperationError, OperationTimeout, SnapshotProperties, SnapshotType, TransportError
from k2eg_rx.protocol import START_KEY
from k2eg_rx.transport import Record, TransientError

TIMEOUT = 12.0


@pytest.fixture
def client(transport: Any, timers: TestScheduler) -> Iterator[Client]:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with Client("scripted", "test", settings=settings, transport=transport, timeout=TIMEOUT, silence=1e6) as client:
        yield client


class Seen:
    """A subscriber that records its notifications."""

    def __init__(self, stream: Any) -> None:
        self.scheduler = TestScheduler()
        self._items: list[Any] = []
        self._errors: list[Exception] = []
        self.subscription = stream.subscribe(self._items.append, self._errors.append, scheduler=self.scheduler)

    @property
    def items(self) -> list[Any]:
        self.scheduler.start()
        return self._items

    @property
    def values(self) -> list[Any]:
        return [item.value for item in self.items]

    @property
    def errors(self) -> list[Exception]:
        self.scheduler.start()
        return self._errors


def sizes(transport: Any) -> list[int]:
    """Returns the number of PVs of each command."""
    return [len(command.get("pv_name_list", "1")) for command in transport.commands]


def test_a_monitor_with_events_goes_on_without_a_reply(client: Client, transport: Any, timers: TestScheduler) -> None:
    seen = Seen(client.monitor_stream("pva://x"))
    transport.event("x", "x", 1)
    timers.advance_to(1000.0)
    transport.event("x", "x", 2)
    assert (seen.values, seen.errors) == ([1, 2], [])
    assert len(transport.commands) == 1
    assert client.status.unconfirmed == 0


def test_an_activation_without_a_reply_is_repeated_at_growing_intervals(
    client: Client, transport: Any, timers: TestScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen = Seen(client.monitor_stream("pva://x"))
    sent: list[float] = []
    for second in range(1, 300):
        before = len(transport.commands)
        timers.advance_to(float(second))
        sent += [float(second)] * (len(transport.commands) - before)
    assert sent == [12.0, 36.0, 84.0, 144.0, 204.0, 264.0]
    assert (seen.errors, client.status.unconfirmed) == ([], 1)
    assert "no reply" in caplog.text
    transport.reply(transport.commands[-1])
    transport.event("x", "x", 1)
    timers.advance_to(1000.0)
    assert (seen.values, client.status.unconfirmed, client.status.pending) == ([1], 0, 0)
    assert len(transport.commands) == 7


def test_a_late_reply_counts_and_is_the_activations_reply(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    Seen(client.monitor_stream("pva://x"))
    timers.advance_to(20.0)
    assert len(transport.commands) == 2
    transport.reply(transport.commands[0], message="late")
    timers.advance_to(1000.0)
    assert len(transport.commands) == 2
    (reply,) = Seen(client.activation_stream(["pva://x"])).items
    assert reply.message == "late"


def test_only_pvs_without_events_are_activated_again_in_commands_that_a_slow_gateway_can_answer(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    names = [f"pv{number}" for number in range(400)]
    seen = Seen(client.monitor_many_stream([f"pva://{name}" for name in names]))
    assert sizes(transport) == [400]
    for name in names[:160]:  # the gateway starts so many PVs before the client repeats the command
        transport.event(name, name, 1)
    timers.advance_to(TIMEOUT)
    assert sizes(transport) == [400, *[40] * 6]  # such as the gateway starts in a quarter of the timeout
    again = {uri.removeprefix("pva://") for command in transport.commands[1:] for uri in command["pv_name_list"]}
    assert again == set(names[160:])
    for name in names[160:]:
        transport.event(name, name, 1)
    transport.reply(transport.commands[0])
    timers.advance_to(1000.0)
    assert sizes(transport) == [400, *[40] * 6]
    assert (len(seen.values), seen.errors, client.status.pending) == (400, [], 0)


def test_a_slow_reply_makes_later_commands_smaller_until_replies_are_quick(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    def activate(prefix: str, after: float) -> list[int]:
        first = len(transport.commands)
        Seen(client.monitor_many_stream([f"pva://{prefix}{number}" for number in range(100)]))
        commands = transport.commands[first:]
        timers.advance_by(after)
        for command in commands:
            transport.reply(command)
        return [len(command["pv_name_list"]) for command in commands]

    assert activate("a", 10.0) == [100]
    assert activate("b", 0.1) == [30, 30, 30, 10]
    assert activate("c", 0.1) == [100]


def test_a_gateway_that_is_down_gets_few_commands(client: Client, transport: Any, timers: TestScheduler) -> None:
    Seen(client.monitor_many_stream([f"pva://pv{number}" for number in range(400)]))
    timers.advance_to(100.0)
    assert sizes(transport) == [400] * 4


def test_only_a_refusal_ends_the_stream(client: Client, transport: Any, timers: TestScheduler) -> None:
    seen = Seen(client.monitor_many_stream(["pva://x", "pva://y"]))
    timers.advance_to(20.0)
    assert seen.errors == []
    transport.reply(transport.commands[1], error=-2, message="no such thing")
    assert isinstance(seen.errors[0], OperationError)
    timers.advance_to(1000.0)
    assert (len(transport.commands), client.status.monitors, client.status.unconfirmed) == (2, 0, 0)


def test_a_late_refusal_does_not_end_a_confirmed_stream(client: Client, transport: Any, timers: TestScheduler) -> None:
    seen = Seen(client.monitor_stream("pva://x"))
    timers.advance_to(20.0)
    transport.reply(transport.commands[1])
    transport.reply(transport.commands[0], error=-2, message="is starting")
    transport.event("x", "x", 1)
    assert (seen.values, seen.errors) == ([1], [])


@pytest.mark.parametrize(
    ("failure", "ends"), [(TransientError("not delivered in time"), False), (TransportError("forbidden"), True)]
)
def test_a_command_that_the_broker_did_not_take_in_time_is_sent_again(
    client: Client, transport: Any, timers: TestScheduler, failure: TransportError, ends: bool
) -> None:
    transport.out.failure = failure
    seen = Seen(client.monitor_stream("pva://x"))
    transport.out.failure = None
    timers.advance_to(20.0)
    assert [type(error) for error in seen.errors] == ([TransportError] if ends else [])
    assert len(transport.commands) == (not ends)


def test_nothing_is_repeated_before_it_was_sent(client: Client, transport: Any, timers: TestScheduler) -> None:
    transport.event_source.hold = True
    Seen(client.monitor_stream("pva://x"))
    timers.advance_to(100.0)
    assert (transport.commands, client.status.pending) == ([], 1)
    transport.event_source.held[0].set_result(None)
    assert len(transport.commands) == 1
    timers.advance_to(103.0)
    assert len(transport.commands) == 1


def test_an_unsubscribed_stream_is_not_activated_again(client: Client, transport: Any, timers: TestScheduler) -> None:
    seen = Seen(client.monitor_stream("pva://x"))
    seen.subscription.dispose()
    timers.advance_to(100.0)
    assert (len(transport.commands), client.status.pending) == (1, 0)


def test_a_stopped_snapshot_is_not_started_again(client: Client, transport: Any, timers: TestScheduler) -> None:
    Seen(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
    Seen(client.snapshot_stop_stream("s"))
    transport.reply(transport.commands[1])
    timers.advance_to(100.0)
    assert [command["command"] for command in transport.commands] == ["repeating_snapshot", "repeating_snapshot_stop"]


def test_the_check_of_a_snapshots_fields_is_repeated_too(client: Client, transport: Any, timers: TestScheduler) -> None:
    properties = SnapshotProperties("s", ["pva://a"], type=SnapshotType.TIMED_BUFFERED, pv_field_filter_list=["value"])
    seen = Seen(client.snapshot_recurring_stream(properties))
    timers.advance_to(20.0)
    assert [command["command"] for command in transport.commands] == ["get", "get"]
    transport.reply(transport.commands[1], a={"value": 1})
    assert transport.commands[-1]["command"] == "repeating_snapshot"
    assert seen.errors == []


def test_a_call_that_waits_for_the_reply_has_its_own_timeout(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    monitor = Seen(client.monitor_stream("pva://x"))
    waiting = Seen(client.activation_stream(["pva://x"], timeout=5.0))
    timers.advance_to(6.0)
    (error,) = waiting.errors
    assert isinstance(error, OperationTimeout)
    assert str(error) == "Timeout: monitor of pva://x: no reply within 5 s"
    assert monitor.errors == []


def test_commands_wait_for_the_reply_topic_and_are_sent_once(transport: Any, timers: TestScheduler) -> None:
    transport.hold_replies = True
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with Client("scripted", "test", settings=settings, transport=transport, timeout=TIMEOUT) as client:
        Seen(client.monitor_stream("pva://x"))
        timers.advance_to(100.0)
        ready: Future[None] = transport.reply_source.held[0]
        ready.set_result(None)
        assert len(transport.commands) == 1


class TestGatewayStart:
    """A gateway publishes its start; streams that are silent then are activated again."""

    @staticmethod
    def start(transport: Any) -> None:
        record = Record("commands-gateways", 0, 0, START_KEY, b"{}", [("k2eg-ser-type", b"Json")])
        transport.reply_source.receiver.receive([record])

    def test_the_topic_is_read_only_if_a_reply_names_one(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        Seen(client.monitor_stream("pva://x"))
        transport.reply(transport.commands[0])
        assert transport.reply_source.topics == ["test-reply"]
        Seen(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
        transport.reply(transport.commands[1], publishing_topic="s", gateway_topic="commands-gateways")
        assert transport.reply_source.topics == ["test-reply", "commands-gateways"]

    def test_silent_streams_are_activated_within_a_second_and_others_are_not(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        seen = Seen(client.monitor_many_stream(["pva://x", "pva://y"]))
        Seen(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
        Seen(client.snapshot_recurring_stream(SnapshotProperties("stopped", ["pva://a"])))
        for command in list(transport.commands):
            transport.reply(command)
        transport.event("x", "x", 1)
        transport.event("y", "y", 1)
        Seen(client.snapshot_stop_stream("stopped"))
        transport.reply(transport.commands[-1])
        before = len(transport.commands)
        self.start(transport)
        timers.advance_by(0.4)
        transport.event("x", "x", 2)
        assert len(transport.commands) == before
        timers.advance_by(0.7)
        again = [c.get("pv_name") or c["snapshot_name"] for c in transport.commands[before:]]
        assert sorted(again) == ["pva://y", "s"]
        transport.event("y", "y", 2)
        assert (seen.values, seen.errors) == ([1, 1, 2, 2], [])

    def test_a_stream_that_waits_for_its_activation_is_activated_too(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        Seen(client.monitor_stream("pva://x"))
        self.start(transport)
        timers.advance_by(1.1)
        assert len(transport.commands) == 2
        transport.reply(transport.commands[1])
        timers.advance_by(1000.0)
        assert (len(transport.commands), client.status.pending) == (2, 0)

    def test_a_start_after_the_end_of_a_client_has_no_effect(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        Seen(client.monitor_stream("pva://x"))
        client.close(0.1)
        self.start(transport)
        timers.advance_by(2.0)
        assert len(transport.commands) == 1
