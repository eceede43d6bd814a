"""The client's streams; the test acts as the gateway, and subscribers run on a virtual scheduler."""

import os
from typing import Any

import pytest
from reactivex.testing import TestScheduler

import k2eg_rx
from k2eg_rx import (
    Client,
    ClientClosedError,
    ForkError,
    OperationError,
    PVData,
    PVUpdate,
    Scalar,
    Snapshot,
    SnapshotProperties,
    SnapshotType,
    TransportError,
)
from k2eg_rx.errors import K2EGError


class Seen:
    """A subscriber that records its notifications."""

    def __init__(self) -> None:
        self.scheduler = TestScheduler()
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.ends = 0

    def of(self, stream: Any) -> "Seen":
        self.subscription = stream.subscribe(self.items.append, self.errors.append, self._end, scheduler=self.scheduler)
        return self

    def _end(self) -> None:
        self.ends += 1

    def now(self) -> "Seen":
        self.scheduler.start()
        return self

    def values(self) -> list[Any]:
        return [item.value for item in self.now().items]


def test_get_sends_one_command_per_subscription_and_emits_the_pv(client: Client, transport: Any) -> None:
    stream = client.get_stream("pva://x:y")
    assert transport.commands == []
    one, two = Seen().of(stream), Seen().of(stream)
    assert [command["command"] for command in transport.commands] == ["get", "get"]
    assert transport.commands[0]["pv_name"] == "pva://x:y"
    assert transport.commands[0]["reply_topic"] == "test-reply"
    assert transport.out.topics == ["commands", "commands"]
    transport.reply(transport.commands[1], **{"x:y": {"value": 2}})
    assert (one.values(), two.values()) == ([], [2])
    assert two.ends == 1
    assert isinstance(two.items[0], PVData)
    assert two.items[0].name == "x:y"


def test_a_reply_of_another_instance_is_ignored(client: Client, transport: Any) -> None:
    seen = Seen().of(client.get_stream("pva://x"))
    transport.reply({"reply_topic": "test-reply", "reply_id": "of another instance"}, x={"value": 1})
    assert seen.now().items == []
    assert client.status.discarded == 0


def test_a_failed_get_is_an_operation_error_with_all_details(client: Client, transport: Any) -> None:
    seen = Seen().of(client.get_stream("pva://x"))
    transport.reply(transport.commands[0], error=-3, message="Timeout operation")
    error = seen.now().errors[0]
    assert isinstance(error, OperationError)
    assert (error.error, error.message, error.operation, error.subject) == (-3, "Timeout operation", "get", "pva://x")
    assert client.status.pending == 0


def test_a_spurious_reply_repeats_the_get_once(client: Client, transport: Any) -> None:
    seen = Seen().of(client.get_stream("pva://x"))
    transport.reply(transport.commands[0], error=-2, message="Operaton cancelled")
    transport.reply(transport.commands[1], x={"value": 1})
    assert seen.values() == [1]


def test_undecodable_replies_are_skipped_and_counted(client: Client, transport: Any) -> None:
    seen = Seen().of(client.get_stream("pva://x"))
    transport.reply({"reply_topic": "t", "reply_id": 5})
    transport.reply(transport.commands[0], x={"value": 1})
    assert seen.values() == [1]
    assert client.status.discarded == 1


def test_nothing_is_sent_before_the_reply_topic_is_read(transport: Any) -> None:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    transport.hold_replies = True
    with Client("scripted", "test", settings=settings, transport=transport) as client:
        seen = Seen().of(client.get_stream("pva://x"))
        assert transport.commands == []
        transport.reply_source.held[0].set_result(None)
        assert len(transport.commands) == 1
        transport.reply(transport.commands[0], x={"value": 1})
        assert seen.values() == [1]


def test_a_failed_send_fails_the_request(transport: Any, client: Client) -> None:
    future = client._core._transports.ready  # pyright: ignore[reportPrivateUsage]
    assert future.done()
    transport.out.failure = TransportError("topic 'commands' does not exist")
    seen = Seen().of(client.get_stream("pva://x"))
    assert isinstance(seen.now().errors[0], TransportError)
    assert client.status.pending == 0


def test_subscribers_of_a_pv_share_one_monitor_until_the_last_unsubscribes(client: Client, transport: Any) -> None:
    one, two = Seen().of(client.monitor_stream("pva://x:y")), Seen().of(client.monitor_stream("pva://x:y"))
    assert [(c["command"], c["pv_name"], c["monitor_dest_topic"]) for c in transport.commands] == [
        ("monitor", "pva://x:y", "x_y")
    ]
    transport.event("x_y", "x:y", 1, 2)
    late = Seen().of(client.monitor_stream("pva://x:y"))
    transport.event("x_y", "x:y", 3)
    assert (one.values(), two.values(), late.values()) == ([1, 2, 3], [1, 2, 3], [2, 3])
    assert isinstance(one.items[0], PVUpdate)
    one.subscription.dispose()
    two.subscription.dispose()
    assert transport.event_source.topics == ["x_y"]
    late.subscription.dispose()
    assert transport.event_source.topics == []
    assert client.status.monitors == 0


def test_the_command_waits_for_the_topics_position(client: Client, transport: Any) -> None:
    transport.event_source.hold = True
    seen = Seen().of(client.monitor_stream("pva://x"))
    assert transport.commands == []
    transport.event_source.held[0].set_result(None)
    assert len(transport.commands) == 1
    transport.event("x", "x", 1)
    transport.reply(transport.commands[0])
    assert seen.values() == [1]


def test_a_failed_activation_fails_the_stream_and_the_next_subscription_retries(client: Client, transport: Any) -> None:
    seen = Seen().of(client.monitor_stream("pva://x"))
    transport.reply(transport.commands[0], error=-2, message="is starting")
    assert isinstance(seen.now().errors[0], OperationError)
    assert transport.event_source.topics == []
    again = Seen().of(client.monitor_stream("pva://x"))
    transport.reply(transport.commands[1])
    transport.event("x", "x", 1)
    assert again.values() == [1]
    assert again.errors == []


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.monitor_stream("pva://a"),
        lambda client: client.monitor_many_stream(["pva://a", "pva://b"]),
        lambda client: client.snapshot_recurring_stream(SnapshotProperties("a", ["pva://a"])),
        lambda client: client.snapshot_events_stream(SnapshotProperties("a", ["pva://a"])),
    ],
)
def test_a_subscription_that_fails_at_once_leaves_no_dead_route(client: Client, transport: Any, make: Any) -> None:
    transport.event_source.failure = RuntimeError("no thread")
    failed = Seen().of(make(client))
    assert [str(error) for error in failed.now().errors] == ["no thread"]
    assert (client.status.monitors, client.status.pending, transport.event_source.topics) == (0, 0, [])
    transport.event_source.failure = None
    again = Seen().of(make(client))
    assert "a" in transport.event_source.topics
    assert again.now().errors == []


def test_a_subscription_that_fails_leaves_other_subscribers_their_pvs(client: Client, transport: Any) -> None:
    first = Seen().of(client.monitor_stream("pva://a"))
    transport.event_source.failure = RuntimeError("no thread")
    failed = Seen().of(client.monitor_many_stream(["pva://a", "pva://b"]))
    transport.event("a", "a", 1)
    assert (first.values(), failed.values(), len(failed.errors)) == ([1], [], 1)
    assert client.status.monitors == 1


def test_a_command_that_cannot_be_encoded_fails_alone(client: Client, transport: Any) -> None:
    raw = {"a": 1, "b": b"raw"}  # JSON has no bytes
    seen = Seen().of(client.snapshot_trigger_stream("s", tags=raw))
    get = Seen().of(client.get_stream("pva://x"))
    assert isinstance(seen.now().errors[0], TypeError)
    assert ([command["command"] for command in transport.commands], client.status.pending) == (["get"], 1)
    assert get.now().errors == []


def test_an_impossible_topic_in_a_reply_is_not_read(client: Client, transport: Any) -> None:
    seen = Seen().of(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
    transport.reply(transport.commands[0], publishing_topic="no topic")
    assert (transport.event_source.topics, seen.now().errors) == (["s"], [])


def test_many_pvs_are_activated_by_one_command_and_arrive_in_order(client: Client, transport: Any) -> None:
    uris = ["pva://a", "ca://b", "pva://a"]
    seen = Seen().of(client.monitor_many_stream(uris))
    assert [(c["command"], c["pv_name_list"]) for c in transport.commands] == [("multi-monitor", ["pva://a", "ca://b"])]
    transport.event("a", "a", 1)
    transport.event("b", "b", 2)
    transport.event("a", "a", 3)
    assert [(item.name, item.value) for item in seen.now().items] == [("a", 1), ("b", 2), ("a", 3)]


def test_only_pvs_that_are_not_monitored_yet_are_activated(client: Client, transport: Any) -> None:
    Seen().of(client.monitor_stream("pva://a"))
    Seen().of(client.monitor_many_stream(["pva://a", "pva://b"]))
    assert [c.get("pv_name") for c in transport.commands] == ["pva://a", "pva://b"]


def test_activation_emits_the_gateways_reply(client: Client, transport: Any) -> None:
    with pytest.raises(ValueError, match="not monitored"):
        client.activation_stream(["pva://x"])
    Seen().of(client.monitor_stream("pva://x"))
    before = Seen().of(client.activation_stream(["pva://x"]))
    transport.reply(transport.commands[0], message="Monitor activated")
    after = Seen().of(client.activation_stream(["pva://x"]))
    assert before.now().items[0].message == after.now().items[0].message == "Monitor activated"


def test_an_event_of_the_wrong_shape_is_skipped_and_counted(client: Client, transport: Any) -> None:
    seen = Seen().of(client.monitor_stream("pva://x"))
    transport.messages("x", "x", {"y": {"value": 0}}, {"x": 5}, {"x": {"value": 1}})
    assert seen.values() == [1]
    assert client.status.discarded == 2
    assert client.status.decode_errors == {("shape", "pva://x"): 2}


def test_snapshot_collects_data_until_the_completion(client: Client, transport: Any) -> None:
    seen = Seen().of(client.snapshot_stream(["pva://a", "pva://b", "ca://c"], duration=0.5))
    command = transport.commands[0]
    assert (command["pv_name_list"], command["time_window_msec"]) == (["pva://a", "pva://b", "ca://c"], 500)
    transport.reply(command, a={"value": 1})
    transport.reply(command, c={"value": 3})
    assert seen.now().items == []
    transport.reply(command, error=1)
    snapshot: Snapshot = seen.now().items[0]
    assert snapshot.data == {"a": [{"value": 1}], "b": [], "c": [{"value": 3}]}
    assert seen.ends == 1
    assert client.status.pending == 0


def test_a_snapshot_with_a_bad_pv_fails(client: Client, transport: Any) -> None:
    seen = Seen().of(client.snapshot_stream(["pva://a"]))
    transport.reply(transport.commands[0], error=-1, message="malformed")
    assert isinstance(seen.now().errors[0], OperationError)


def iteration(index: int, *values: Any) -> list[dict[str, Any]]:
    common = {"timestamp": 1000 + index, "iter_index": index}
    return [
        {"message_type": 0, "snapshot_name": "My Snap", **common},
        *({"message_type": 1, **common, "a": {"value": value}} for value in values),
        {"message_type": 2, "error": 0, "snapshot_name": "My Snap", **common},
    ]


def test_a_recurring_snapshot_is_shared_and_emits_whole_iterations(client: Client, transport: Any) -> None:
    properties = SnapshotProperties("My Snap", ["pva://a"], time_window=500)
    whole, parts = (
        Seen().of(client.snapshot_recurring_stream(properties)),
        Seen().of(client.snapshot_events_stream(properties)),
    )
    assert transport.event_source.topics == ["my_snap"]
    assert [(c["command"], c["snapshot_name"], c["time_window_msec"]) for c in transport.commands] == [
        ("repeating_snapshot", "My Snap", 500)
    ]
    transport.reply(transport.commands[0], publishing_topic="my_snap")
    late_tail = iteration(1, 0)[1:]
    transport.messages("my_snap", "My Snap", *late_tail, *iteration(2, 1, 2))
    snapshots = whole.now().items
    assert [(snap.name, snap.iteration, snap.data) for snap in snapshots] == [
        ("My Snap", 2, {"a": [{"value": 1}, {"value": 2}]})
    ]
    assert len(parts.now().items) == 6
    with pytest.raises(ValueError, match="other properties"):
        client.snapshot_recurring_stream(SnapshotProperties("My Snap", ["pva://b"])).subscribe(on_error=_raise)


def test_incomplete_iterations_and_unusable_messages_are_counted_in_the_status(client: Client, transport: Any) -> None:
    streams = [client.snapshot_recurring_stream(SnapshotProperties(name, ["pva://a"])) for name in "st"]
    seen = [Seen().of(stream) for stream in streams]
    transport.messages("s", "s", *iteration(1, 0)[1:])
    transport.messages("t", "t", *iteration(1, 0)[:2], *iteration(2, 1)[:1])
    assert client.status.snapshot_drops == {"stray": 2, "incomplete": 1}
    seen[0].subscription.dispose()
    assert client.status.snapshot_drops == {"stray": 2, "incomplete": 1}


def test_repr_names_the_client_and_its_state(client: Client) -> None:
    Seen().of(client.monitor_many_stream(["pva://a", "pva://b"]))
    assert repr(client) == "<Client environment='scripted' app='test' connection='up' monitors=2>"
    client.close(0.1)
    assert repr(client) == "<Client environment='scripted' app='test' connection='closed' monitors=0>"


def test_a_gateways_own_snapshot_topic_is_read_while_the_stream_is_open(client: Client, transport: Any) -> None:
    for name, ended in (("s", False), ("t", True)):
        seen = Seen().of(client.snapshot_recurring_stream(SnapshotProperties(name, ["pva://a"])))
        if ended:
            seen.subscription.dispose()
        transport.reply(transport.commands[-1], publishing_topic=f"{name}-other")
    assert transport.event_source.topics == ["s", "s-other"]
    transport.messages("s-other", "s", *iteration(1, 5))


def test_an_incomplete_iteration_is_left_to_the_next_reader_of_its_partition(client: Client, transport: Any) -> None:
    whole = Seen().of(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
    header, data, tail = iteration(1, 5)
    receiver = transport.event_source.receiver
    assert receiver.reclaim_undelivered([("s", 0)]) == {}
    transport.messages("s", "s", header, data)
    assert receiver.reclaim_undelivered([("s", 1)]) == {}
    assert receiver.reclaim_undelivered([("s", 0)]) == {("s", 0): 0}
    transport.messages("s", "s", header, data, tail)
    assert [snapshot.data for snapshot in whole.now().items] == [{"a": [{"value": 5}]}]
    assert receiver.reclaim_undelivered([("s", 0)]) == {}


def test_an_incomplete_iteration_is_not_reclaimed_if_its_messages_were_emitted(client: Client, transport: Any) -> None:
    Seen().of(client.snapshot_events_stream(SnapshotProperties("s", ["pva://a"])))
    transport.messages("s", "s", *iteration(1, 5)[:2])
    assert transport.event_source.receiver.reclaim_undelivered([("s", 0)]) == {}


def _raise(error: Exception) -> None:
    raise error


def test_stop_completes_the_streams_after_the_last_iteration(client: Client, transport: Any) -> None:
    seen = Seen().of(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
    stopped = Seen().of(client.snapshot_stop_stream("s"))
    transport.reply(transport.commands[1])
    assert stopped.now().ends == 1
    transport.messages("s", "s", *iteration(1, 1))
    assert len(seen.now().items) == 1
    again = Seen().of(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
    assert seen.now().ends == 1
    assert [c["command"] for c in transport.commands][-1] == "repeating_snapshot"
    assert again.now().items == []


def test_a_field_filter_is_checked_before_the_snapshot_starts(client: Client, transport: Any) -> None:
    properties = SnapshotProperties(
        "s", ["pva://a"], type=SnapshotType.TIMED_BUFFERED, pv_field_filter_list=["value", "nope"]
    )
    seen = Seen().of(client.snapshot_recurring_stream(properties))
    assert [c["command"] for c in transport.commands] == ["get"]
    transport.reply(transport.commands[0], a={"value": 1, "alarm": {}})
    assert str(seen.now().errors[0]) == "pv_field_filter_list: pva://a has no field 'nope'; it has value, alarm"
    assert len(transport.commands) == 1
    Seen().of(client.snapshot_recurring_stream(properties, check_fields=False))
    assert transport.commands[1]["command"] == "repeating_snapshot"


def put_fields(command: dict[str, Any]) -> object:
    import base64

    from k2eg_rx.protocol.msgpack_codec import unpack

    return unpack(base64.b64decode(command["value"]))


@pytest.mark.parametrize(("timeout", "limit"), [(5.0, 4000), (12.0, 10_000)])
def test_the_gateway_gives_up_a_get_before_the_client_does(
    client: Client, transport: Any, timeout: float, limit: int
) -> None:
    client.get_stream("pva://x", timeout).subscribe()
    client.get_many_stream(["pva://y"], timeout).subscribe()
    assert [command["timeout_msec"] for command in transport.commands] == [limit, limit]


def test_a_pv_that_does_not_answer_the_gateway_times_out(client: Client, transport: Any) -> None:
    seen = Seen().of(client.get_stream("pva://x", 5.0))
    text = "Timeout operation: the PV does not answer (the gateway waited 4 s)"
    transport.reply(transport.commands[0], error=-3, message=text)
    error = seen.now().errors[0]
    assert isinstance(error, k2eg_rx.OperationTimeout)
    assert str(error) == "Timeout: get of pva://x: no reply within 4 s; the gateway is there, the PV does not answer"


def test_put_requests_a_described_type_once_and_leaves_labels_to_the_gateway(client: Client, transport: Any) -> None:
    seen = Seen().of(client.put_stream("pva://e", "On"))
    assert transport.commands[0]["describe"] is True
    labels = {"value": {"index": 0, "choices": ["Off", "On"]}}
    transport.reply(transport.commands[0], e=labels, pv_type={"value": "enum"})
    assert put_fields(transport.commands[1]) == {"value": {"index": "On"}}
    transport.reply(transport.commands[1], message="Successfull operation")
    assert seen.now().items[0].error == 0
    for given, sent in ((0, 0), ("Off", "Off"), ({"index": 1}, 1), (labels["value"], "Off"), ("1", 1)):
        Seen().of(client.put_stream("pva://e", given))
        assert put_fields(transport.commands[-1]) == {"value": {"index": sent}}
    assert [c["command"] for c in transport.commands] == ["get"] + ["put"] * 6


def test_put_of_a_value_that_does_not_fit_requests_the_type_anew(client: Client, transport: Any) -> None:
    Seen().of(client.put_stream("pva://e", "On"))
    transport.reply(
        transport.commands[0], e={"value": {"index": 0, "choices": ["Off", "On"]}}, pv_type={"value": "enum"}
    )
    transport.reply(transport.commands[1])
    wanted = Seen().of(client.put_stream("pva://e", "Half"))
    assert transport.commands[2]["command"] == "get"
    relabelled = {"value": {"index": 0, "choices": ["Off", "Half", "On"]}}
    transport.reply(transport.commands[2], e=relabelled, pv_type={"value": "enum"})
    assert put_fields(transport.commands[3]) == {"value": {"index": "Half"}}
    transport.reply(transport.commands[3])
    assert wanted.now().items[0].error == 0
    wrong = Seen().of(client.put_stream("pva://e", [1.5]))
    transport.reply(transport.commands[4], e={"value": 0.5}, pv_type={"value": "double"})
    assert isinstance(wrong.now().errors[0], ValueError)
    assert "pva://e (double): cannot put [1.5]" in str(wrong.errors[0])
    assert len(transport.commands) == 5


def test_put_requests_the_type_each_time_from_a_gateway_that_does_not_describe_it(
    client: Client, transport: Any
) -> None:
    for choices, index in ((["Slow", "Fast"], 1), (["Fast", "Slow"], 0)):
        Seen().of(client.put_stream("pva://e", "Fast"))
        assert transport.commands[-1]["command"] == "get"
        transport.reply(transport.commands[-1], e={"value": {"index": 0, "choices": choices}})
        assert put_fields(transport.commands[-1]) == {"value": {"index": index}}
        transport.reply(transport.commands[-1])


def test_serializable_values_and_unchecked_ones_are_sent_as_given(client: Client, transport: Any) -> None:
    Seen().of(client.put_stream("pva://x", Scalar("value", 42)))
    Seen().of(client.put_stream("pva://x", 5, check=False))
    Seen().of(client.put_stream("pva://x", {"alarm": 1}, check=False))
    assert [put_fields(c) for c in transport.commands] == [{"value": 42}, {"value": 5}, {"alarm": 1}]


def test_a_put_to_a_field_is_not_sent_to_a_gateway_that_would_write_the_record(client: Client, transport: Any) -> None:
    for value in (Scalar(5), 5):
        seen = Seen().of(client.put_stream("pva://x.HIGH", value))
        transport.reply(transport.commands[-1], x={"value": 1})
        assert isinstance(seen.now().errors[0], OperationError)
    assert {c["command"] for c in transport.commands} == {"get"}


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_stream("x"),
        lambda client: client.get_stream("pva://x", timeout=0),
        lambda client: client.get_stream("pva://x", timeout="1"),
        lambda client: client.put_stream("http://x", 1),
        lambda client: client.monitor_stream("pva://"),
        lambda client: client.monitor_stream("pva://a\udc80b"),
        lambda client: client.get_many_stream(["pva://a", "pva://a\u202eb"]),
        lambda client: client.put_stream("pva://a.B\x9bC", 1),
        lambda client: client.snapshot_recurring_stream(SnapshotProperties("s\x1b", ["pva://x"])),
        lambda client: client.monitor_stream("pva://x", overflow="newest"),
        lambda client: client.monitor_stream("pva://x", capacity=0),
        lambda client: client.monitor_many_stream([]),
        lambda client: client.monitor_many_stream("pva://x"),
        lambda client: client.snapshot_stream(["pva://x"], duration=-1),
        lambda client: client.snapshot_recurring_stream(SnapshotProperties("", ["pva://x"])),
        lambda client: client.snapshot_trigger_stream(""),
        lambda client: client.snapshot_stop_stream(None),
    ],
)
def test_an_invalid_argument_is_rejected_by_the_call(client: Client, transport: Any, call: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        call(client)
    assert transport.commands == []


def test_close_completes_hot_streams_fails_requests_and_closes_all_parts(client: Client, transport: Any) -> None:
    from reactivex.scheduler import ImmediateScheduler

    class Now(TestScheduler):
        def schedule(self, action: Any, state: Any = None) -> Any:
            return ImmediateScheduler.singleton().schedule(action, state)

    hot, pending = Seen(), Seen()
    hot.scheduler = pending.scheduler = Now()
    hot.of(client.monitor_stream("pva://x"))
    pending.of(client.get_stream("pva://x"))
    client.close()
    client.close()
    assert (hot.ends, hot.errors) == (1, [])
    assert isinstance(pending.errors[0], ClientClosedError)
    parts = [transport, transport.out, transport.present, transport.event_source, transport.reply_source]
    assert all(part.closed for part in parts)
    with pytest.raises(ClientClosedError):
        client.get_stream("pva://x")
    with pytest.raises(ClientClosedError):
        client.monitor_stream("pva://x")


def test_a_forked_child_gets_a_fork_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ForkError, match="fork"):
        client.get_stream("pva://x")


def test_a_full_queue_pauses_the_event_source_until_it_has_room(client: Client, transport: Any) -> None:
    seen = Seen().of(client.monitor_stream("pva://x", capacity=2))
    transport.event("x", "x", 1, 2, 3)
    assert not transport.event_source.receiver.ready()
    assert transport.reply_source.receiver.ready()
    assert seen.values() == [1, 2, 3]
    assert transport.event_source.receiver.ready()
    assert transport.event_source.woken == 1


def test_the_group_name_reaches_the_transport(transport: Any) -> None:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with Client("scripted", "test", group_name="workers", settings=settings, transport=transport):
        assert transport.group_name == "workers"


def test_a_rejected_group_name_closes_the_transport(transport: Any) -> None:
    def reject(receiver: Any, group_name: str) -> Any:
        raise ValueError(f"group_name {group_name!r}")

    transport.events = reject
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with pytest.raises(ValueError, match="group_name 'workers'"):
        Client("scripted", "test", group_name="workers", settings=settings, transport=transport)
    assert transport.closed


@pytest.mark.parametrize("name", ["k2eg-workers", "K2EG", ""])
def test_a_group_name_that_gateways_ignore_is_rejected(transport: Any, name: str) -> None:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with pytest.raises(ValueError, match="group_name"):
        Client("scripted", "test", group_name=name, settings=settings, transport=transport)


def test_the_public_names_are_sorted_and_exist() -> None:
    names = k2eg_rx.__all__
    assert names == sorted(names)
    assert all(hasattr(k2eg_rx, name) for name in names)
    errors = [k2eg_rx.OperationError, k2eg_rx.OperationTimeout, k2eg_rx.WireError, k2eg_rx.TransportError]
    assert all(issubclass(error, K2EGError) for error in errors)


class TestSilence:
    """Silent streams are activated again; in virtual time."""

    @pytest.fixture
    def timers(self, monkeypatch: pytest.MonkeyPatch) -> TestScheduler:
        timers = TestScheduler()
        monkeypatch.setattr("k2eg_rx.client.core.TimerScheduler", lambda: timers)
        monkeypatch.setattr(timers, "dispose", lambda: None, raising=False)
        return timers

    @pytest.fixture
    def client(self, transport: Any, timers: TestScheduler) -> Any:
        settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
        with Client("scripted", "test", settings=settings, transport=transport, silence=60) as client:
            yield client

    def test_only_a_silent_pv_is_activated_again(self, client: Client, transport: Any, timers: TestScheduler) -> None:
        Seen().of(client.monitor_stream("pva://x"))
        Seen().of(client.monitor_stream("pva://y"))
        for command in list(transport.commands):
            transport.reply(command)
        for second in range(5, 95, 10):
            timers.advance_to(second)
            transport.event("y", "y", second)
        assert [c["pv_name"] for c in transport.commands] == ["pva://x", "pva://y", "pva://x"]

    def test_a_pending_activation_is_not_repeated(self, client: Client, transport: Any, timers: TestScheduler) -> None:
        transport.event_source.hold = True
        Seen().of(client.monitor_stream("pva://x"))
        timers.advance_to(11)
        assert transport.commands == []

    def test_a_failed_reactivation_does_not_fail_the_stream(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        seen = Seen().of(client.monitor_stream("pva://x"))
        transport.reply(transport.commands[0])
        timers.advance_to(70)
        transport.reply(transport.commands[1], error=-2, message="is starting")
        transport.event("x", "x", 1)
        assert (seen.values(), seen.errors) == ([1], [])

    def test_a_silent_recurring_snapshot_is_started_again(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        seen = Seen().of(client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://a"])))
        transport.reply(transport.commands[0], publishing_topic="s")
        timers.advance_to(70)
        assert [c["command"] for c in transport.commands] == ["repeating_snapshot"] * 2
        transport.messages("s", "s", *iteration(1, 5))
        assert len(seen.now().items) == 1


def test_the_bits_of_pulse_ids_are_those_of_the_environment(transport: Any) -> None:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply", pulse_id_mask=0xF0)
    with Client("scripted", "test", settings=settings, transport=transport) as client:
        seen = Seen().of(client.monitor_stream("pva://x"))
        stamp = {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 0xAB5, "userTag": 9}
        transport.messages("x", "x", {"x": {"value": 1, "timeStamp": stamp}})
        assert [(update.pulse_id, update.user_tag) for update in seen.now().items] == [(0xB, 9)]
