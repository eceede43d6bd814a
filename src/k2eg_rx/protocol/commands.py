"""Commands of a client to a gateway as objects, and their encoding as JSON. The gateway's side is `parse`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar

from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import snapshot_topic


class SnapshotType(StrEnum):
    """What an iteration of a recurring snapshot has.

    Attributes:
        NORMAL: The last value of each PV.
        TIMED_BUFFERED: All values of the time window.
    """

    NORMAL = "normal"
    TIMED_BUFFERED = "timedbuffered"


@dataclass(frozen=True, slots=True)
class GetCommand:
    """Read a PV.

    Attributes:
        pv_name: The PV's URI.
        describe: Whether the reply contains the PV's types. Gateways that do not support it ignore it.
        timeout_msec: How long the gateway waits for the PV at most, so that it answers before the client gives up; 0
            for as long as it waits by itself. Gateways that do not support it ignore it, and so do comparisons.
    """

    operation: ClassVar[str] = "get"

    pv_name: str
    describe: bool = False
    timeout_msec: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PutCommand:
    """Write fields of a PV.

    Attributes:
        pv_name: The PV's URI.
        fields: A MessagePack map: field name to value.
        wait: Whether the reply waits until the record has completed what the put started. Gateways that do not
            support it ignore it.
        wait_timeout_msec: How long the gateway waits; 0 for as long as for other puts.
    """

    operation: ClassVar[str] = "put"

    pv_name: str
    fields: bytes
    wait: bool = False
    wait_timeout_msec: int = 0


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """Publish a PV's updates to a topic.

    With `uri_keys`, a gateway that supports it publishes a PV under its URI if the topic carries its name over the
    other protocol, and its reply lists such URIs; others ignore it. It also says that the client reads the topic from
    before the command on.
    """

    operation: ClassVar[str] = "monitor"

    pv_name: str
    monitor_dest_topic: str
    uri_keys: bool = False


@dataclass(frozen=True, slots=True)
class MultiMonitorCommand:
    """Publish the updates of several PVs, each to its own topic. For `uri_keys` see `MonitorCommand`.

    With `monitor_dest_topic`, a gateway that supports it publishes all of them to that topic, and its reply names it;
    others ignore it.
    """

    operation: ClassVar[str] = "multi-monitor"

    pv_name_list: tuple[str, ...]
    uri_keys: bool = False
    monitor_dest_topic: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotCommand:
    """Read several PVs once. The time window is in milliseconds."""

    operation: ClassVar[str] = "snapshot"

    pv_name_list: tuple[str, ...]
    time_window_msec: int | None = None


@dataclass(frozen=True, slots=True)
class RepeatingSnapshotCommand:
    """Start a recurring snapshot. Times are in milliseconds.

    A client that sends no `respect_push_order` is `numbered=False`: releases before 0.3.0 do not send it, and drop data
    messages that have more fields than they know.
    """

    operation: ClassVar[str] = "repeating_snapshot"

    snapshot_name: str
    pv_name_list: tuple[str, ...]
    repeat_delay_msec: int = 0
    time_window_msec: int = 1000
    sub_push_delay_msec: int = 0
    respect_push_order: bool = True
    triggered: bool = False
    type: str = SnapshotType.NORMAL
    pv_field_filter_list: tuple[str, ...] = ()
    numbered: bool = True


@dataclass(frozen=True, slots=True)
class RepeatingSnapshotTriggerCommand:
    """Make a triggered recurring snapshot publish an iteration."""

    operation: ClassVar[str] = "repeating_snapshot_trigger"

    snapshot_name: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RepeatingSnapshotStopCommand:
    """Stop a recurring snapshot."""

    operation: ClassVar[str] = "repeating_snapshot_stop"

    snapshot_name: str


@dataclass(frozen=True, slots=True)
class GatewayStatusCommand:
    """Ask the gateways of the command topic for their status.

    Only gateways of this project know it; others refuse it as incomplete.

    Attributes:
        monitors: Whether each names its monitors.
    """

    operation: ClassVar[str] = "gateway_status"

    monitors: bool = False


Command = (
    GetCommand
    | PutCommand
    | MonitorCommand
    | MultiMonitorCommand
    | SnapshotCommand
    | RepeatingSnapshotCommand
    | RepeatingSnapshotTriggerCommand
    | RepeatingSnapshotStopCommand
    | GatewayStatusCommand
)


def pack_fields(fields: Mapping[str, Any]) -> bytes:
    """Returns the MessagePack map of a put's fields."""
    return pack(dict(fields))


def command_key(command: Command) -> bytes | None:
    """Returns the Kafka key that keeps the commands for one PV or one snapshot in order, or None.

    Commands without a key spread over the partitions of the command topic and may overtake each other.
    """
    match command:
        case GetCommand(pv_name) | PutCommand(pv_name) | MonitorCommand(pv_name):
            name = pv_name.partition("://")[2] or pv_name  # a URI, checked when it was created
            return name.partition(".")[0].encode()  # X.VAL is the same channel as X
        case (
            RepeatingSnapshotCommand(snapshot_name)
            | RepeatingSnapshotTriggerCommand(snapshot_name)
            | RepeatingSnapshotStopCommand(snapshot_name)
        ):
            return snapshot_topic(snapshot_name).encode()
        case MultiMonitorCommand() | SnapshotCommand() | GatewayStatusCommand():
            return None


def is_answered_at_once(command: Command) -> bool:
    """Returns whether a gateway answers a command within seconds, whatever becomes of it."""
    return not isinstance(command, SnapshotCommand) and not (isinstance(command, PutCommand) and command.wait)


def _fields(command: Command) -> dict[str, Any]:
    match command:
        case GetCommand(pv_name, describe, timeout):
            fields_: dict[str, Any] = {"pv_name": pv_name}
            fields_ |= {"describe": True} if describe else {}
            return fields_ | ({"timeout_msec": timeout} if timeout > 0 else {})
        case PutCommand(pv_name, fields, wait, timeout):
            fields_ = {"pv_name": pv_name, "value": base64.b64encode(fields).decode()}
            fields_ |= {"wait": True} if wait else {}
            return fields_ | ({"wait_timeout_msec": timeout} if wait and timeout > 0 else {})
        case MonitorCommand(pv_name, topic, uri_keys):
            fields_ = {"pv_name": pv_name, "activate": True, "monitor_dest_topic": topic}
            return fields_ | ({"uri_keys": True} if uri_keys else {})
        case MultiMonitorCommand(pv_names, uri_keys, topic):
            fields_ = {"pv_name_list": pv_names, "activate": True} | ({"uri_keys": True} if uri_keys else {})
            return fields_ | ({"monitor_dest_topic": topic} if topic else {})
        case SnapshotCommand(pv_names, window):
            fields_ = {"pv_name_list": pv_names}
            return fields_ if window is None else fields_ | {"time_window_msec": window}
        case RepeatingSnapshotCommand():
            fields_ = {
                "snapshot_name": command.snapshot_name,
                "pv_name_list": command.pv_name_list,
                "repeat_delay_msec": command.repeat_delay_msec,
                "time_window_msec": command.time_window_msec,
                "sub_push_delay_msec": command.sub_push_delay_msec,
                **({"respect_push_order": command.respect_push_order} if command.numbered else {}),
                "triggered": command.triggered,
                "type": str(command.type),
            }
            filters = command.pv_field_filter_list
            return fields_ | {"pv_field_filter_list": filters} if filters else fields_
        case RepeatingSnapshotTriggerCommand(snapshot_name, tags):
            fields_ = {"snapshot_name": snapshot_name}
            return fields_ | {"tags": dict(tags)} if tags else fields_
        case RepeatingSnapshotStopCommand(snapshot_name):
            return {"snapshot_name": snapshot_name}
        case GatewayStatusCommand(monitors):
            return {"monitors": monitors}


def encode_command(command: Command, reply_topic: str, reply_id: str, serialization: str = "msgpack") -> bytes:
    """Returns a command as the JSON that goes to the command topic.

    Args:
        command: The command.
        reply_topic: The topic of the reply.
        reply_id: A string unique to the command, which the reply repeats.
        serialization: ``msgpack`` or ``json``: the serialization of the reply and of events.
    """
    quoted = encode_basestring_ascii
    envelope = (
        f'{{"command": "{command.operation}", "serialization": {quoted(serialization)},'
        f' "reply_topic": {quoted(reply_topic)}, "reply_id": {quoted(reply_id)}, '
    )
    if type(command) is GetCommand and not command.describe:  # 3 times faster, for batches of gets
        limit = f', "timeout_msec": {command.timeout_msec}' if command.timeout_msec > 0 else ""
        return f'{envelope}"pv_name": {quoted(command.pv_name)}{limit}}}'.encode()
    return (envelope + json.dumps(_fields(command))[1:]).encode()
