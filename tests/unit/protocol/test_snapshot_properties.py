"""Properties of a recurring snapshot: the command, and the errors of invalid fields."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.protocol.commands import RepeatingSnapshotCommand, SnapshotType
from k2eg_rx.protocol.snapshot_properties import SnapshotProperties, check_snapshot_name
from k2eg_rx.texts import shown

URIS = ["pva://my:pv1", "ca://my:pv2"]


def properties(**fields: Any) -> SnapshotProperties:
    given: dict[str, Any] = {"snapshot_name": "my_snapshot", "pv_uri_list": URIS}
    return SnapshotProperties(**(given | fields))


def test_the_documented_example_has_the_documented_defaults() -> None:
    given = SnapshotProperties(snapshot_name="my_snapshot", pv_uri_list=URIS, triggered=False)
    assert given.command() == RepeatingSnapshotCommand(
        snapshot_name="my_snapshot",
        pv_name_list=("pva://my:pv1", "ca://my:pv2"),
        repeat_delay_msec=0,
        time_window_msec=1000,
        sub_push_delay_msec=0,
        respect_push_order=True,
        triggered=False,
        type="normal",
        pv_field_filter_list=(),
    )


def test_every_field_reaches_the_command() -> None:
    command = properties(
        time_window=2000,
        repeat_delay=30,
        sub_push_delay_msec=100,
        triggered=True,
        respect_push_order=False,
        type="TimedBuffered",
        pv_field_filter_list=["value", "timeStamp"],
    ).command()
    assert command == RepeatingSnapshotCommand(
        snapshot_name="my_snapshot",
        pv_name_list=("pva://my:pv1", "ca://my:pv2"),
        repeat_delay_msec=30,
        time_window_msec=2000,
        sub_push_delay_msec=100,
        respect_push_order=False,
        triggered=True,
        type="timedbuffered",
        pv_field_filter_list=("value", "timeStamp"),
    )


def test_fields_may_be_set_one_by_one() -> None:
    given = SnapshotProperties()
    given.snapshot_name = "later"
    given.pv_uri_list = ["pva://a"]
    given.type = SnapshotType.TIMED_BUFFERED
    given.validate()
    assert given.command().snapshot_name == "later"


def test_objects_do_not_share_lists() -> None:
    SnapshotProperties().pv_uri_list.append("pva://a")
    assert SnapshotProperties().pv_uri_list == []


@pytest.mark.parametrize("name", ["normal", "NORMAL", "Normal", SnapshotType.NORMAL])
def test_the_normal_type_in_any_spelling(name: str) -> None:
    assert properties(type=name).snapshot_type is SnapshotType.NORMAL


@pytest.mark.parametrize("name", ["timedbuffered", "TIMED_BUFFERED", "TimedBuffered", SnapshotType.TIMED_BUFFERED])
def test_the_buffered_type_in_any_spelling(name: str) -> None:
    assert properties(type=name).snapshot_type is SnapshotType.TIMED_BUFFERED


@pytest.mark.parametrize("window", [0, 1])
def test_a_triggered_snapshot_may_have_any_window(window: int) -> None:
    properties(triggered=True, time_window=window).validate()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("snapshot_name", "", "must be a name"),
        ("snapshot_name", "  ", "must be a name"),
        ("snapshot_name", None, "must be a name"),
        ("snapshot_name", "é", "ASCII"),
        ("snapshot_name", "a\nb", "printable"),
        ("snapshot_name", "n" * 250, "at most 249"),
        ("pv_uri_list", [], "at least one PV URI"),
        ("pv_uri_list", "pva://a", "must be a list of at least one PV URI"),
        ("pv_uri_list", None, "must be a list of at least one PV URI"),
        ("pv_uri_list", ["pva://a", "my:pv"], "'my:pv': the protocol"),
        ("pv_uri_list", ["pva://a", 5], "must be a string"),
        ("time_window", -1, "0 or more"),
        ("time_window", 0, "triggered"),
        ("time_window", 1.5, "whole number"),
        ("time_window", True, "whole number"),
        ("repeat_delay", -1, "0 or more"),
        ("repeat_delay", "5", "whole number"),
        ("sub_push_delay_msec", -1, "0 or more"),
        ("triggered", 1, "True or False"),
        ("respect_push_order", None, "True or False"),
        ("type", "sometimes", "must be 'normal' or 'timedbuffered'"),
        ("type", None, "must be 'normal' or 'timedbuffered'"),
        ("pv_field_filter_list", "value", "a list of field names"),
        ("pv_field_filter_list", ["value", "alarm.severity"], "top-level fields .* not 'alarm.severity'"),
        ("pv_field_filter_list", [""], "must have top-level fields"),
        ("pv_field_filter_list", [5], "must have top-level fields"),
    ],
)
def test_an_invalid_field_is_named_with_its_value(name: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        properties(**{name: value}).validate()
    assert str(caught.value).startswith(f"SnapshotProperties.{name}: ")
    assert str(caught.value).endswith(f", got {shown(value)}")


def test_invalid_fields_make_no_command() -> None:
    with pytest.raises(ValueError, match="time_window"):
        properties(time_window=-1).command()


def test_a_name_as_long_as_a_topic_can_be_is_accepted() -> None:
    assert check_snapshot_name("n" * 249) == "n" * 249
