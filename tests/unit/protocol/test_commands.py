"""Commands, their JSON and their Kafka keys."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from k2eg_rx.protocol.commands import (
    Command,
    GatewayStatusCommand,
    GetCommand,
    MonitorCommand,
    MultiMonitorCommand,
    PutCommand,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    SnapshotCommand,
    SnapshotType,
    command_key,
    encode_command,
    pack_fields,
)
from k2eg_rx.protocol.msgpack_codec import unpack

ENVELOPE = {"serialization": "msgpack", "reply_topic": "replies", "reply_id": "id"}

TABLE: list[tuple[Command, dict[str, Any]]] = [
    (GetCommand("pva://x"), {"command": "get", "pv_name": "pva://x"}),
    (GetCommand("pva://x", describe=True), {"command": "get", "pv_name": "pva://x", "describe": True}),
    (
        GetCommand("pva://x", describe=True, timeout_msec=5),
        {"command": "get", "pv_name": "pva://x", "describe": True, "timeout_msec": 5},
    ),
    (GetCommand("pva://x", timeout_msec=4000), {"command": "get", "pv_name": "pva://x", "timeout_msec": 4000}),
    (
        PutCommand("pva://x", b"\x81\xa5value*"),
        {"command": "put", "pv_name": "pva://x", "value": base64.b64encode(b"\x81\xa5value*").decode()},
    ),
    (
        PutCommand("pva://x", b"\x80", True, 5000),
        {"command": "put", "pv_name": "pva://x", "value": "gA==", "wait": True, "wait_timeout_msec": 5000},
    ),
    (
        MonitorCommand("ca://a:b", "a_b"),
        {"command": "monitor", "pv_name": "ca://a:b", "activate": True, "monitor_dest_topic": "a_b"},
    ),
    (
        MultiMonitorCommand(("pva://a", "ca://b")),
        {"command": "multi-monitor", "pv_name_list": ["pva://a", "ca://b"], "activate": True},
    ),
    (SnapshotCommand(("pva://a",)), {"command": "snapshot", "pv_name_list": ["pva://a"]}),
    (
        SnapshotCommand(("pva://a",), 500),
        {"command": "snapshot", "pv_name_list": ["pva://a"], "time_window_msec": 500},
    ),
    (
        RepeatingSnapshotCommand("s", ("pva://a",)),
        {
            "command": "repeating_snapshot",
            "snapshot_name": "s",
            "pv_name_list": ["pva://a"],
            "repeat_delay_msec": 0,
            "time_window_msec": 1000,
            "sub_push_delay_msec": 0,
            "respect_push_order": True,
            "triggered": False,
            "type": "normal",
        },
    ),
    (
        RepeatingSnapshotCommand("s", ("pva://a",), 1, 2, 3, False, True, SnapshotType.TIMED_BUFFERED, ("value",)),
        {
            "command": "repeating_snapshot",
            "snapshot_name": "s",
            "pv_name_list": ["pva://a"],
            "repeat_delay_msec": 1,
            "time_window_msec": 2,
            "sub_push_delay_msec": 3,
            "respect_push_order": False,
            "triggered": True,
            "type": "timedbuffered",
            "pv_field_filter_list": ["value"],
        },
    ),
    (RepeatingSnapshotTriggerCommand("s"), {"command": "repeating_snapshot_trigger", "snapshot_name": "s"}),
    (
        RepeatingSnapshotTriggerCommand("s", {"run": "7"}),
        {"command": "repeating_snapshot_trigger", "snapshot_name": "s", "tags": {"run": "7"}},
    ),
    (GatewayStatusCommand(monitors=True), {"command": "gateway_status", "monitors": True}),
    (RepeatingSnapshotStopCommand("s"), {"command": "repeating_snapshot_stop", "snapshot_name": "s"}),
]


@pytest.mark.parametrize(("command", "fields"), TABLE, ids=lambda item: getattr(item, "operation", None))
def test_a_command_has_the_fields_of_the_protocol(command: Command, fields: dict[str, Any]) -> None:
    assert json.loads(encode_command(command, "replies", "id")) == fields | ENVELOPE


def test_every_command_has_its_operation_name() -> None:
    assert {type(command) for command, _ in TABLE} == set(Command.__args__)
    assert all(fields["command"] == command.operation for command, fields in TABLE)


def test_the_serialization_can_be_json() -> None:
    assert json.loads(encode_command(GetCommand("pva://x"), "r", "i", "json"))["serialization"] == "json"


@pytest.mark.parametrize("describe", [False, True])
def test_escaped_characters_survive(describe: bool) -> None:
    command = GetCommand('pva://x.{"dbnd":{"d":1}}\\', describe)  # a channel filter
    encoded = json.loads(encode_command(command, 'a"reply', 'an"id', 'j"son'))
    assert (encoded["pv_name"], encoded["reply_topic"]) == (command.pv_name, 'a"reply')
    assert (encoded["reply_id"], encoded["serialization"]) == ('an"id', 'j"son')


def test_non_ascii_names_survive() -> None:
    encoded = encode_command(GetCommand("pva://µ:\u20ac"), "r", "i")
    assert encoded.isascii()
    assert json.loads(encoded)["pv_name"] == "pva://µ:\u20ac"


def test_the_fields_of_a_put_are_a_map() -> None:
    assert unpack(pack_fields({"value": 42})) == {"value": 42}


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (GetCommand("pva://a:b.HIGH"), b"a:b"),
        (PutCommand("ca://a:b", b"\x80"), b"a:b"),
        (MonitorCommand("pva://a:b", "a_b"), b"a:b"),
        (RepeatingSnapshotCommand("My Snap", ("pva://a",)), b"my_snap"),
        (RepeatingSnapshotTriggerCommand("My Snap"), b"my_snap"),
        (RepeatingSnapshotStopCommand("my_Snap"), b"my_snap"),
        (MultiMonitorCommand(("pva://a", "pva://b")), None),
        (SnapshotCommand(("pva://a",)), None),
    ],
)
def test_commands_for_one_pv_or_snapshot_share_a_key(command: Command, key: bytes | None) -> None:
    assert command_key(command) == key
