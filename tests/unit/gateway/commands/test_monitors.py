"""Monitors: replies at once, events in order, refreshes, one subscription per PV, expiry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from k2eg_rx.protocol.commands import MultiMonitorCommand, encode_command
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.transport.interfaces import Record


def test_monitor_is_acknowledged_and_publishes(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://t:ao", monitor_dest_topic="t_ao", activate=True)
    (said,) = stage.said()
    assert (said.topic, said.key, said.form) == ("replies", "monitor-error-key", Serialization.JSON)
    assert list(said.body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "Monitor activated for pva://t:ao"),
    ]
    for value in range(3):
        stage.update("t:ao", value)
    events = stage.said()
    assert [(event.topic, event.key) for event in events] == [("t_ao", "t:ao")] * 3
    assert [event.body for event in events] == [{"t:ao": {"value": value}} for value in range(3)]


def test_multi_monitor_publishes_each_to_its_own_topic(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a:b", "ca://c-d.HIGH", "pva://a:b"], serialization="msgpack")
    assert [said.body["message"] for said in stage.said()] == ["Monitor activated"]
    stage.pva.update("a:b", np.array([1, 2], np.int16))
    stage.ca.update("c-d.HIGH", 5)
    stage.settle()
    assert [(said.topic, said.key, said.form, said.body) for said in stage.said()] == [
        ("a_b", "a:b", Serialization.MSGPACK, {"a:b": {"value": [1, 2]}}),
        ("c-d.HIGH", "c-d.HIGH", Serialization.MSGPACK, {"c-d.HIGH": {"value": 5}}),
    ]


def test_a_pv_that_does_not_exist_is_acknowledged_and_then_silent(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://no:such", monitor_dest_topic="no_such")
    stage.advance(60)
    assert [body["error"] for body in stage.bodies()] == [0]


def test_malformed_names_are_refused(stage: Any) -> None:
    stage.command("monitor", pv_name="t:fast", monitor_dest_topic="t")
    stage.command("multi-monitor", pv_name_list=["pva://a", "bad"])
    assert [(said.key, said.body) for said in stage.said()] == [
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed"}),
        ("monitor-error-key", {"error": -1, "reply_id": "id", "message": "PV name malformed: 'bad'"}),
    ]
    assert not stage.pva.subscriptions, "all or nothing"


def test_the_same_request_again_publishes_the_last_value_once_more(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    assert [body.get("error") for body in stage.bodies()] == [0, 0], "there is no value to publish again yet"
    stage.update("a", 1)
    stage.update("a", 2)
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_id="again")
    stage.update("a", 3)
    assert stage.bodies("a") == [{"a": {"value": value}} for value in (1, 2, 2, 3)]
    assert len(stage.pva.subscriptions) == 1


def test_a_refresh_never_comes_behind_a_newer_value(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    stage.pva.update("a", 2)  # waits in the inbox while the command is handled
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    values = [body["a"]["value"] for body in stage.bodies("a")]
    assert values == sorted(values)
    assert values[-1] == 2


def test_a_second_topic_gets_the_current_value_and_shares_the_subscription(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    stage.said()
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    assert stage.bodies("other") == [{"a": {"value": 1}}]
    stage.update("a", 2)
    assert [(said.topic, said.body) for said in stage.said()] == [
        ("a", {"a": {"value": 2}}),
        ("other", {"a": {"value": 2}}),
    ]
    assert len(stage.pva.subscriptions) == 1


def test_the_first_serialization_of_a_topic_stays(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a"], serialization="json")
    stage.command("multi-monitor", pv_name_list=["pva://a"], serialization="msgpack")
    assert [said.form for said in stage.said()] == [Serialization.JSON, Serialization.MSGPACK]
    stage.update("a", 1)
    assert [said.form for said in stage.said()] == [Serialization.JSON]


def test_a_topic_carries_a_pv_over_the_protocol_that_was_first(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a"])
    stage.pva.update("a", "over pva")
    stage.settle()
    stage.command("multi-monitor", pv_name_list=["ca://a"])
    stage.said()
    stage.pva.update("a", "over pva again")
    stage.settle()
    assert stage.ca.open("a") == []
    assert stage.bodies("a") == [{"a": {"value": "over pva again"}}]


def test_a_protocol_that_gives_nothing_makes_room_for_the_other(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a"])
    stage.command("multi-monitor", pv_name_list=["ca://a"])
    stage.said()
    stage.ca.update("a", "over ca")
    stage.settle()
    assert stage.pva.open("a") == []
    assert stage.bodies("a") == [{"a": {"value": "over ca"}}]


def test_without_a_topic_events_go_to_the_reply_topic(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", reply_topic="mine")
    stage.update("a", 1)
    assert [(said.topic, said.key) for said in stage.said()] == [("mine", "monitor-error-key"), ("mine", "a")]


@pytest.mark.parametrize("missing", ["reply_id", "reply_topic"])
def test_monitor_without_an_answer(stage: Any, missing: str) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a", **{missing: ...})
    stage.command("monitor", pv_name="bad", monitor_dest_topic="a", **{missing: ...})
    stage.update("a", 1)
    assert [said.topic for said in stage.said()] == ["a"]


def test_a_disconnect_is_silent_and_its_old_value_is_not_passed_for_the_current_one(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    stage.pva.connected("a", False)
    stage.settle()
    stage.said()
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    assert [said.key for said in stage.said()] == ["monitor-error-key"] * 2
    stage.update("a", 2)
    assert [said.topic for said in stage.said()] == ["a", "other"]


def test_a_value_without_a_form_is_counted_and_the_next_one_comes(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", object())
    stage.update("a", 2)
    assert stage.bodies("a") == [{"a": {"value": 2}}]
    assert stage.counters.unencodable == 1


def test_a_provider_that_raises_ends_only_its_monitor(stage: Any) -> None:
    stage.pva.raises = RuntimeError("boom")
    stage.command("multi-monitor", pv_name_list=["pva://a", "ca://b"])
    stage.ca.update("b", 1)
    stage.settle()
    assert stage.bodies("b") == [{"b": {"value": 1}}]
    stage.pva.raises = None
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    assert stage.bodies("a") == [{"a": {"value": 1}}], "asked again, it is subscribed to again"


def test_bursts_keep_their_order_and_lose_nothing(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    for value in range(1234):
        stage.pva.update("a", value)
    stage.settle()
    assert [body["a"]["value"] for body in stage.bodies("a")] == list(range(1234))
    assert stage.counters.dropped == 0


def test_updates_that_find_no_room_are_counted_and_the_last_value_is_kept(new_stage: Any) -> None:
    stage = new_stage(update_buffer=10 * 2000)
    stage.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    stage.said()
    stage.pva.update("slow", "kept")
    for value in range(100):
        stage.pva.update("fast", value)
    stage.settle()
    assert stage.bodies("slow") == [{"slow": {"value": "kept"}}]
    assert stage.counters.dropped_updates == 91


def test_a_slow_pv_does_not_pay_for_a_fast_one(new_stage: Any) -> None:
    stage = new_stage(update_buffer=10 * 2000)
    stage.command("multi-monitor", pv_name_list=["pva://fast", "pva://slow"])
    for value in range(10):
        stage.pva.update("fast", value)
    stage.pva.update("slow", "kept though it came when there was no room")
    stage.settle()
    assert len(stage.bodies("slow")) == 1
    assert stage.counters.dropped == 0


def test_dropping_takes_the_oldest(new_stage: Any) -> None:
    stage = new_stage(update_buffer=10 * 2000)
    stage.command("monitor", pv_name="pva://fast", monitor_dest_topic="fast")
    for value in range(100):
        stage.pva.update("fast", value)
    stage.settle()
    assert [body["fast"]["value"] for body in stage.bodies("fast")] == list(range(90, 100))


def heard(stage: Any, listeners: dict[str, int] | None) -> None:
    stage.answers.monitors.heard(listeners, stage.scheduler.now, 3600.0)
    stage.settle()


def test_a_monitor_ends_when_nobody_has_listened_for_long_enough(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    heard(stage, {"b": 1})
    stage.advance(3599)
    heard(stage, {"b": 1})
    assert len(stage.pva.open("a")) == 1
    stage.advance(1)
    heard(stage, {"b": 1})
    assert (len(stage.pva.open("a")), len(stage.pva.open("b"))) == (0, 1)
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.said()
    stage.update("a", 1)
    assert stage.bodies("a") == [{"a": {"value": 1}}], "asked for again, it begins again"


@pytest.mark.parametrize("listeners", [{"a": 1}, {"replies": 2}, None])
def test_a_listener_on_its_topic_or_on_a_reply_topic_keeps_a_monitor(
    stage: Any, listeners: dict[str, int] | None
) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    heard(stage, {})
    stage.advance(1800)
    heard(stage, listeners)
    stage.advance(1801)
    heard(stage, {})
    stage.advance(3000)
    heard(stage, {})
    assert len(stage.pva.open("a")) == 1, "the time counts from when nobody was seen last"
    stage.advance(601)
    heard(stage, {})
    assert not stage.pva.open("a")


@pytest.mark.parametrize("raises", [None, RuntimeError("boom")])
def test_an_answer_is_over_when_its_monitors_are(stage: Any, raises: Exception | None) -> None:
    over: list[str] = []

    def ask(reply_id: str) -> None:
        command = encode_command(MultiMonitorCommand(("pva://a", "ca://b")), "replies", reply_id)
        answer = stage.answers.answer(Record("commands", 0, 0, None, command))
        answer.subscribe(on_completed=lambda: over.append(reply_id))

    stage.pva.raises = raises
    ask("first")
    ask("second")
    assert over == ["second"], "a repeated request is over at once, the first not while one of its monitors runs"
    heard(stage, {})
    stage.advance(3600)
    heard(stage, {})
    assert sorted(over) == ["first", "second"]
    assert len(stage.answers.monitors) == 0


def test_stopping_closes_all_subscriptions(stage: Any) -> None:
    stage.command("multi-monitor", pv_name_list=["pva://a", "pva://b", "ca://c"])
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="other")
    stage.subscription.dispose()
    assert not [each for each in stage.pva.subscriptions + stage.ca.subscriptions if each.open]
    assert len(stage.answers.monitors) == len(stage.answers.channels) == 0


def test_json_is_valid_whatever_the_value(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", float("nan"), limits=np.array([np.inf, -np.inf]))
    body = json.loads(stage.outgoing[-1].value, parse_constant=pytest.fail)
    assert body == {"a": {"value": "NaN", "limits": ["Infinity", "-Infinity"]}}
