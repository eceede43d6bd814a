"""The entries of the state log: keys, values, and the partition of each.

A value is a JSON map, so that the tools of Kafka show what is wanted. Unknown kinds and fields are ignored, so that
gateways of two releases can run beside each other.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, cast

from k2eg_rx.gateway.commands.monitor_targets import MonitorDefinition, MonitorKey
from k2eg_rx.gateway.runtime.options import ANONYMOUS
from k2eg_rx.protocol import (
    Command,
    ParsedCommand,
    RepeatingSnapshotCommand,
    ReplyTo,
    Serialization,
    encode_command,
    parse_command,
)
from k2eg_rx.pv import PVAddress, snapshot_topic

_NOWHERE = "-"  # the reply topic and id in the text of a command; parsing requires some
_SEPARATOR = "|"  # allowed in a PV's name, not in a topic's


class Kind(Enum):
    """What an entry is about; the first part of its key."""

    MONITOR = "monitor"  # a monitor that is wanted
    SNAPSHOT = "snapshot"  # a recurring snapshot that is wanted
    NUMBERS = "numbers"  # the iteration numbers that a snapshot may have used
    COMMAND = "command"  # a trigger or a stop, on its way to the owner of a snapshot
    STATUS = "status"  # a request for the status of every gateway
    OWNER = "owner"  # who publishes what is in a partition
    LEAVING = "leaving"  # a gateway that ends, and takes nothing over
    HANDING_OVER = "handing-over"  # the owner with an epoch may release the partition, and is alive
    WITHDRAWN = "withdrawn"  # an owner has lost the partition, and publishes nothing of it
    RELEASED = "released"  # what the owner before has published


class Entry(NamedTuple):
    """An entry of the state log.

    Attributes:
        partition: Its partition.
        offset: Its offset there.
        kind: What it is about.
        name: The rest of its key.
        value: Its value; None ends what it is about.
    """

    partition: int
    offset: int
    kind: Kind
    name: str
    value: Mapping[str, Any] | None

    @classmethod
    def of(cls, partition: int, offset: int, key: bytes | None, value: bytes | None) -> Entry | None:
        """Returns the entry in a record; None if it is of no known kind."""
        kind, colon, name = (key or b"").decode(errors="replace").partition(":")
        try:
            body: object = None if value is None else json.loads(value)
            if not colon or not (body is None or isinstance(body, dict)):
                return None
            return cls(partition, offset, Kind(kind), name, cast("Mapping[str, Any] | None", body))
        except ValueError:
            return None


def key_of(kind: Kind, name: str) -> bytes:
    """Returns the Kafka key of an entry."""
    return f"{kind.value}:{name}".encode()


def encoded(value: Mapping[str, Any] | None) -> bytes | None:
    """Returns the body of an entry."""
    return None if value is None else json.dumps(value, separators=(",", ":")).encode()


def partition_of(name: str, partitions: int) -> int:
    """Returns the partition of a PV, by its base name, or of a snapshot, by its topic."""
    return zlib.crc32(name.encode()) % partitions


def monitor_name(key: MonitorKey) -> str:
    """Returns the name of a monitor's entry."""
    return _SEPARATOR.join(key)


def monitor_key(name: str) -> MonitorKey:
    """Returns what a monitor's entry is about."""
    event_name, _, topic = name.rpartition(_SEPARATOR)
    return event_name, topic


def monitor_value(definition: MonitorDefinition, time_ms: int) -> Mapping[str, Any]:
    """Returns the value of a monitor's entry."""
    return {
        "uri": definition.address.uri,
        "serialization": definition.serialization.value,
        "applications": definition.applications,
        "principals": definition.principals,
        "reads_on": definition.reads_on,
        "at": time_ms,
    }


def monitor_of(entry: Entry) -> MonitorDefinition | None:
    """Returns the monitor that an entry defines; None if it is not understood."""
    value, (name, topic) = entry.value or {}, monitor_key(entry.name)
    try:
        address = PVAddress.parse(str(value["uri"]))
        form = Serialization(value["serialization"])
        applications = tuple(str(each) for each in value["applications"])
    except (KeyError, ValueError, TypeError):
        return None
    if not applications or not topic:
        return None
    reads_on = value.get("reads_on") is not False
    return MonitorDefinition(name, address, topic, form, applications, reads_on, _names(value.get("principals")))


@dataclass(frozen=True, slots=True)
class SnapshotDefinition:
    """A recurring snapshot that is wanted.

    Attributes:
        command: Its start command.
        serialization: That of its messages.
        applications: The reply topics of the applications that have started it; the first one at first.
        principals: The principals of their commands.
    """

    command: RepeatingSnapshotCommand
    serialization: Serialization
    applications: tuple[str, ...]
    principals: tuple[str, ...] = (ANONYMOUS,)

    @property
    def topic(self) -> str:
        """The topic of its messages, by which it is identified."""
        return snapshot_topic(self.command.snapshot_name)

    @property
    def reply_to(self) -> ReplyTo:
        """The application that has started it, without a reply."""
        return ReplyTo(self.applications[0], "", self.serialization)


def _command_text(command: Command, serialization: Serialization) -> str:
    form = "json" if serialization is Serialization.JSON else "msgpack"
    return encode_command(command, _NOWHERE, _NOWHERE, form).decode()


def command_value(command: Command, reply_to: ReplyTo, time_ms: int) -> Mapping[str, Any]:
    """Returns the value of the entry of a command that is forwarded."""
    text = _command_text(command, reply_to.serialization)
    return {"command": text, "reply_topic": reply_to.topic, "reply_id": reply_to.reply_id, "at": time_ms}


def command_of(entry: Entry) -> ParsedCommand | None:
    """Returns the command in an entry; None if there is none."""
    value = entry.value or {}
    parsed = parse_command(str(value.get("command", "")).encode())
    if not isinstance(parsed, ParsedCommand):
        return None
    topic, reply_id = str(value.get("reply_topic", "")), str(value.get("reply_id", ""))
    return replace(parsed, reply_to=replace(parsed.reply_to, topic=topic, reply_id=reply_id))


def snapshot_value(definition: SnapshotDefinition, time_ms: int) -> Mapping[str, Any]:
    """Returns the value of a snapshot's entry."""
    text = _command_text(definition.command, definition.serialization)
    applications, principals = definition.applications, definition.principals
    return {"command": text, "applications": applications, "principals": principals, "at": time_ms}


def snapshot_of(entry: Entry) -> SnapshotDefinition | None:
    """Returns the snapshot that an entry defines; None if it is not understood."""
    parsed, applications = command_of(entry), (entry.value or {}).get("applications")
    if parsed is None or not isinstance(parsed.command, RepeatingSnapshotCommand) or not isinstance(applications, list):
        return None
    names = tuple(map(str, cast("list[object]", applications))) or ("",)
    principals = _names((entry.value or {}).get("principals"))
    return SnapshotDefinition(parsed.command, parsed.reply_to.serialization, names, principals)


def _names(value: object) -> tuple[str, ...]:
    """Returns the principals in an entry."""
    names = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(map(str, names)) or (ANONYMOUS,)


@dataclass(frozen=True, slots=True)
class Release:
    """What an owner has published of a partition when it stopped.

    Attributes:
        epoch: The owner's epoch.
        times: The time of the last value of each monitor that has published one, in nanoseconds.
        next_numbers: The number of the next iteration of each snapshot, by topic.
    """

    epoch: int
    times: Mapping[str, int] = field(default_factory=dict[str, int])
    next_numbers: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def value(self) -> Mapping[str, Any]:
        """The value of its entry."""
        return {"epoch": self.epoch, "times": self.times, "next": self.next_numbers}

    @classmethod
    def of(cls, entry: Entry) -> Release:
        """Returns the release in an entry."""
        value = entry.value or {}
        times, numbers = value.get("times"), value.get("next")
        return cls(integer(value.get("epoch")), integers(times), integers(numbers))


def integer(value: object) -> int:
    """Returns an integer of an entry; 0 for anything else."""
    return value if isinstance(value, int) else 0


def integers(value: object) -> Mapping[str, int]:
    """Returns the integers of an entry by their names; none for anything else."""
    return (
        {str(name): integer(number) for name, number in cast("dict[str, Any]", value).items()}
        if isinstance(value, dict)
        else {}
    )
