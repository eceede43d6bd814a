"""Monitors: replies, order of events, repeated requests, shared subscriptions, expiry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from k2eg_rx.gateway.commands.claims import Claims
from k2eg_rx.gateway.commands.messages import ConnectionRecord
from k2eg_rx.gateway.commands.monitor_targets import MonitorDefinition
from k2eg_rx.gateway.commands.source import ReceivedCommand
from k2eg_rx.protocol import connection_event
from k2eg_rx.protocol.commands import MultiMonitorCommand, encode_command
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import Record

START = 1_795_000_000  # the Unix time at virtual time 0


def test_monitor_replies_and_publishes(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://t:ao", monitor_dest_topic="t_ao", activate=True)
    (sent,) = gateway.sent()
    assert (sent.topic, sent.key, sent.form) == ("replies", "monitor-error-key", Serialization.JSON)
    assert list(sent.body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "Monitor activated for pva://t:ao"),
    ]
    for value in range(3):
        gateway.update("t:ao", value)
    events = gateway.sent()
    assert [(event.topic, event.key) for event in events] == [("t_ao", "t:ao")] * 3
    assert [event.body for event in events] == [{"t:ao": {"value": value}} for value in range(3)]


def test_multi_monitor_publishes_each_to_its_own_topic(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a:b", "ca://c-d.HIGH", "pva://a:b"], serialization="msgpack")
    assert [sent.body["message"] for sent in gateway.sent()] == ["Monitor activated"]
    gateway.pva.update("a:b", np.array([1, 2], np.int16))
    gateway.ca.update("c-d.HIGH", 5)
    gateway.settle()
    assert [(sent.topic, sent.key, sent.form, sent.body) for sent in gateway.sent()] == [
        ("a_b", "a:b", Serialization.MSGPACK, {"a:b": {"value": [1, 2]}}),
        ("c-d.HIGH", "c-d.HIGH", Serialization.MSGPACK, {"c-d.HIGH": {"value": 5}}),
    ]


def test_multi_monitor_publishes_to_a_topic_that_many_pvs_share(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a:b", "ca://c"], monitor_dest_topic="shared")
    assert gateway.bodies()[0]["publishing_topic"] == "shared"
    gateway.pva.update("a:b", 1)
    gateway.ca.update("c", 5)
    gateway.settle()
    assert [(sent.topic, sent.key) for sent in gateway.sent()] == [("shared", "a:b"), ("shared", "c")]


def test_multi_monitor_refuses_a_topic_that_kafka_cannot_have(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a:b"], monitor_dest_topic="a b")
    assert gateway.bodies()[0]["message"] == "Kafka has no topic of the name 'a b'"


def test_a_monitor_of_a_missing_pv_replies_and_publishes_nothing(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://no:such", monitor_dest_topic="no_such")
    gateway.advance(60)
    assert [body["error"] for body in gateway.bodies()] == [0]


def test_malformed_names_are_refused(gateway: Any) -> None:
    gateway.command("monitor", pv_name="t:fast", monitor_dest_topic="t")
    gateway.command("multi-monitor", pv_name_list=["pva://a", "bad"])
    assert [(sent.key, sent.body) for sent in gateway.sent()] == [
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed"}),
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed: 'bad'"}),
    ]
    assert not gateway.pva.subscriptions, "all or nothing"


def test_a_repeated_request_publishes_the_latest_value_again(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    assert [body.get("error") for body in gateway.bodies()] == [0, 0], "there is no value to publish again yet"
    gateway.update("a", 1)
    gateway.update("a", 2)
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_id="again")
    gateway.update("a", 3)
    repeated = [dict(each.headers).get("k2eg-repeated") for each in gateway.values if each.topic == "a"]
    assert repeated == [None, None, "1", None]
    assert gateway.bodies("a") == [{"a": {"value": value}} for value in (1, 2, 2, 3)]
    assert len(gateway.pva.subscriptions) == 1


def test_a_repeated_value_never_follows_a_newer_one(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    gateway.pva.update("a", 2)  # still in the update queue when the command is handled
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    values = [body["a"]["value"] for body in gateway.bodies("a")]
    assert values == sorted(values)
    assert values[-1] == 2


def test_a_second_topic_gets_the_current_value_and_shares_the_subscription(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    gateway.sent()
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    assert gateway.bodies("other") == [{"a": {"value": 1}}]
    gateway.update("a", 2)
    assert [(sent.topic, sent.body) for sent in gateway.sent()] == [
        ("a", {"a": {"value": 2}}),
        ("other", {"a": {"value": 2}}),
    ]
    assert len(gateway.pva.subscriptions) == 1


def test_the_first_serialization_of_a_topic_stays(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"], serialization="json")
    gateway.command("multi-monitor", pv_name_list=["pva://a"], serialization="msgpack")
    assert [sent.form for sent in gateway.sent()] == [Serialization.JSON, Serialization.MSGPACK]
    gateway.update("a", 1)
    assert [sent.form for sent in gateway.sent()] == [Serialization.JSON]


def test_a_topic_carries_a_pv_over_the_first_protocol(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.pva.update("a", "completed pva")
    gateway.settle()
    gateway.command("multi-monitor", pv_name_list=["ca://a"])
    gateway.sent()
    gateway.pva.update("a", "completed pva again")
    gateway.settle()
    assert gateway.ca.open("a") == []
    assert gateway.bodies("a") == [{"a": {"value": "completed pva again"}}]


def test_a_protocol_without_a_value_is_replaced(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.command("multi-monitor", pv_name_list=["ca://a"])
    gateway.sent()
    gateway.ca.update("a", "completed ca")
    gateway.settle()
    assert gateway.pva.open("a") == []
    assert gateway.bodies("a") == [{"a": {"value": "completed ca"}}]


def updates(gateway: Any, **values: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Updates PV `a` over protocols; returns key, protocol header and body of the events."""
    gateway.sent()
    for protocol, value in values.items():
        getattr(gateway, protocol).update("a", value)
    gateway.settle()
    count = len(gateway.values)
    sent = gateway.sent()
    headers = [dict(outgoing.headers)["k2eg-protocol"] for outgoing in gateway.values[count - len(sent) :]]
    return [(each.key, header, each.body) for each, header in zip(sent, headers, strict=True)]


def test_a_client_that_accepts_uris_as_names_gets_both_protocols(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    assert updates(gateway, pva=1) == [("a", "pva", {"a": {"value": 1}})]
    gateway.command("multi-monitor", pv_name_list=["pva://a", "ca://a"], uri_keys=True)
    replies = [body for body in gateway.bodies() if "error" in body]
    assert [(body["error"], body["uri_keys"]) for body in replies] == [(0, ["ca://a"])]
    assert updates(gateway, pva=2, ca=3) == [
        ("a", "pva", {"a": {"value": 2}}),
        ("ca://a", "ca", {"ca://a": {"value": 3}}),
    ]
    gateway.command("monitor", pv_name="ca://a", monitor_dest_topic="a", uri_keys=True)
    assert gateway.bodies() == [
        {"error": 0, "reply_id": "id", "message": "Monitor activated for ca://a", "uri_keys": ["ca://a"]},
        {"ca://a": {"value": 3}},
    ]


def test_both_protocols_of_a_new_pv_in_one_command_are_both_published(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["ca://a", "pva://a"], uri_keys=True)
    assert [body["uri_keys"] for body in gateway.bodies()] == [["pva://a"]]
    assert updates(gateway, pva=1, ca=2) == [
        ("pva://a", "pva", {"pva://a": {"value": 1}}),
        ("a", "ca", {"a": {"value": 2}}),
    ]


def test_a_client_that_knows_names_only_gets_the_protocol_that_has_the_name(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "ca://a"], uri_keys=True)
    updates(gateway, pva=1, ca=2)
    gateway.command("multi-monitor", pv_name_list=["ca://a"])
    assert "uri_keys" not in gateway.bodies()[0]
    assert len(gateway.ca.open("a")) == 1
    assert [key for key, _, _ in updates(gateway, pva=3, ca=4)] == ["a", "ca://a"]


def test_without_a_topic_events_go_to_the_reply_topic(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", reply_topic="mine")
    gateway.update("a", 1)
    assert [(sent.topic, sent.key) for sent in gateway.sent()] == [("mine", "monitor-error-key"), ("mine", "a")]


@pytest.mark.parametrize("missing", ["reply_id", "reply_topic"])
def test_monitor_without_a_reply_topic_or_id_publishes(gateway: Any, missing: str) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", **{missing: ...})
    gateway.command("monitor", pv_name="bad", monitor_dest_topic="a", **{missing: ...})
    gateway.update("a", 1)
    assert [sent.topic for sent in gateway.sent()] == ["a"]


def connections(gateway: Any) -> list[tuple[str, str, int]]:
    """Returns topic, state and time (seconds after the start) of the connection records published so far."""
    records = [Record(each.topic, 0, 0, each.key, each.value, each.headers) for each in gateway.outgoing]
    events = [(record.topic, connection_event(record)) for record in records]
    return [(topic, event.state, event.since // 10**9 - START) for topic, event in events if event is not None]


def test_connections_are_published_in_order_with_the_values(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.advance(1.0)
    gateway.update("a", 1)
    gateway.update("a", 2)
    assert connections(gateway) == [("a", "connected", 1)]
    gateway.advance(1.0)
    gateway.pva.connected("a", False)
    gateway.settle()
    gateway.advance(1.0)
    gateway.update("a", 3)
    assert connections(gateway) == [("a", "connected", 1), ("a", "disconnected", 2), ("a", "connected", 3)]
    kinds = [type(each).__name__ for each in gateway.outgoing if each.topic == "a"]
    connection, value = "ConnectionRecord", "OutgoingRecord"
    assert kinds == [connection, value, value, connection, connection, value]
    lost = next(each for each in gateway.outgoing if isinstance(each, ConnectionRecord))
    assert "k2eg-ser-type" not in dict(lost.headers), "deployed clients skip a record without it"


def test_a_listener_learns_the_connection_again(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    for topic, published in (("a", "connected"), ("other", "connected")):
        gateway.outgoing.clear()
        gateway.command("monitor", pv_name="pva://a", monitor_dest_topic=topic)
        assert connections(gateway) == [(topic, published, 0)]
        assert [each.key for each in gateway.outgoing if each.topic == topic][1] == b"a", "before the value"
    gateway.pva.connected("a", False)
    gateway.settle()
    gateway.advance(7.0)
    for topic in ("a", "other", "third"):
        gateway.outgoing.clear()
        gateway.command("monitor", pv_name="pva://a", monitor_dest_topic=topic)
        assert connections(gateway) == [(topic, "disconnected", 0)], "with the time of the loss, and without a value"
        assert len([each for each in gateway.outgoing if each.topic == topic]) == 1


def test_a_pv_without_a_server_is_published_as_never_connected_after_a_while(gateway: Any) -> None:
    gateway.advance(1.0)
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    gateway.advance(2.0)
    gateway.command("multi-monitor", pv_name_list=["pva://c"])
    gateway.update("b", 1)
    gateway.advance(2.0)
    assert connections(gateway) == [("b", "connected", 3)]
    gateway.advance(1.1)
    assert connections(gateway)[1:] == [("a", "never_connected", 1)]
    gateway.advance(2.0)
    assert connections(gateway)[2:] == [("c", "never_connected", 3)]
    gateway.outgoing.clear()
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    assert connections(gateway) == [("a", "never_connected", 1)], "again for the client that asks again"
    gateway.update("a", 1)
    assert connections(gateway)[1:] == [("a", "connected", 8)]


def test_host_and_reason_come_from_the_subscription(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"], uri_keys=True)
    gateway.pva.open("a")[0].server = "ioc:5064"
    gateway.pva.open("b")[0].reason = "no read access"
    gateway.update("a", 1)
    gateway.pva.open("a")[0].reason = "the server ended the subscription"
    gateway.pva.connected("a", False)
    gateway.advance(6.0)
    bodies = [json.loads(each.value)["connection"] for each in gateway.outgoing if isinstance(each, ConnectionRecord)]
    assert [(body["uri"], body["state"], body["host"], body["reason"]) for body in bodies] == [
        ("pva://a", "connected", "ioc:5064", ""),
        ("pva://a", "disconnected", "ioc:5064", "the server ended the subscription"),
        ("pva://b", "never_connected", "", "no value since it was searched for first: no read access"),
    ]


def test_a_value_that_cannot_be_serialized_is_counted_logged_once_and_told(
    gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", object())
    gateway.update("a", object())
    gateway.update("a", 2)
    first, second, event = gateway.bodies("a")
    assert event == {"a": {"value": 2}}
    assert first == second
    assert first["k2eg-notice"]["pv_name"] == "a"
    assert first["k2eg-notice"]["lost"] == 1
    assert first["k2eg-notice"]["reason"].startswith("the value cannot be serialized: ")
    assert [line for line in caplog.messages if "pv=pva://a" in line][1:] == []
    assert gateway.metrics.unencodable == 2


def test_an_exception_of_the_provider_ends_only_its_monitor(gateway: Any) -> None:
    gateway.pva.raises = RuntimeError("boom")
    gateway.command("multi-monitor", pv_name_list=["pva://a", "ca://b"])
    gateway.ca.update("b", 1)
    gateway.settle()
    assert gateway.bodies("b") == [{"b": {"value": 1}}]
    gateway.pva.raises = None
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    assert gateway.bodies("a") == [{"a": {"value": 1}}], "a repeated request subscribes again"


def test_bursts_keep_their_order_and_lose_nothing(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    for value in range(1234):
        gateway.pva.update("a", value)
    gateway.settle()
    assert [body["a"]["value"] for body in gateway.bodies("a")] == list(range(1234))
    assert gateway.metrics.dropped == 0


def test_dropped_updates_are_counted_and_the_latest_value_is_kept(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    gateway.sent()
    gateway.pva.update("slow", "kept")
    for value in range(100):
        gateway.pva.update("fast", value)
    gateway.settle()
    assert gateway.bodies("slow") == [{"slow": {"value": "kept"}}]
    assert gateway.metrics.dropped_updates == 91


def test_a_slow_pv_loses_nothing_because_of_a_fast_one(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    for value in range(10):
        gateway.pva.update("fast", value)
    gateway.pva.update("slow", "kept though it came when there was no room")
    gateway.settle()
    assert len(gateway.bodies("slow")) == 1
    assert gateway.metrics.dropped == 0


def test_the_oldest_updates_are_dropped(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("monitor", pv_name="pva://fast", monitor_dest_topic="fast")
    for value in range(100):
        gateway.pva.update("fast", value)
    gateway.settle()
    assert [body["fast"]["value"] for body in gateway.bodies("fast")] == list(range(90, 100))


def check_consumers(gateway: Any, listeners: dict[str, int] | None) -> None:
    gateway.handler.expire(listeners)
    gateway.settle()


def test_a_monitor_without_consumers_expires(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    check_consumers(gateway, {"b": 1})
    gateway.advance(3599)
    check_consumers(gateway, {"b": 1})
    assert len(gateway.pva.open("a")) == 1
    gateway.advance(1)
    check_consumers(gateway, {"b": 1})
    assert (len(gateway.pva.open("a")), len(gateway.pva.open("b"))) == (0, 1)
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.sent()
    gateway.update("a", 1)
    assert gateway.bodies("a") == [{"a": {"value": 1}}], "a repeated request starts it again"


@pytest.mark.parametrize("listeners", [{"a": 1}, {"replies": 2}, None])
def test_consumers_of_its_topic_or_a_reply_topic_keep_a_monitor(gateway: Any, listeners: dict[str, int] | None) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    check_consumers(gateway, {})
    gateway.advance(1800)
    check_consumers(gateway, listeners)
    gateway.advance(1801)
    check_consumers(gateway, {})
    gateway.advance(3000)
    check_consumers(gateway, {})
    assert len(gateway.pva.open("a")) == 1, "the time counts from the first check without consumers"
    gateway.advance(601)
    check_consumers(gateway, {})
    assert not gateway.pva.open("a")


def test_an_activation_that_fails_leaves_no_monitor_behind(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        ensure = gateway.handler.topics.ensure
        patch.setattr(gateway.handler.topics, "ensure", lambda topic, n: 1 / 0 if topic == "b" else ensure(topic, n))
        gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b", "pva://c"])
    assert gateway.bodies()[-1]["error"] == -2
    assert (len(gateway.handler.monitors), gateway.pva.open("a")) == (0, [])
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    gateway.sent()
    gateway.update("b", 1)
    assert gateway.bodies("b") == [{"b": {"value": 1}}]


def test_the_reply_topics_that_keep_a_monitor_are_bounded(gateway: Any) -> None:
    for number in range(1500):
        gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_topic=f"app{number}")
    check_consumers(gateway, {"app0": 1})
    gateway.advance(3600)
    check_consumers(gateway, {"app1499": 1})
    gateway.advance(3600)
    check_consumers(gateway, {"app0": 1})
    assert gateway.pva.open("a")
    gateway.advance(3600)
    check_consumers(gateway, {"app0": 1})
    assert not gateway.pva.open("a")


@pytest.mark.parametrize("command", ["get", "put", "monitor", "multi-monitor", "snapshot", "repeating_snapshot"])
@pytest.mark.parametrize("name", ["pva://a\x1b[2J", "ca://a\u202eb", "pva://a.B\x9b", "pva://a\nb"])
def test_pv_names_with_control_characters_are_malformed(gateway: Any, command: str, name: str) -> None:
    packed = "gaV2YWx1ZQE="  # {"value": 1}
    gateway.command(command, pv_name=name, pv_name_list=[name], value=packed, monitor_dest_topic="a", snapshot_name="s")
    body = gateway.bodies()[0]
    assert body["error"] < 0
    assert body["message"].isprintable()
    assert not gateway.pva.subscriptions


@pytest.mark.parametrize("raises", [None, RuntimeError("boom")])
def test_a_command_stream_completes_with_its_last_monitor(gateway: Any, raises: Exception | None) -> None:
    completed: list[str] = []

    def send(reply_id: str) -> None:
        command = encode_command(MultiMonitorCommand(("pva://a", "ca://b")), "replies", reply_id)
        record = Record("commands", 0, 0, None, command)
        answer = gateway.handler.handle(ReceivedCommand(record, Claims().of(record)))
        answer.subscribe(on_completed=lambda: completed.append(reply_id))

    gateway.pva.raises = raises
    send("first")
    send("second")
    assert completed == ["second"], "a repeated request completes at once, the first one when its monitors end"
    check_consumers(gateway, {})
    gateway.advance(3600)
    check_consumers(gateway, {})
    assert sorted(completed) == ["first", "second"]
    assert len(gateway.handler.monitors) == 0


def test_stopping_closes_all_subscriptions(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b", "ca://c"])
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    gateway.subscription.dispose()
    assert not [each for each in gateway.pva.subscriptions + gateway.ca.subscriptions if each.open]
    assert len(gateway.handler.monitors) == len(gateway.handler.channels) == 0


def test_json_is_valid_for_every_value(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", float("nan"), limits=np.array([np.inf, -np.inf]))
    body = json.loads(gateway.outgoing[-1].value, parse_constant=pytest.fail)
    assert body == {"a": {"value": "NaN", "limits": ["Infinity", "-Infinity"]}}


def definition(name: str = "a", uri: str = "pva://a", *, reads_on: bool = True) -> MonitorDefinition:
    return MonitorDefinition(name, PVAddress.parse(uri), name, Serialization.JSON, ("replies",), reads_on)


def stamped(seconds: int) -> dict[str, Any]:
    return {"timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": 5, "userTag": 0}}


def test_what_another_gateway_has_published_is_not_published_again(gateway: Any) -> None:
    monitors = gateway.handler.monitors
    monitors.run(definition(), gateway.outgoing.append, None)
    for number in range(4):
        gateway.update("a", number, **stamped(100 + number))
    monitors.run(definition(), gateway.outgoing.append, None)
    gateway.advance(1)
    assert gateway.sent() == [], "held back, also for a client that requests it again"
    assert monitors.has_value(("a", "a"))
    monitors.go_live(("a", "a"), "fleet:7", 101_000_000_005)
    gateway.update("a", 4, **stamped(104))
    assert [body["a"]["value"] for body in gateway.bodies("a")] == [2, 3, 4]
    assert {each.epoch for each in gateway.outgoing} == {"fleet:7"}
    assert monitors.end(("a", "a")) == 104_000_000_005
    gateway.update("a", 5)
    assert gateway.sent() == []
    assert len(monitors) == 0


def test_everything_held_back_is_published_where_nothing_is_known_of_the_owner_before(gateway: Any) -> None:
    monitors = gateway.handler.monitors
    monitors.run(definition(), gateway.outgoing.append, None)
    gateway.update("a", 1, **stamped(100))
    gateway.update("a", 2)
    monitors.go_live(("a", "a"), "fleet:7", None)
    assert [body["a"]["value"] for body in gateway.bodies("a")] == [1, 2]
    assert monitors.end(("a", "a")) == 0, "the last one has no time"
    assert monitors.end(("a", "a")) is None
