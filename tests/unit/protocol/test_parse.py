"""Parsing of commands: accepted, refused and unanswerable ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path
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
    encode_command,
    pack_fields,
)
from k2eg_rx.protocol.encode import MONITOR_KEY, PARSE_ERROR_KEY, Serialization
from k2eg_rx.protocol.parse import ParsedCommand, PutError, Refusal, ReplyTo, Unanswerable, parse_command, parse_fields

RECORDED = Path(__file__).parents[2] / "data" / "gateway_messages.jsonl"
REPLY_TO = ReplyTo("replies", "id-1", Serialization.MSGPACK)


def body(**fields: Any) -> bytes:
    envelope = {"reply_topic": "replies", "reply_id": "id-1"}
    return json.dumps({name: value for name, value in (envelope | fields).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    "command",
    [
        GetCommand("pva://a"),
        GetCommand("pva://a", describe=True),
        GetCommand("pva://a", timeout_msec=4000),
        PutCommand("pva://a", pack_fields({"value": 1})),
        PutCommand("pva://a", pack_fields({"value": 1}), wait=True),
        PutCommand("pva://a", pack_fields({"value": 1}), wait=True, wait_timeout_msec=5000),
        MonitorCommand("pva://a", "topic"),
        MultiMonitorCommand(("pva://a", "ca://b")),
        SnapshotCommand(("pva://a",), 250),
        RepeatingSnapshotCommand("s", ("pva://a",), 1, 2, 3, triggered=True, pv_field_filter_list=("value",)),
        RepeatingSnapshotTriggerCommand("s", {"shot": "5"}),
        GatewayStatusCommand(monitors=True),
        RepeatingSnapshotStopCommand("s"),
    ],
)
def test_an_encoded_command_parses_to_itself(command: Command) -> None:
    assert parse_command(encode_command(command, "replies", "id-1")) == ParsedCommand(command, REPLY_TO)


def test_defaults_are_those_of_the_protocol() -> None:
    parsed = parse_command(body(command="repeating_snapshot", snapshot_name="s", pv_name_list=["pva://a"]))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == RepeatingSnapshotCommand("s", ("pva://a",), 0, 1000, 0, numbered=False)
    parsed = parse_command(body(command="snapshot", pv_name_list=["pva://a"], time_window_msec="soon"))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == SnapshotCommand(("pva://a",), 1000)


@pytest.mark.parametrize(
    ("name", "serialization"),
    [
        ("json", Serialization.JSON),
        ("JSON", Serialization.JSON),
        ("MsgPack", Serialization.MSGPACK),
        ("msgpack-compact", Serialization.MSGPACK),
        (5, Serialization.MSGPACK),
        (..., Serialization.MSGPACK),
    ],
)
def test_any_other_serialization_is_messagepack(name: object, serialization: Serialization) -> None:
    parsed = parse_command(body(command="get", pv_name="pva://a", serialization=name))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.reply_to.serialization is serialization


@pytest.mark.parametrize(
    "value",
    [
        body(command="frobnicate"),
        body(command="GET", pv_name="pva://a"),
        body(command=3),
        body(),
        body(command="info", pv_name="pva://a"),
        body(command="get"),
        body(command="get", pv_name=5),
        body(command="put", pv_name="pva://a"),
        body(command="put", pv_name="pva://a", value=5),
        body(command="put", value="gQ=="),
        body(command="monitor", monitor_dest_topic="t"),
        body(command="multi-monitor"),
        body(command="multi-monitor", pv_name_list=[]),
        body(command="multi-monitor", pv_name_list=[1, None]),
        body(command="multi-monitor", pv_name_list="pva://a"),
        body(command="snapshot"),
        body(command="repeating_snapshot", snapshot_name="s"),
    ],
)
def test_an_incomplete_command_is_refused_without_text(value: bytes) -> None:
    assert parse_command(value) == Refusal(REPLY_TO, -1, PARSE_ERROR_KEY)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b'{"command": "get", ',
        b"[1,2]",
        b'"get"',
        b"{}",
        b"\xff\xfe{}",
        '{"command": "get"}'.encode("utf-16"),
        b"[" * 100_000,
        body(command="get", pv_name="pva://a", reply_topic=...),
        body(command="get", pv_name="pva://a", reply_topic="not a topic"),
        body(command="get", pv_name="pva://a", reply_topic=".."),
        body(command="get", reply_id=...),
        body(command="snapshot", pv_name_list=["pva://a"], reply_id=...),
        body(command="snapshot", pv_name_list=["pva://a"], reply_id="\ud800"),
        body(command="repeating_snapshot", snapshot_name="s", pv_name_list=["pva://a"], reply_topic=...),
        body(command="repeating_snapshot_stop", snapshot_name="s", reply_id=...),
        body(command="monitor", pv_name="pva://a", reply_topic=...),
    ],
)
def test_a_record_without_reply_address_is_unanswerable(value: bytes | None) -> None:
    assert isinstance(parse_command(value), Unanswerable)


@pytest.mark.parametrize("reply_id", [..., 17, ""])
def test_get_needs_no_reply_id(reply_id: object) -> None:
    parsed = parse_command(body(command="get", pv_name="pva://a", reply_id=reply_id))
    assert parsed == ParsedCommand(GetCommand("pva://a"), ReplyTo("replies", "", Serialization.MSGPACK))


@pytest.mark.parametrize("missing", [{"reply_id": ...}, {"reply_topic": ...}])
def test_put_and_monitors_need_no_reply_address(missing: dict[str, object]) -> None:
    put = parse_command(body(command="put", pv_name="pva://a", value="gQ==", **missing))
    monitor = parse_command(body(command="monitor", pv_name="pva://a", monitor_dest_topic="t", **missing))
    assert isinstance(put, ParsedCommand)
    assert isinstance(monitor, ParsedCommand)
    assert not put.reply_to.complete
    assert not monitor.reply_to.complete


@pytest.mark.parametrize("topic", [..., 5, ""])
def test_monitor_without_a_topic_uses_the_reply_topic(topic: object) -> None:
    parsed = parse_command(body(command="monitor", pv_name="pva://a", monitor_dest_topic=topic))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == MonitorCommand("pva://a", "replies")


def test_monitor_to_an_invalid_topic_is_refused_with_text() -> None:
    parsed = parse_command(body(command="monitor", pv_name="pva://a", monitor_dest_topic="a b"))
    assert parsed == Refusal(REPLY_TO, -1, MONITOR_KEY, "Kafka has no topic of the name 'a b'")


def test_pv_names_are_unique_strings() -> None:
    parsed = parse_command(body(command="multi-monitor", pv_name_list=["pva://a", 7, "pva://b", "pva://a"]))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == MultiMonitorCommand(("pva://a", "pva://b"))


@pytest.mark.parametrize("value", ["!!!not base64!!!", "", "====", "gaV2Y", "ga=V"])
def test_invalid_base64_is_refused_with_the_pv_as_key(value: str) -> None:
    parsed = parse_command(body(command="put", pv_name="pva://a", value=value))
    assert parsed == Refusal(REPLY_TO, -1, "pva://a", "Base64 decode error during put command processing")


@pytest.mark.parametrize("padding", ["", "=", "==", "===="])
def test_wrong_padding_of_base64_is_accepted(padding: str) -> None:
    packed = pack_fields({"value": 2.5})
    value = base64.b64encode(packed).decode().rstrip("=") + padding
    parsed = parse_command(body(command="put", pv_name="pva://a", value=value))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == PutCommand("pva://a", packed)


@pytest.mark.parametrize(("wait", "limit"), [("yes", 5), (1, 5), (True, "5"), (True, -5), (..., 5)])
def test_a_put_waits_only_if_it_says_so_clearly(wait: object, limit: object) -> None:
    parsed = parse_command(body(command="put", pv_name="pva://a", value="gA==", wait=wait, wait_timeout_msec=limit))
    assert isinstance(parsed, ParsedCommand)
    assert parsed.command == PutCommand("pva://a", b"\x80", wait is True, 0)


def test_fields_of_a_put() -> None:
    assert parse_fields(pack_fields({"value": {"index": 2}, "sub": [1, 2.5]})) == {
        "value": {"index": 2},
        "sub": [1, 2.5],
    }
    assert parse_fields(pack_fields({"value": 1.0}) + b"\x01") == {"value": 1.0}, "bytes after the map are ignored"


@pytest.mark.parametrize(
    ("packed", "error", "text"),
    [
        (b"\xc1", -2, "not MessagePack"),
        (b"\x81\xa5val", -2, "not MessagePack"),
        (b"\x81\x91\x01\x02", -2, "not MessagePack"),
        (b"\x81\xa5value\xa1\xff", -2, "not MessagePack"),
        (b"", -2, "not MessagePack"),
        (b"\xcb\x40\x14\x00\x00\x00\x00\x00\x00", -3, "Msgpack object need to be a map"),
        (b"\x91\x01", -3, "Msgpack object need to be a map"),
        (b"\xa1x", -3, "Msgpack object need to be a map"),
        (b"\x80", -2, "No fields to update in the provided Msgpack object"),
        (b"\x81\x01\x02", -2, "a field's name is a string, not 1"),
    ],
)
def test_invalid_fields_of_a_put(packed: bytes, error: int, text: str) -> None:
    with pytest.raises(PutError, match=text) as raised:
        parse_fields(packed)
    assert raised.value.error == error


def recorded() -> dict[str, tuple[list[str], set[str | None]]]:
    """The recorded commands by case, with the keys of the replies they got."""
    cases: dict[str, tuple[list[str], set[str | None]]] = {}
    for line in RECORDED.read_text().splitlines():
        message = json.loads(line)
        commands, keys = cases.setdefault(message["case"], ([], set()))
        if message["kind"] == "command":
            commands.append(message["text"])
        elif message["kind"] == "reply":
            keys.add(message["key"])
    return cases


def test_recorded_commands_are_refused_where_the_deployed_gateway_refused_them() -> None:
    refused = 0
    for case, (commands, keys) in recorded().items():
        for text in commands:
            parsed = parse_command(text.encode())
            by_parser = isinstance(parsed, Refusal) and parsed.key == PARSE_ERROR_KEY
            if keys:
                assert by_parser == (keys == {PARSE_ERROR_KEY}), case
                refused += by_parser
    assert refused > 10


def test_recorded_unanswered_commands_are_refused_where_possible() -> None:
    refused = {
        case
        for case, (commands, keys) in recorded().items()
        for text in commands
        if not keys and isinstance(parse_command(text.encode()), Refusal)
    }
    assert refused == {"bad/command not a string", "bad/info command"}
