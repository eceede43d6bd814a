"""Recurring snapshots in virtual time: iterations, triggers, pushes, pauses, filters, the last iteration, names."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.protocol.encode import Serialization

START_MS = 1_795_000_000_000


def start(stage: Any, *pv_names: str, name: str = "s", **fields: Any) -> None:
    stage.command(
        "repeating_snapshot", snapshot_name=name, pv_name_list=list(pv_names or ("pva://a", "pva://b")), **fields
    )


def parts(stage: Any, topic: str = "s") -> list[tuple[Any, ...]]:
    """What was published, in short: ("header", index), (name, value, index), ("tail", index)."""
    short: list[tuple[Any, ...]] = []
    for body in stage.bodies(topic):
        index = body["iter_index"]
        if body["message_type"] == 1:
            ((name, structure),) = [item for item in body.items() if isinstance(item[1], dict)]
            short.append((name, structure.get("value"), index))
        else:
            short.append(("header" if body["message_type"] == 0 else "tail", index))
    return short


def test_start_is_answered_with_the_topic(stage: Any) -> None:
    start(stage, name="My Snap.1:x")
    (said,) = stage.said()
    assert (said.topic, said.key, said.form) == ("replies", "repeating-snapshot-events", Serialization.JSON)
    assert list(said.body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "The snapshot 'My Snap.1:x' has been started"),
        ("publishing_topic", "my_snap_1_x"),
    ]
    stage.advance(1.0)
    header, tail = stage.said()
    assert (header.topic, header.key) == ("my_snap_1_x", "My Snap.1:x")
    assert header.body["snapshot_name"] == tail.body["snapshot_name"] == "My Snap.1:x"


@pytest.mark.parametrize("serialization", ["json", "msgpack"])
def test_normal_says_the_last_known_value_of_each_pv_in_each_window(stage: Any, serialization: str) -> None:
    start(stage, "pva://a", "pva://b", "pva://no:such", serialization=serialization)
    stage.said()
    stage.update("b", 1)
    stage.update("a", 1)
    stage.update("a", 2)
    stage.advance(0.9)
    assert stage.said() == []
    stage.advance(0.2)
    bodies = stage.bodies("s")
    assert [body["timestamp"] for body in bodies] == [START_MS + 1000] * 4
    assert [body["message_type"] for body in bodies] == [0, 1, 1, 2]
    assert (bodies[1]["a"], bodies[2]["b"]) == ({"value": 2}, {"value": 1})
    assert bodies[3]["error"] == 0
    stage.advance(2.0)
    assert parts(stage) == [
        *[("header", 2), ("a", 2, 2), ("b", 1, 2), ("tail", 2)],
        *[("header", 3), ("a", 2, 3), ("b", 1, 3), ("tail", 3)],
    ]


def test_windows_do_not_drift(stage: Any) -> None:
    start(stage, time_window_msec=100)
    stage.advance(10.05)
    stamps = [body["timestamp"] for body in stage.bodies("s") if body["message_type"] == 2]
    assert len(stamps) == 100
    assert max(abs(stamp - START_MS - 100 * n) for n, stamp in enumerate(stamps, 1)) <= 1


def test_stop_publishes_a_last_iteration_and_then_answers(stage: Any) -> None:
    start(stage, "pva://a")
    stage.update("a", 1)
    stage.advance(1.5)
    stage.said()
    stage.command("repeating_snapshot_stop", snapshot_name="s")
    said = stage.said()
    assert [each.topic for each in said] == ["s", "s", "s", "replies"]
    assert [each.body.get("iter_index") for each in said] == [2, 2, 2, None]
    assert list(said[-1].body.items()) == [
        ("error", 0),
        ("reply_id", "id"),
        ("message", "Snapshot 's' has been stopped"),
    ]
    stage.advance(5.0)
    assert stage.said() == []
    assert not stage.pva.open("a")


def test_iterations_begin_at_1_again_after_a_stop(stage: Any) -> None:
    for _ in range(2):
        start(stage, "pva://a")
        stage.advance(2.0)
        stage.command("repeating_snapshot_stop", snapshot_name="s")
        indices = [body["iter_index"] for body in stage.bodies("s") if body["message_type"] == 0]
        assert indices == [1, 2, 3]


def test_a_name_that_runs_already_is_answered_without_a_topic(stage: Any) -> None:
    start(stage, "pva://a", name="My_Snap")
    stage.said()
    start(stage, "pva://b", name="my snap", time_window_msec=10)
    assert stage.bodies() == [{"error": 0, "reply_id": "id", "message": "Snapshot my snap is already running"}]
    stage.advance(1.0)
    assert parts(stage, "my_snap") == [("header", 1), ("tail", 1)], "the first one's parameters stay"
    stage.command("repeating_snapshot_stop", snapshot_name="MY.SNAP")
    bodies = stage.bodies()
    assert bodies[0]["snapshot_name"] == "My_Snap"
    assert bodies[-1]["message"] == "Snapshot 'MY.SNAP' has been stopped"


def test_triggered_says_nothing_until_it_is_triggered(stage: Any) -> None:
    start(stage, "pva://a", triggered=True)
    stage.said()
    stage.update("a", 1)
    stage.advance(5.0)
    assert stage.said() == []
    for _ in range(2):
        stage.command("repeating_snapshot_trigger", snapshot_name="s", tags={"shot": "5"})
    said = stage.said()
    assert [each.topic for each in said] == ["s", "s", "s", "replies"] * 2
    assert said[3].body == {"error": 0, "reply_id": "id", "message": "Snapshot 's' has been armed"}
    stage.command("repeating_snapshot_stop", snapshot_name="s")
    assert parts(stage) == [("header", 3), ("a", 1, 3), ("tail", 3)]


def test_a_trigger_right_behind_the_start_finds_it(stage: Any) -> None:
    start(stage, "pva://a", triggered=True)
    stage.command("repeating_snapshot_trigger", snapshot_name="s")
    assert [body["error"] for body in stage.bodies("replies")] == [0, 0]


def test_triggering_one_that_runs_by_itself_has_no_effect(stage: Any) -> None:
    start(stage, "pva://a")
    stage.said()
    stage.command("repeating_snapshot_trigger", snapshot_name="s")
    assert [body["message"] for body in stage.bodies()] == ["Snapshot 's' has been armed"]


def test_stop_and_trigger_of_what_does_not_run(stage: Any) -> None:
    stage.command("repeating_snapshot_stop", snapshot_name="nope")
    stage.command("repeating_snapshot_trigger", snapshot_name="nope")
    stage.command("repeating_snapshot_stop", snapshot_name="")
    stage.command("repeating_snapshot_trigger")
    assert [(body["error"], body["message"]) for body in stage.bodies()] == [
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
def test_what_cannot_be_started(stage: Any, fields: dict[str, Any], error: int, message: str) -> None:
    command = {"snapshot_name": "s", "pv_name_list": ["pva://a"]} | fields
    stage.command("repeating_snapshot", **command)
    (said,) = stage.said()
    assert (said.key, said.body) == (
        "repeating-snapshot-events",
        {"error": error, "reply_id": "id", "message": message},
    )
    assert not stage.pva.subscriptions
    assert len(stage.answers.recurring) == 0


def test_type_is_taken_in_any_case(stage: Any) -> None:
    start(stage, "pva://a", type="TimedBuffered")
    assert [body["error"] for body in stage.bodies()] == [0]


def test_timedbuffered_says_every_value_of_the_window(stage: Any) -> None:
    start(stage, "pva://a", "pva://b", type="timedbuffered")
    stage.said()
    stage.update("b", 1)
    for value in (1, 2, 3):
        stage.update("a", value)
    stage.advance(1.0)
    assert parts(stage) == [("header", 1), ("b", 1, 1), ("a", 1, 1), ("a", 2, 1), ("a", 3, 1), ("tail", 1)]
    stage.update("a", 4)
    stage.advance(1.0)
    assert parts(stage) == [("header", 2), ("a", 4, 2), ("b", 1, 2), ("tail", 2)], "who is silent is said last"
    stage.update("a", 5)
    stage.command("repeating_snapshot_stop", snapshot_name="s")
    assert parts(stage) == [("header", 3), ("a", 5, 3), ("tail", 3)], "the last one says what is buffered"


def test_timedbuffered_pushes_between_one_header_and_one_tail(stage: Any) -> None:
    start(stage, "pva://a", type="timedbuffered", time_window_msec=1000, sub_push_delay_msec=250)
    stage.said()
    stage.advance(0.3)
    assert stage.said() == [], "nothing has come, nothing is pushed"
    stage.update("a", 1)
    stage.advance(0.25)
    assert parts(stage) == [("header", 1), ("a", 1, 1)]
    stage.update("a", 2)
    stage.advance(0.25)
    assert parts(stage) == [("a", 2, 1)]
    stage.update("a", 3)
    stage.advance(0.25)
    bodies = stage.bodies("s")
    assert [body["message_type"] for body in bodies] == [1, 2]
    assert {body["timestamp"] for body in bodies} == {START_MS + 1000}, "each batch has its own time, the tail the last"
    stage.advance(1.0)
    assert parts(stage) == [("header", 2), ("a", 3, 2), ("tail", 2)]


def test_timedbuffered_pushes_each_second_if_nothing_is_asked(stage: Any) -> None:
    start(stage, "pva://a", type="timedbuffered", time_window_msec=2500)
    stage.said()
    for value in range(5):
        stage.update("a", value)
        stage.advance(0.5)
    assert parts(stage) == [
        *[("header", 1), ("a", 0, 1), ("a", 1, 1)],
        *[("a", 2, 1), ("a", 3, 1)],
        *[("a", 4, 1), ("tail", 1)],
    ]


@pytest.mark.parametrize("push", [1000, 5000])
def test_a_push_as_long_as_the_window_is_its_end(stage: Any, push: int) -> None:
    start(stage, "pva://a", type="timedbuffered", time_window_msec=1000, sub_push_delay_msec=push)
    stage.said()
    stage.update("a", 1)
    stage.advance(2.1)
    assert parts(stage) == [("header", 1), ("a", 1, 1), ("tail", 1), ("header", 2), ("a", 1, 2), ("tail", 2)]


def test_triggered_timedbuffered_says_what_is_younger_than_the_window(stage: Any) -> None:
    start(stage, "pva://a", "pva://b", type="timedbuffered", triggered=True, time_window_msec=1000)
    stage.said()
    stage.update("b", 1)
    for value in range(4):
        stage.update("a", value)
        stage.advance(0.4)
    stage.command("repeating_snapshot_trigger", snapshot_name="s")
    assert parts(stage) == [("header", 1), ("a", 2, 1), ("a", 3, 1), ("b", 1, 1), ("tail", 1)]
    stage.advance(10.0)
    stage.command("repeating_snapshot_trigger", snapshot_name="s")
    assert parts(stage) == [("header", 2), ("a", 3, 2), ("b", 1, 2), ("tail", 2)]


def test_repeat_delay_is_a_pause_between_windows(stage: Any) -> None:
    start(stage, "pva://a", time_window_msec=500, repeat_delay_msec=1500)
    stage.advance(6.1)
    stamps = [body["timestamp"] - START_MS for body in stage.bodies("s") if body["message_type"] == 0]
    assert stamps == [500, 2500, 4500]


def test_values_of_the_pause_are_not_part_of_a_buffered_window(stage: Any) -> None:
    start(stage, "pva://a", type="timedbuffered", time_window_msec=500, repeat_delay_msec=500)
    stage.said()
    stage.update("a", 1)
    stage.advance(0.6)
    assert parts(stage) == [("header", 1), ("a", 1, 1), ("tail", 1)]
    stage.update("a", 2)
    stage.update("a", 3)
    stage.advance(0.5)
    stage.update("a", 4)
    stage.advance(0.5)
    assert parts(stage) == [("header", 2), ("a", 4, 2), ("tail", 2)]
    stage.update("a", 5)
    stage.advance(1.0)
    assert parts(stage) == [("header", 3), ("a", 5, 3), ("tail", 3)], (
        "a silent PV's last known value may be of the pause"
    )


@pytest.mark.parametrize("type_", ["normal", "timedbuffered"])
def test_the_field_filter_keeps_what_there_is(stage: Any, type_: str) -> None:
    start(stage, "pva://a", "pva://b", type=type_, pv_field_filter_list=["alarm", "value", "nope"])
    stage.said()
    stage.update("a", 1, alarm={"severity": 0}, timeStamp={"secondsPastEpoch": 1})
    stage.update("b", 2, timeStamp={"secondsPastEpoch": 1})
    stage.advance(1.0)
    _, a, b, _ = stage.bodies("s")
    assert a["a"] == {"value": 1, "alarm": {"severity": 0}}
    assert b["b"] == {"value": 2}


def test_a_window_of_nothing_makes_an_iteration_each_millisecond(stage: Any) -> None:
    start(stage, "pva://a", time_window_msec=0)
    stage.advance(0.05)
    indices = [body["iter_index"] for body in stage.bodies("s") if body["message_type"] == 0]
    assert 45 <= len(indices) <= 50


def test_a_full_buffer_loses_the_oldest_and_says_so(new_stage: Any) -> None:
    stage = new_stage(snapshot_buffer=3)
    start(stage, "pva://a", type="timedbuffered")
    stage.said()
    for value in range(5):
        stage.update("a", value)
    stage.advance(1.0)
    bodies = stage.bodies("s")
    assert [body["a"]["value"] for body in bodies[1:-1]] == [2, 3, 4]
    assert bodies[-1]["error_message"] == "2 values are missing: no more than 3 are held back"
    assert stage.counters.dropped_samples == 2


def test_snapshots_share_a_pv_with_each_other_and_with_monitors(stage: Any) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    start(stage, "pva://a", name="one")
    start(stage, "pva://a", name="two", type="timedbuffered")
    stage.update("a", 2)
    stage.advance(1.0)
    assert len(stage.pva.subscriptions) == 1
    said = stage.said()
    assert [each.body["a"]["value"] for each in said if each.topic == "a"] == [1, 2]
    assert [each.body["a"]["value"] for each in said if each.topic == "one" and "a" in each.body] == [2]
    assert [each.body["a"]["value"] for each in said if each.topic == "two" and "a" in each.body] == [1, 2]
    stage.command("repeating_snapshot_stop", snapshot_name="one")
    stage.command("repeating_snapshot_stop", snapshot_name="two")
    assert len(stage.pva.open("a")) == 1, "the monitor still needs it"


def test_a_pv_that_cannot_be_subscribed_to_is_missing(stage: Any) -> None:
    stage.pva.raises = RuntimeError("boom")
    start(stage, "pva://a", "ca://b")
    stage.ca.update("b", 1)
    stage.advance(1.0)
    assert parts(stage) == [("header", 1), ("b", 1, 1), ("tail", 1)]


def test_a_value_without_a_form_is_missing_and_counted(stage: Any) -> None:
    start(stage, "pva://a", "pva://b")
    stage.update("a", object())
    stage.update("b", 1)
    stage.advance(1.0)
    assert parts(stage) == [("header", 1), ("b", 1, 1), ("tail", 1)]
    assert stage.counters.unencodable == 1


def test_a_very_long_window_costs_nothing_in_advance(stage: Any) -> None:
    start(stage, "pva://a", time_window_msec=365 * 24 * 3600 * 1000, sub_push_delay_msec=1, type="timedbuffered")
    assert [body["error"] for body in stage.bodies()] == [0]
