"""Recurring snapshots in virtual time: iterations, triggers, pushes, pauses, filters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from k2eg_rx.gateway.commands import iteration_output, recurring_snapshots
from k2eg_rx.protocol.encode import Serialization

START_MS = 1_795_000_000_000


def start(gateway: Any, *pv_names: str, name: str = "s", **fields: Any) -> None:
    fields = {"respect_push_order": True} | fields  # as all clients send it today
    gateway.command(
        "repeating_snapshot", snapshot_name=name, pv_name_list=list(pv_names or ("pva://a", "pva://b")), **fields
    )


def parts(gateway: Any, topic: str = "s") -> list[tuple[Any, ...]]:
    """Returns published messages in short form: ("header", index), (name, value, index), ("tail", index)."""
    short: list[tuple[Any, ...]] = []
    for body in gateway.bodies(topic):
        index = body["iter_index"]
        if body["message_type"] == 1:
            ((name, structure),) = [item for item in body.items() if isinstance(item[1], dict)]
            short.append((name, structure.get("value"), index))
        else:
            short.append(("header" if body["message_type"] == 0 else "tail", index))
    return short


def test_start_replies_with_the_topic(gateway: Any) -> None:
    start(gateway, name="My Snap.1:x")
    (sent,) = gateway.sent()
    assert (sent.topic, sent.key, sent.form) == ("replies", "repeating-snapshot-events", Serialization.JSON)
    assert list(sent.body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "The snapshot 'My Snap.1:x' has been started"),
        ("publishing_topic", "my_snap_1_x"),
    ]
    gateway.advance(1.0)
    header, tail = gateway.sent()
    assert (header.topic, header.key) == ("my_snap_1_x", "My Snap.1:x")
    assert header.body["snapshot_name"] == tail.body["snapshot_name"] == "My Snap.1:x"


@pytest.mark.parametrize("serialization", ["json", "msgpack"])
def test_normal_reports_the_latest_value_of_each_pv_in_each_window(gateway: Any, serialization: str) -> None:
    start(gateway, "pva://a", "pva://b", "pva://no:such", serialization=serialization)
    gateway.sent()
    gateway.update("b", 1)
    gateway.update("a", 1)
    gateway.update("a", 2)
    gateway.advance(0.9)
    assert gateway.sent() == []
    gateway.advance(0.2)
    bodies = gateway.bodies("s")
    assert [body["timestamp"] for body in bodies] == [START_MS + 1000] * 4
    assert [body["message_type"] for body in bodies] == [0, 1, 1, 2]
    assert (bodies[1]["a"], bodies[2]["b"]) == ({"value": 2}, {"value": 1})
    assert bodies[3]["error"] == 0
    gateway.advance(2.0)
    assert parts(gateway) == [
        *[("header", 2), ("a", 2, 2), ("b", 1, 2), ("tail", 2)],
        *[("header", 3), ("a", 2, 3), ("b", 1, 3), ("tail", 3)],
    ]


def keys_beside(body: dict[str, Any], *known: str) -> list[str]:
    return [name for name in body if name not in known]


KNOWN = ("message_type", "timestamp", "iter_index", "snapshot_name", "error", "error_message")


@pytest.mark.parametrize("serialization", ["json", "msgpack"])
@pytest.mark.parametrize("fields", [{}, {"type": "timedbuffered"}, {"pv_field_filter_list": ["value"]}])
def test_messages_are_numbered_within_their_iteration(gateway: Any, serialization: str, fields: Any) -> None:
    start(gateway, serialization=serialization, **fields)
    gateway.update("a", 1)
    gateway.update("b", 2)
    gateway.advance(2.0)
    published = gateway.bodies("s")
    for bodies in ([body for body in published if body["iter_index"] == iteration] for iteration in (1, 2)):
        assert [keys_beside(body, *KNOWN) for body in bodies] == [
            ["msg_seq"],
            ["a", "msg_seq"],
            ["b", "msg_seq"],
            ["msg_seq", "total_messages"],
        ]
        assert [body["msg_seq"] for body in bodies] == [1, 2, 3, 4]
        assert bodies[-1]["total_messages"] == 4


def test_windows_do_not_drift(gateway: Any) -> None:
    start(gateway, time_window_msec=100)
    gateway.advance(10.05)
    stamps = [body["timestamp"] for body in gateway.bodies("s") if body["message_type"] == 2]
    assert len(stamps) == 100
    assert max(abs(stamp - START_MS - 100 * n) for n, stamp in enumerate(stamps, 1)) <= 1


def test_stop_publishes_a_last_iteration_and_then_replies(gateway: Any) -> None:
    start(gateway, "pva://a")
    gateway.update("a", 1)
    gateway.advance(1.5)
    gateway.sent()
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    sent = gateway.sent()
    assert [each.topic for each in sent] == ["s", "s", "s", "replies"]
    assert [each.body.get("iter_index") for each in sent] == [2, 2, 2, None]
    assert list(sent[-1].body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "Snapshot 's' has been stopped"),
    ]
    gateway.advance(5.0)
    assert gateway.sent() == []
    assert not gateway.pva.open("a")


def test_iterations_restart_at_1_after_a_stop(gateway: Any) -> None:
    for _ in range(2):
        start(gateway, "pva://a")
        gateway.advance(2.0)
        gateway.command("repeating_snapshot_stop", snapshot_name="s")
        indices = [body["iter_index"] for body in gateway.bodies("s") if body["message_type"] == 0]
        assert indices == [1, 2, 3]


def test_the_same_snapshot_is_joined_and_the_reply_has_no_topic(gateway: Any) -> None:
    start(gateway, "pva://a", "pva://b", name="My_Snap", pv_field_filter_list=["value", "alarm"])
    gateway.sent()
    start(gateway, "pva://b", "pva://a", name="my snap", type="NORMAL", pv_field_filter_list=["alarm", "value"])
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "message": "Snapshot my snap is already running"}]
    gateway.advance(1.0)
    assert parts(gateway, "my_snap") == [("header", 1), ("tail", 1)]
    gateway.command("repeating_snapshot_stop", snapshot_name="MY.SNAP")
    bodies = gateway.bodies()
    assert bodies[0]["snapshot_name"] == "My_Snap"
    assert bodies[-1]["message"] == "Snapshot 'MY.SNAP' has been stopped"


@pytest.mark.parametrize(
    ("pvs", "fields", "text"),
    [
        (["pva://a", "pva://c"], {}, "other PVs: it has also pva://b and not pva://c;"),
        (["pva://a"], {}, "other PVs: it has also pva://b;"),
        (["ca://a", "pva://b"], {}, "other PVs: it has also pva://a and not ca://a;"),
        ([f"pva://{c}" for c in "abcdefg"], {}, "other PVs: it has not pva://c, pva://d, pva://e ... (2 more);"),
        ([], {"time_window_msec": 10}, "time_window_msec=1000, not 10;"),
        ([], {"repeat_delay_msec": 5}, "repeat_delay_msec=0, not 5;"),
        ([], {"sub_push_delay_msec": 5}, "sub_push_delay_msec=0, not 5;"),
        ([], {"triggered": True}, "triggered=False, not True;"),
        ([], {"type": "timedbuffered"}, "type='normal', not 'timedbuffered';"),
        ([], {"pv_field_filter_list": ["value"]}, "pv_field_filter_list=[], not ['value'];"),
    ],
)
def test_a_name_in_use_with_another_definition_is_refused(gateway: Any, pvs: Any, fields: Any, text: str) -> None:
    start(gateway)
    gateway.sent()
    start(gateway, *pvs, name="S", **fields)
    message = f"Snapshot S is in use with {text} stop it first, or use another name"
    assert gateway.bodies() == [{"error": -8, "reply_id": "id", "message": message}]
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 1), ("tail", 1)], "the running one goes on as it was"


def check_consumers(gateway: Any, listeners: dict[str, int] | None) -> None:
    gateway.handler.expire(listeners)
    gateway.settle()


def test_a_snapshot_without_consumers_ends_like_a_monitor(gateway: Any) -> None:
    start(gateway, "pva://a", triggered=True)
    start(gateway, "pva://b", name="other", reply_topic="others", triggered=True)
    check_consumers(gateway, {"others": 1})
    gateway.advance(3599)
    check_consumers(gateway, {"others": 1})
    assert len(gateway.handler.recurring) == 2
    gateway.advance(1)
    check_consumers(gateway, {"others": 1})
    gateway.sent()
    gateway.advance(5.0)
    assert (parts(gateway, "s"), gateway.pva.open("a")) == ([], [])
    assert len(gateway.pva.open("b")) == 1
    start(gateway, "pva://c")
    assert gateway.bodies()[0]["publishing_topic"] == "s", "its name is free"


@pytest.mark.parametrize("listeners", [{"s": 1}, {"replies": 1}, {"joined": 1}, None])
def test_consumers_of_its_topic_or_a_reply_topic_keep_a_snapshot(gateway: Any, listeners: Any) -> None:
    start(gateway, "pva://a", triggered=True)
    start(gateway, "pva://a", reply_topic="joined", triggered=True)
    for _ in range(5):
        check_consumers(gateway, listeners)
        gateway.advance(2000)
    assert len(gateway.handler.recurring) == 1


def test_a_start_that_fails_leaves_no_snapshot_behind(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gateway.handler.topics, "ensure", lambda *_: 1 / 0)
        start(gateway, "pva://a")
    assert [body["error"] for body in gateway.bodies()] == [-2]
    assert (len(gateway.handler.recurring), gateway.pva.open("a")) == (0, [])
    start(gateway, "pva://a")
    assert gateway.bodies()[0]["publishing_topic"] == "s"


@pytest.mark.parametrize("command", ["repeating_snapshot", "repeating_snapshot_trigger", "repeating_snapshot_stop"])
def test_a_snapshot_name_with_control_characters_is_refused(gateway: Any, command: str) -> None:
    gateway.command(command, snapshot_name="s\x1b[2J\u202e", pv_name_list=["pva://a"])
    ((body),) = gateway.bodies()
    assert body["error"] < 0
    assert "control characters" in body["message"]
    assert body["message"].isprintable()


def test_triggered_publishes_nothing_before_a_trigger(gateway: Any) -> None:
    start(gateway, "pva://a", triggered=True)
    gateway.sent()
    gateway.update("a", 1)
    gateway.advance(5.0)
    assert gateway.sent() == []
    for _ in range(2):
        gateway.command("repeating_snapshot_trigger", snapshot_name="s", tags={"shot": "5"})
    sent = gateway.sent()
    assert [each.topic for each in sent] == ["s", "s", "s", "replies"] * 2
    assert sent[3].body == {"error": 0, "reply_id": "id", "message": "Snapshot 's' has been armed"}
    assert sent[0].body["tags"] == sent[4].body["tags"] == {"shot": "5"}
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    bodies = gateway.bodies("s")
    assert [(body["message_type"], body["msg_seq"], body["iter_index"]) for body in bodies] == [
        (0, 1, 3),
        (1, 2, 3),
        (2, 3, 3),
    ]
    assert not any("tags" in body for body in bodies)


def test_each_waiting_trigger_keeps_its_tags(slow: tuple[Any, Callable[[], None]]) -> None:
    gateway, make = slow
    start(gateway, "pva://a", triggered=True)
    for shot in ("1", "2", "3"):
        gateway.command("repeating_snapshot_trigger", snapshot_name="s", tags={"shot": shot})
    make()
    assert [body["tags"]["shot"] for body in gateway.bodies("s") if body["message_type"] == 0] == ["1", "2", "3"]


def test_a_trigger_directly_after_the_start_works(gateway: Any) -> None:
    start(gateway, "pva://a", triggered=True)
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    assert [body["error"] for body in gateway.bodies("replies")] == [0, 0]


def test_triggering_a_timed_snapshot_has_no_effect(gateway: Any) -> None:
    start(gateway, "pva://a")
    gateway.sent()
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    assert [body["message"] for body in gateway.bodies()] == ["Snapshot 's' has been armed"]


def test_stop_and_trigger_of_a_snapshot_that_is_not_running(gateway: Any) -> None:
    gateway.command("repeating_snapshot_stop", snapshot_name="nope")
    gateway.command("repeating_snapshot_trigger", snapshot_name="nope")
    gateway.command("repeating_snapshot_stop", snapshot_name="")
    gateway.command("repeating_snapshot_trigger")
    assert [(body["error"], body["message"]) for body in gateway.bodies()] == [
        (0, "Snapshot 'nope' is already stopped"),
        (-2, "Snapshot 'nope' has not been found"),
        (-1, "The snapshot name is empty"),
        (-1, "The snapshot name is empty"),
    ]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"type": "odd"}, -1, "The snapshot type Unknown is not supported"),
        ({"repeat_delay_msec": -1}, -3, "The repeat delay is not valid s"),
        ({"time_window_msec": -1}, -4, "The time window is not valid s"),
        ({"time_window_msec": 10**30}, -4, "The time window is not valid s"),
        ({"snapshot_name": ""}, -5, "The snapshot name is not valid "),
        ({"snapshot_name": ...}, -5, "The snapshot name is not valid "),
        ({"pv_name_list": ["pva://a", "bad"]}, -6, "The pv uri bad is not parsable"),
        ({"sub_push_delay_msec": -1}, -7, "The sub push delay is not valid s"),
        (
            {"pv_field_filter_list": ["value", "alarm.severity"]},
            -7,
            "The field filter 'alarm.severity' is not valid: it keeps top-level fields s",
        ),
    ],
)
def test_invalid_start_commands_are_refused(gateway: Any, fields: dict[str, Any], error: int, message: str) -> None:
    command = {"snapshot_name": "s", "pv_name_list": ["pva://a"]} | fields
    gateway.command("repeating_snapshot", **command)
    (sent,) = gateway.sent()
    assert (sent.key, sent.body) == (
        "repeating-snapshot-events",
        {"error": error, "reply_id": "id", "message": message},
    )
    assert not gateway.pva.subscriptions
    assert len(gateway.handler.recurring) == 0


def test_the_type_is_case_insensitive(gateway: Any) -> None:
    start(gateway, "pva://a", type="TimedBuffered")
    assert [body["error"] for body in gateway.bodies()] == [0]


def test_timedbuffered_reports_every_value_of_the_window(gateway: Any) -> None:
    start(gateway, "pva://a", "pva://b", type="timedbuffered")
    gateway.sent()
    gateway.update("b", 1)
    for value in (1, 2, 3):
        gateway.update("a", value)
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 1), ("b", 1, 1), ("a", 1, 1), ("a", 2, 1), ("a", 3, 1), ("tail", 1)]
    gateway.update("a", 4)
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 2), ("a", 4, 2), ("b", 1, 2), ("tail", 2)], "PVs without an update come last"
    gateway.update("a", 5)
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    assert parts(gateway) == [("header", 3), ("a", 5, 3), ("tail", 3)], "the last iteration reports buffered values"


def test_timedbuffered_pushes_between_one_header_and_one_tail(gateway: Any) -> None:
    start(gateway, "pva://a", type="timedbuffered", time_window_msec=1000, sub_push_delay_msec=250)
    gateway.sent()
    gateway.advance(0.3)
    assert gateway.sent() == [], "an empty buffer is not pushed"
    gateway.update("a", 1)
    gateway.advance(0.25)
    assert parts(gateway) == [("header", 1), ("a", 1, 1)]
    gateway.update("a", 2)
    gateway.advance(0.25)
    assert parts(gateway) == [("a", 2, 1)]
    gateway.update("a", 3)
    gateway.advance(0.25)
    bodies = gateway.bodies("s")
    assert [body["message_type"] for body in bodies] == [1, 2]
    assert {body["timestamp"] for body in bodies} == {START_MS + 1000}, "each push has its own timestamp"
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 2), ("a", 3, 2), ("tail", 2)]


@pytest.mark.parametrize("serialization", ["json", "msgpack"])
def test_pushes_are_numbered_within_their_iteration(gateway: Any, serialization: str) -> None:
    """From 1 in the header to that of the newest data in the tail; the last data message of each push is marked."""
    start(gateway, "pva://a", type="timedbuffered", sub_push_delay_msec=250, serialization=serialization)
    gateway.sent()
    for values in (2, 1, 0, 0):
        for value in range(values):
            gateway.update("a", value)
        gateway.advance(0.25)
    bodies = gateway.bodies("s")
    assert [(body["submission_seq"], body.get("last_submission_data", False)) for body in bodies] == [
        *[(1, False), (1, False), (1, True)],
        *[(2, True), (2, False)],
    ]
    assert [body["msg_seq"] for body in bodies] == [1, 2, 3, 4, 5]
    assert keys_beside(bodies[1], *KNOWN)[0] == "a"
    gateway.advance(1.0)
    header, data, tail = gateway.bodies("s")
    assert (header["submission_seq"], data["last_submission_data"], tail["submission_seq"]) == (1, True, 1)


def test_a_normal_snapshot_with_a_push_period_has_one_push(gateway: Any) -> None:
    """Client 0.3.2 looks for the numbers of pushes wherever it has asked for pushes."""
    start(gateway, sub_push_delay_msec=250)
    gateway.update("b", 1)
    gateway.update("a", 1)
    gateway.advance(1.0)
    bodies = gateway.bodies("s")
    assert [(body["submission_seq"], body.get("last_submission_data", False)) for body in bodies] == [
        (1, False),
        (1, False),
        (1, True),
        (1, False),
    ]


def test_an_iteration_without_data_is_numbered(gateway: Any) -> None:
    start(gateway, sub_push_delay_msec=250)
    gateway.advance(1.0)
    header, tail = gateway.bodies("s")
    assert (header["msg_seq"], header["submission_seq"]) == (1, 1)
    assert (tail["msg_seq"], tail["total_messages"], tail["submission_seq"]) == (2, 2, 1)


def test_timedbuffered_pushes_each_second_by_default(gateway: Any) -> None:
    start(gateway, "pva://a", type="timedbuffered", time_window_msec=2500)
    gateway.sent()
    for value in range(5):
        gateway.update("a", value)
        gateway.advance(0.5)
    assert parts(gateway) == [
        *[("header", 1), ("a", 0, 1), ("a", 1, 1)],
        *[("a", 2, 1), ("a", 3, 1)],
        *[("a", 4, 1), ("tail", 1)],
    ]


@pytest.mark.parametrize("push", [1000, 5000])
def test_a_push_period_as_long_as_the_window_has_no_effect(gateway: Any, push: int) -> None:
    start(gateway, "pva://a", type="timedbuffered", time_window_msec=1000, sub_push_delay_msec=push)
    gateway.sent()
    gateway.update("a", 1)
    gateway.advance(2.1)
    assert parts(gateway) == [("header", 1), ("a", 1, 1), ("tail", 1), ("header", 2), ("a", 1, 2), ("tail", 2)]


def test_triggered_timedbuffered_reports_values_younger_than_the_window(gateway: Any) -> None:
    start(gateway, "pva://a", "pva://b", type="timedbuffered", triggered=True, time_window_msec=1000)
    gateway.sent()
    gateway.update("b", 1)
    for value in range(4):
        gateway.update("a", value)
        gateway.advance(0.4)
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    assert parts(gateway) == [("header", 1), ("a", 2, 1), ("a", 3, 1), ("b", 1, 1), ("tail", 1)]
    gateway.advance(10.0)
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    assert parts(gateway) == [("header", 2), ("a", 3, 2), ("b", 1, 2), ("tail", 2)]


def test_repeat_delay_is_a_pause_between_windows(gateway: Any) -> None:
    start(gateway, "pva://a", time_window_msec=500, repeat_delay_msec=1500)
    gateway.advance(6.1)
    stamps = [body["timestamp"] - START_MS for body in gateway.bodies("s") if body["message_type"] == 0]
    assert stamps == [500, 2500, 4500]


def test_buffered_windows_exclude_values_of_the_pause(gateway: Any) -> None:
    start(gateway, "pva://a", type="timedbuffered", time_window_msec=500, repeat_delay_msec=500)
    gateway.sent()
    gateway.update("a", 1)
    gateway.advance(0.6)
    assert parts(gateway) == [("header", 1), ("a", 1, 1), ("tail", 1)]
    gateway.update("a", 2)
    gateway.update("a", 3)
    gateway.advance(0.5)
    gateway.update("a", 4)
    gateway.advance(0.5)
    assert parts(gateway) == [("header", 2), ("a", 4, 2), ("tail", 2)]
    gateway.update("a", 5)
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 3), ("a", 5, 3), ("tail", 3)], (
        "a silent PV's last known value may be of the pause"
    )


@pytest.mark.parametrize("type_", ["normal", "timedbuffered"])
def test_the_field_filter_skips_missing_fields(gateway: Any, type_: str) -> None:
    start(gateway, "pva://a", "pva://b", type=type_, pv_field_filter_list=["alarm", "value", "nope"])
    gateway.sent()
    gateway.update("a", 1, alarm={"severity": 0}, timeStamp={"secondsPastEpoch": 1})
    gateway.update("b", 2, timeStamp={"secondsPastEpoch": 1})
    gateway.advance(1.0)
    _, a, b, _ = gateway.bodies("s")
    assert a["a"] == {"value": 1, "alarm": {"severity": 0}}
    assert b["b"] == {"value": 2}


def test_an_empty_window_yields_an_iteration_per_millisecond(gateway: Any) -> None:
    start(gateway, "pva://a", time_window_msec=0)
    gateway.advance(0.05)
    indices = [body["iter_index"] for body in gateway.bodies("s") if body["message_type"] == 0]
    assert 45 <= len(indices) <= 50


def test_a_full_buffer_drops_the_oldest_values_and_reports_it(new_gateway: Any) -> None:
    gateway = new_gateway(snapshot_buffer=3)
    start(gateway, "pva://a", type="timedbuffered")
    gateway.sent()
    for value in range(5):
        gateway.update("a", value)
    gateway.advance(1.0)
    bodies = gateway.bodies("s")
    assert [body["a"]["value"] for body in bodies[1:-1]] == [2, 3, 4]
    assert bodies[-1]["error_message"] == "2 values are missing: no more than 3 are held back"
    assert gateway.metrics.dropped_samples == 2


def test_snapshots_and_monitors_share_subscriptions(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    gateway.update("a", 1)
    start(gateway, "pva://a", name="one")
    start(gateway, "pva://a", name="two", type="timedbuffered")
    gateway.update("a", 2)
    gateway.advance(1.0)
    assert len(gateway.pva.subscriptions) == 1
    sent = gateway.sent()
    assert [each.body["a"]["value"] for each in sent if each.topic == "a"] == [1, 2]
    assert [each.body["a"]["value"] for each in sent if each.topic == "one" and "a" in each.body] == [2]
    assert [each.body["a"]["value"] for each in sent if each.topic == "two" and "a" in each.body] == [1, 2]
    gateway.command("repeating_snapshot_stop", snapshot_name="one")
    gateway.command("repeating_snapshot_stop", snapshot_name="two")
    assert len(gateway.pva.open("a")) == 1, "the monitor still uses it"


def test_a_pv_whose_subscription_fails_is_missing(gateway: Any) -> None:
    gateway.pva.raises = RuntimeError("boom")
    start(gateway, "pva://a", "ca://b")
    gateway.ca.update("b", 1)
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 1), ("b", 1, 1), ("tail", 1)]


def test_a_value_that_cannot_be_serialized_is_missing_and_counted(gateway: Any) -> None:
    start(gateway, "pva://a", "pva://b")
    gateway.update("a", object())
    gateway.update("b", 1)
    gateway.advance(1.0)
    assert parts(gateway) == [("header", 1), ("b", 1, 1), ("tail", 1)]
    assert gateway.metrics.unencodable == 1


def test_a_very_long_window_is_started_at_once(gateway: Any) -> None:
    start(gateway, "pva://a", time_window_msec=365 * 24 * 3600 * 1000, sub_push_delay_msec=1, type="timedbuffered")
    assert [body["error"] for body in gateway.bodies()] == [0]


class SlowAdmin:
    """Creates topics when the test lets it."""

    def __init__(self) -> None:
        self.created = threading.Event()

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        assert self.created.wait(60)
        return {}

    def listeners(self) -> None:
        return None

    def end_offsets(self, topics: Any) -> dict[str, int]:
        return {}

    def delete(self, topics: Any) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.created.set()


@pytest.fixture
def slow(new_gateway: Callable[..., Any]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A gateway whose topics take long to make, and a function that makes them."""
    gateway, admin = new_gateway(), SlowAdmin()
    topics = gateway.handler.topics
    topics._admin, topics._create = admin, True

    def make() -> None:
        admin.created.set()
        deadline = threading.Event()
        while topics._running_requests and not deadline.wait(0.001):
            gateway.settle()

    yield gateway, make
    topics.close(5.0)


def test_the_first_iteration_waits_for_the_topic(slow: tuple[Any, Callable[[], None]]) -> None:
    """It would be published to no topic, and no client would see it; so does the reply, after which clients listen."""
    gateway, make = slow
    start(gateway, "pva://a", name="s", time_window_msec=1000, type="timedbuffered")
    gateway.update("a", 1)
    gateway.update("a", 2)
    gateway.advance(20.0)
    assert gateway.sent() == []
    make()
    gateway.update("a", 3)
    gateway.advance(1.0)
    reply, *sent = gateway.bodies()
    assert reply["error"] == 0
    assert {body["iter_index"] for body in sent} == {1}
    assert [body["a"]["value"] for body in sent if "a" in body] == [2, 3], "from the newest value on"


def test_a_stop_before_the_topic_exists_answers_the_start_first(slow: tuple[Any, Callable[[], None]]) -> None:
    gateway, _ = slow
    start(gateway, "pva://a", name="s", reply_id="start")
    gateway.command("repeating_snapshot_stop", snapshot_name="s", reply_id="stop")
    assert [body["reply_id"] for body in gateway.bodies("replies")] == ["start", "stop"]


def test_triggers_wait_for_the_topic(slow: tuple[Any, Callable[[], None]]) -> None:
    gateway, make = slow
    start(gateway, "pva://a", name="s", triggered=True)
    gateway.update("a", 1)
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    assert gateway.bodies("s") == []
    make()
    assert [body["iter_index"] for body in gateway.bodies("s") if body["message_type"] == 2] == [1, 2]


def test_a_monitor_publishes_the_newest_value_when_its_topic_exists(slow: tuple[Any, Callable[[], None]]) -> None:
    gateway, make = slow
    gateway.command("monitor", pv_name="pva://m", monitor_dest_topic="m")
    gateway.advance(100.0)
    assert gateway.bodies("m") == []
    make()
    gateway.update("m", 7)
    assert gateway.bodies("m") == [{"m": {"value": 7}}]


def test_a_value_whose_encoding_fails_is_counted_in_the_tail(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = recurring_snapshots.encode_data

    def failing(form: Serialization, timestamp: int, iter_index: int, pv_name: str, fragment: bytes) -> bytes:
        if pv_name == "a":
            raise RuntimeError("a fault of the encoder")
        return encode(form, timestamp, iter_index, pv_name, fragment)

    monkeypatch.setattr(recurring_snapshots, "encode_data", failing)
    start(gateway, "pva://a", "pva://b", name="s")
    gateway.update("a", 1)
    gateway.update("b", 1)
    gateway.advance(1.0)
    (tail,) = [body for body in gateway.bodies("s") if body["message_type"] == 2]
    assert (tail["msg_seq"], tail["total_messages"], tail["missing_messages"]) == (3, 3, 1)
    assert gateway.metrics.failures == 1


def test_a_value_that_cannot_be_published_is_named_in_the_next_tail(gateway: Any) -> None:
    start(gateway, "pva://a", "pva://b", name="s")
    gateway.update("a", object())
    gateway.update("b", 1)
    gateway.advance(1.0)
    (tail,) = [body for body in gateway.bodies("s") if body["message_type"] == 2]
    assert tail["error_message"].startswith("a: the value cannot be serialized: ")
    assert (tail["msg_seq"], tail["total_messages"], tail["missing_messages"]) == (3, 3, 1)
    instead = next(each.instead for each in gateway.outgoing if each.topic == "s" and b'"b"' in each.value)
    assert instead("too large", 1) is None
    gateway.update("a", 2)
    gateway.advance(1.0)
    (tail,) = [body for body in gateway.bodies("s") if body["message_type"] == 2]
    assert tail["error_message"] == "b: too large"


@pytest.mark.parametrize("age", [31.0, -6.0])
def test_a_trigger_that_is_too_old_or_from_the_future_is_refused(gateway: Any, age: float) -> None:
    properties = {"pv_name_list": ["pva://a"], "triggered": True, "type": "normal"}
    gateway.command("repeating_snapshot", snapshot_name="late", **properties)
    gateway.update("a", 1)
    gateway.sent()
    gateway.command("repeating_snapshot_trigger", snapshot_name="late", age=age)
    (body,) = gateway.bodies()
    assert body["error"] == -3
    assert "not carried out" in body["message"]


@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_a_client_that_knows_no_numbers_gets_data_with_the_fields_that_it_knows(gateway: Any, form: str) -> None:
    """Releases before 0.3.0 drop data messages of which more than the PV is left without these fields."""
    gateway.command(
        "repeating_snapshot",
        snapshot_name="s",
        pv_name_list=["pva://a"],
        type="timedbuffered",
        sub_push_delay_msec=250,
        serialization=form,
    )
    gateway.update("a", 1)
    gateway.advance(1.0)
    known = {"message_type", "timestamp", "iter_index", "snapshot_name", "error", "error_message"}
    assert [set(body) - known for body in gateway.bodies("s")] == [set(), {"a"}, set()]


def publish_one_by_one(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Lets publishing take its time: a message each so many seconds, as on a busy machine."""

    def slow(scheduler: Any, items: Iterator[Any], action: Callable[[Any], object], done: Callable[[], None]) -> Any:
        def step(_scheduler: Any, _state: object = None) -> None:
            for item in items:
                action(item)
                scheduler.schedule_relative(seconds, step)
                return
            done()

        return scheduler.schedule_relative(seconds, step)

    monkeypatch.setattr(iteration_output, "in_slices", slow)


def test_an_iteration_ends_with_its_window_while_a_push_is_being_published(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_one_by_one(monkeypatch, 0.03)
    start(gateway, "pva://a", type="timedbuffered", time_window_msec=1000, sub_push_delay_msec=100)
    for number in range(60):  # 60 ms of publishing each 100 ms: one push or another is always on its way
        gateway.update("a", number)
        gateway.advance(0.05)
    ended = [body["iter_index"] for body in gateway.bodies("s") if body["message_type"] == 2]
    assert ended[:2] == [1, 2]


def test_a_window_goes_on_while_the_iteration_before_is_being_published(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_one_by_one(monkeypatch, 0.3)
    start(gateway, "pva://a", "pva://b", time_window_msec=500)
    gateway.update("a", 1)
    gateway.update("b", 1)
    gateway.advance(3.0)
    bodies = gateway.bodies("s")
    assert [body["iter_index"] for body in bodies] == sorted(body["iter_index"] for body in bodies)
    assert max(body["iter_index"] for body in bodies) <= 3, "four messages take 1.2 s"
