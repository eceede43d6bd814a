"""Monitors: replies at once, events in order, refreshes, one subscription per PV, expiry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from k2eg_rx.protocol.commands import MultiMonitorCommand, encode_command
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.transport.interfaces import Record


def test_monitor_is_acknowledged_and_publishes(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://t:ao", monitor_dest_topic="t_ao", activate=True)
    (said,) = gateway.sent()
    assert (said.topic, said.key, said.form) == ("replies", "monitor-error-key", Serialization.JSON)
    assert list(said.body.items()) == [
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
    assert [said.body["message"] for said in gateway.sent()] == ["Monitor activated"]
    gateway.pva.update("a:b", np.array([1, 2], np.int16))
    gateway.ca.update("c-d.HIGH", 5)
    gateway.settle()
    assert [(said.topic, said.key, said.form, said.body) for said in gateway.sent()] == [
        ("a_b", "a:b", Serialization.MSGPACK, {"a:b": {"value": [1, 2]}}),
        ("c-d.HIGH", "c-d.HIGH", Serialization.MSGPACK, {"c-d.HIGH": {"value": 5}}),
    ]


def test_a_pv_that_does_not_exist_is_acknowledged_and_then_silent(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://no:such", monitor_dest_topic="no_such")
    gateway.advance(60)
    assert [body["error"] for body in gateway.bodies()] == [0]


def test_malformed_names_are_refused(gateway: Any) -> None:
    gateway.command("monitor", pv_name="t:fast", monitor_dest_topic="t")
    gateway.command("multi-monitor", pv_name_list=["pva://a", "bad"])
    assert [(said.key, said.body) for said in gateway.sent()] == [
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed"}),
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed: 'bad'"}),
    ]
    assert not gateway.pva.subscriptions, "all or nothing"


def test_the_same_request_again_publishes_the_last_value_once_more(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    assert [body.get("error") for body in gateway.bodies()] == [0, 0], "there is no value to publish again yet"
    gateway.update("a", 1)
    gateway.update("a", 2)
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_id="again")
    gateway.update("a", 3)
    assert gateway.bodies("a") == [{"a": {"value": value}} for value in (1, 2, 2, 3)]
    assert len(gateway.pva.subscriptions) == 1


def test_a_refresh_never_comes_behind_a_newer_value(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    gateway.pva.update("a", 2)  # waits in the inbox while the command is handled
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
    assert [(said.topic, said.body) for said in gateway.sent()] == [
        ("a", {"a": {"value": 2}}),
        ("other", {"a": {"value": 2}}),
    ]
    assert len(gateway.pva.subscriptions) == 1


def test_the_first_serialization_of_a_topic_stays(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"], serialization="json")
    gateway.command("multi-monitor", pv_name_list=["pva://a"], serialization="msgpack")
    assert [said.form for said in gateway.sent()] == [Serialization.JSON, Serialization.MSGPACK]
    gateway.update("a", 1)
    assert [said.form for said in gateway.sent()] == [Serialization.JSON]


def test_a_topic_carries_a_pv_over_the_protocol_that_was_first(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.pva.update("a", "over pva")
    gateway.settle()
    gateway.command("multi-monitor", pv_name_list=["ca://a"])
    gateway.sent()
    gateway.pva.update("a", "over pva again")
    gateway.settle()
    assert gateway.ca.open("a") == []
    assert gateway.bodies("a") == [{"a": {"value": "over pva again"}}]


def test_a_protocol_that_gives_nothing_makes_room_for_the_other(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.command("multi-monitor", pv_name_list=["ca://a"])
    gateway.sent()
    gateway.ca.update("a", "over ca")
    gateway.settle()
    assert gateway.pva.open("a") == []
    assert gateway.bodies("a") == [{"a": {"value": "over ca"}}]


def test_without_a_topic_events_go_to_the_reply_topic(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", reply_topic="mine")
    gateway.update("a", 1)
    assert [(said.topic, said.key) for said in gateway.sent()] == [("mine", "monitor-error-key"), ("mine", "a")]


@pytest.mark.parametrize("missing", ["reply_id", "reply_topic"])
def test_monitor_without_an_answer(gateway: Any, missing: str) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", **{missing: ...})
    gateway.command("monitor", pv_name="bad", monitor_dest_topic="a", **{missing: ...})
    gateway.update("a", 1)
    assert [said.topic for said in gateway.sent()] == ["a"]


def test_a_disconnect_is_silent_and_its_old_value_is_not_passed_for_the_current_one(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    gateway.pva.connected("a", False)
    gateway.settle()
    gateway.sent()
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    assert [said.key for said in gateway.sent()] == ["monitor-error-key"] * 2
    gateway.update("a", 2)
    assert [said.topic for said in gateway.sent()] == ["a", "other"]


def test_a_value_without_a_form_is_counted_and_the_next_one_comes(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", object())
    gateway.update("a", 2)
    assert gateway.bodies("a") == [{"a": {"value": 2}}]
    assert gateway.metrics.unencodable == 1


def test_a_provider_that_raises_ends_only_its_monitor(gateway: Any) -> None:
    gateway.pva.raises = RuntimeError("boom")
    gateway.command("multi-monitor", pv_name_list=["pva://a", "ca://b"])
    gateway.ca.update("b", 1)
    gateway.settle()
    assert gateway.bodies("b") == [{"b": {"value": 1}}]
    gateway.pva.raises = None
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    assert gateway.bodies("a") == [{"a": {"value": 1}}], "asked again, it is subscribed to again"


def test_bursts_keep_their_order_and_lose_nothing(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    for value in range(1234):
        gateway.pva.update("a", value)
    gateway.settle()
    assert [body["a"]["value"] for body in gateway.bodies("a")] == list(range(1234))
    assert gateway.metrics.dropped == 0


def test_updates_that_find_no_room_are_counted_and_the_last_value_is_kept(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    gateway.sent()
    gateway.pva.update("slow", "kept")
    for value in range(100):
        gateway.pva.update("fast", value)
    gateway.settle()
    assert gateway.bodies("slow") == [{"slow": {"value": "kept"}}]
    assert gateway.metrics.dropped_updates == 91


def test_a_slow_pv_does_not_pay_for_a_fast_one(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    for value in range(10):
        gateway.pva.update("fast", value)
    gateway.pva.update("slow", "kept though it came when there was no room")
    gateway.settle()
    assert len(gateway.bodies("slow")) == 1
    assert gateway.metrics.dropped == 0


def test_dropping_takes_the_oldest(new_gateway: Any) -> None:
    gateway = new_gateway(update_buffer=10 * 2000)
    gateway.command("monitor", pv_name="pva://fast", monitor_dest_topic="fast")
    for value in range(100):
        gateway.pva.update("fast", value)
    gateway.settle()
    assert [body["fast"]["value"] for body in gateway.bodies("fast")] == list(range(90, 100))


def heard(gateway: Any, listeners: dict[str, int] | None) -> None:
    gateway.handler.monitors.expire(listeners, gateway.scheduler.now, 3600.0)
    gateway.settle()


def test_a_monitor_ends_when_nobody_has_listened_for_long_enough(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    heard(gateway, {"b": 1})
    gateway.advance(3599)
    heard(gateway, {"b": 1})
    assert len(gateway.pva.open("a")) == 1
    gateway.advance(1)
    heard(gateway, {"b": 1})
    assert (len(gateway.pva.open("a")), len(gateway.pva.open("b"))) == (0, 1)
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.sent()
    gateway.update("a", 1)
    assert gateway.bodies("a") == [{"a": {"value": 1}}], "asked for again, it begins again"


@pytest.mark.parametrize("listeners", [{"a": 1}, {"replies": 2}, None])
def test_a_listener_on_its_topic_or_on_a_reply_topic_keeps_a_monitor(
    gateway: Any, listeners: dict[str, int] | None
) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    heard(gateway, {})
    gateway.advance(1800)
    heard(gateway, listeners)
    gateway.advance(1801)
    heard(gateway, {})
    gateway.advance(3000)
    heard(gateway, {})
    assert len(gateway.pva.open("a")) == 1, "the time counts from when nobody was seen last"
    gateway.advance(601)
    heard(gateway, {})
    assert not gateway.pva.open("a")


@pytest.mark.parametrize("raises", [None, RuntimeError("boom")])
def test_an_answer_is_over_when_its_monitors_are(gateway: Any, raises: Exception | None) -> None:
    over: list[str] = []

    def ask(reply_id: str) -> None:
        command = encode_command(MultiMonitorCommand(("pva://a", "ca://b")), "replies", reply_id)
        answer = gateway.handler.handle(Record("commands", 0, 0, None, command))
        answer.subscribe(on_completed=lambda: over.append(reply_id))

    gateway.pva.raises = raises
    ask("first")
    ask("second")
    assert over == ["second"], "a repeated request is over at once, the first not while one of its monitors runs"
    heard(gateway, {})
    gateway.advance(3600)
    heard(gateway, {})
    assert sorted(over) == ["first", "second"]
    assert len(gateway.handler.monitors) == 0


def test_stopping_closes_all_subscriptions(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b", "ca://c"])
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    gateway.subscription.dispose()
    assert not [each for each in gateway.pva.subscriptions + gateway.ca.subscriptions if each.open]
    assert len(gateway.handler.monitors) == len(gateway.handler.channels) == 0


def test_json_is_valid_whatever_the_value(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", float("nan"), limits=np.array([np.inf, -np.inf]))
    body = json.loads(gateway.outgoing[-1].value, parse_constant=pytest.fail)
    assert body == {"a": {"value": "NaN", "limits": ["Infinity", "-Infinity"]}}
