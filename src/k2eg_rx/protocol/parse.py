"""Parses commands from the bytes that clients send: the gateway's side of `commands`.

Like the deployed gateway, it refuses a command without a mandatory field, or with one of another type, with error -1
and no text; it ignores unknown fields and optional fields of another type. Unlike it, it also refuses what the deployed
gateway leaves unanswered, if the command has a reply topic and id.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import msgpack

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
)
from k2eg_rx.protocol.encode import MONITOR_KEY, PARSE_ERROR_KEY, Serialization
from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS
from k2eg_rx.pv import is_topic_name

_BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")

_msgpack: Any = msgpack  # has no types

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """The destination and serialization of a reply.

    Attributes:
        topic: The reply topic, or an empty string if the command has none or not a valid one.
        reply_id: The id that the reply repeats, or an empty string.
        serialization: The serialization of the reply and of events.
        command: The name of the command that is replied to; empty if there is none of that name.
    """

    topic: str
    reply_id: str
    serialization: Serialization
    command: str = field(default="", compare=False)

    @property
    def complete(self) -> bool:
        """Whether there are both a topic and an id. Without both, only a get with a topic is answered."""
        return bool(self.topic and self.reply_id)


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A complete command. Its PV names are not checked yet."""

    command: Command
    reply_to: ReplyTo


@dataclass(frozen=True, slots=True)
class Refusal:
    """The negative reply to an incomplete command.

    Attributes:
        reply_to: The destination.
        error: The error code.
        key: The reply's Kafka key.
        message: The text, or None where the deployed gateway has none.
    """

    reply_to: ReplyTo
    error: int
    key: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """A record that cannot be answered. `reason` is a key to count by."""

    reason: str


Parsed = ParsedCommand | Refusal | Unanswerable


class PutError(Exception):
    """A put's value is not a map of fields.

    Attributes:
        error: The error code of the reply.
    """

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error


class _Incomplete(Exception):
    """The command is incomplete; carries the key and text of the reply."""

    def __init__(self, key: str = PARSE_ERROR_KEY, message: str | None = None) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message


def _is_text(value: object) -> bool:
    """Whether a value is a string that can be encoded: JSON can contain unpaired surrogates."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


class _Body:
    """The fields of a command, read by type."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def text(self, name: str) -> str | None:
        """Returns a string, or None."""
        value = self._fields.get(name)
        return value if _is_text(value) else None

    def mandatory(self, name: str) -> str:
        """Returns a string; without it the command is incomplete."""
        value = self.text(name)
        if value is None:
            raise _Incomplete
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns the strings in a list, without other items; empty if the field is not a list."""
        values = self._fields.get(name)
        return tuple(v for v in cast("list[Any]", values) if _is_text(v)) if isinstance(values, list) else ()

    def pv_names(self) -> tuple[str, ...]:
        """Returns the PVs, each once; without any the command is incomplete."""
        names = tuple(dict.fromkeys(self.texts("pv_name_list")))
        if not names:
            raise _Incomplete
        return names

    def number(self, name: str, default: int) -> int:
        """Returns an integer, or the default."""
        value = self._fields.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def has(self, name: str) -> bool:
        """Whether there is a field, whatever its value."""
        return name in self._fields

    def flag(self, name: str) -> bool:
        """Whether a field is true; anything but a boolean counts as false."""
        return self._fields.get(name) is True

    def tags(self) -> dict[str, str]:
        """Returns the tags, without values that are not strings."""
        tags = self._fields.get("tags")
        pairs = cast("dict[str, Any]", tags).items() if isinstance(tags, dict) else ()
        return {name: value for name, value in pairs if isinstance(value, str)}


def _get(body: _Body, reply_to: ReplyTo) -> Command:
    pv_name = body.mandatory("pv_name")
    if not reply_to.topic:
        raise _Incomplete
    return GetCommand(pv_name, body.flag("describe"), max(0, body.number("timeout_msec", 0)))


def _put(body: _Body, _: ReplyTo) -> Command:
    pv_name, value = body.mandatory("pv_name"), body.mandatory("value")
    digits = value.rstrip("=")
    if not _BASE64.fullmatch(value) or len(digits) % 4 == 1:
        raise _IncompletePut(pv_name)
    try:
        # wrong padding is accepted: the deployed gateway's decoder counts digits only
        packed = base64.b64decode(digits + "=" * (-len(digits) % 4))
    except binascii.Error:
        raise _IncompletePut(pv_name) from None
    wait = body.flag("wait")
    return PutCommand(pv_name, packed, wait, max(0, body.number("wait_timeout_msec", 0)) if wait else 0)


class _IncompletePut(_Incomplete):
    def __init__(self, pv_name: str) -> None:
        super().__init__(pv_name, "Base64 decode error during put command processing")


def _monitor(body: _Body, reply_to: ReplyTo) -> Command:
    pv_name = body.mandatory("pv_name")
    topic = body.text("monitor_dest_topic") or reply_to.topic
    if not topic:
        raise _Incomplete
    if not is_topic_name(topic):
        raise _Incomplete(MONITOR_KEY, f"Kafka has no topic of the name {topic!r}")
    return MonitorCommand(pv_name, topic, uri_keys=body.flag("uri_keys"))


def _multi_monitor(body: _Body, _: ReplyTo) -> Command:
    topic = body.text("monitor_dest_topic") or ""
    if topic and not is_topic_name(topic):
        raise _Incomplete(MONITOR_KEY, f"Kafka has no topic of the name {topic!r}")
    return MultiMonitorCommand(body.pv_names(), uri_keys=body.flag("uri_keys"), monitor_dest_topic=topic)


def _snapshot(body: _Body, reply_to: ReplyTo) -> Command:
    return SnapshotCommand(_answered(body.pv_names(), reply_to), body.number("time_window_msec", 1000))


def _recurring(body: _Body, reply_to: ReplyTo) -> Command:
    return RepeatingSnapshotCommand(
        snapshot_name=body.text("snapshot_name") or "",
        pv_name_list=_answered(body.pv_names(), reply_to),
        repeat_delay_msec=body.number("repeat_delay_msec", 0),
        time_window_msec=body.number("time_window_msec", 1000),
        sub_push_delay_msec=body.number("sub_push_delay_msec", 0),
        triggered=body.flag("triggered"),
        type=(body.text("type") or SnapshotType.NORMAL).lower(),
        pv_field_filter_list=body.texts("pv_field_filter_list"),
        numbered=body.has("respect_push_order"),
    )


def _trigger(body: _Body, reply_to: ReplyTo) -> Command:
    return RepeatingSnapshotTriggerCommand(_answered(body.text("snapshot_name") or "", reply_to), body.tags())


def _stop(body: _Body, reply_to: ReplyTo) -> Command:
    return RepeatingSnapshotStopCommand(_answered(body.text("snapshot_name") or "", reply_to))


def _status(body: _Body, reply_to: ReplyTo) -> Command:
    return GatewayStatusCommand(_answered(body.flag("monitors"), reply_to))


def _unknown(_body: _Body, _reply_to: ReplyTo) -> Command:
    raise _Incomplete


def _answered(value: _T, reply_to: ReplyTo) -> _T:
    """Returns the value if the command has a reply topic and id, which snapshot commands require."""
    if not reply_to.complete:
        raise _Incomplete
    return value


_PARSERS: dict[str, Callable[[_Body, ReplyTo], Command]] = {
    GetCommand.operation: _get,
    PutCommand.operation: _put,
    MonitorCommand.operation: _monitor,
    MultiMonitorCommand.operation: _multi_monitor,
    SnapshotCommand.operation: _snapshot,
    RepeatingSnapshotCommand.operation: _recurring,
    RepeatingSnapshotTriggerCommand.operation: _trigger,
    RepeatingSnapshotStopCommand.operation: _stop,
    GatewayStatusCommand.operation: _status,
}


def _reply_to(body: _Body, fields: dict[str, Any]) -> ReplyTo:
    topic, command = body.text("reply_topic") or "", body.text("command") or ""
    return ReplyTo(
        topic=topic if is_topic_name(topic) else "",
        reply_id=body.text("reply_id") or "",
        serialization=Serialization.named(fields.get("serialization")),
        command=command if command in _PARSERS else "",
    )


def parse_command(value: bytes | None) -> Parsed:
    """Parses a record of the command topic."""
    if not value:
        return Unanswerable("empty")
    try:
        loaded = cast("object", json.loads(value.decode()))
    except (ValueError, RecursionError):  # invalid UTF-8 or invalid JSON
        return Unanswerable("not JSON")
    if not isinstance(loaded, dict):
        return Unanswerable("not an object")
    fields = cast("dict[str, Any]", loaded)
    body = _Body(fields)
    reply_to = _reply_to(body, fields)
    parser = _PARSERS.get(body.text("command") or "", _unknown)
    try:
        return ParsedCommand(parser(body, reply_to), reply_to)
    except _Incomplete as incomplete:
        if reply_to.complete:
            return Refusal(reply_to, -1, incomplete.key, incomplete.message)
        return Unanswerable("incomplete, without reply_topic or reply_id")


def parse_fields(packed: bytes) -> dict[str, Any]:
    """Returns the fields of a put from its MessagePack; bytes after the map are ignored.

    Raises:
        PutError: The MessagePack is invalid or not a map of fields.
    """
    try:
        fields: object = _msgpack.unpackb(packed, strict_map_key=False)
    except _msgpack.ExtraData as error:
        fields = error.unpacked
    except UNPACK_ERRORS as error:
        raise PutError(-2, f"the value is not MessagePack: {str(error) or type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise PutError(-3, "Msgpack object need to be a map")
    named = cast("dict[Any, Any]", fields)
    if not named:
        raise PutError(-2, "No fields to update in the provided Msgpack object")
    for name in named:
        if not isinstance(name, str):
            raise PutError(-2, f"a field's name is a string, not {name!r}")
    return cast("dict[str, Any]", named)
