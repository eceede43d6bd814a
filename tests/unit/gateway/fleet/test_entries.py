"""Entries of the state log, to and from bytes."""

from __future__ import annotations

import pytest

from k2eg_rx.gateway.commands.monitor_targets import MonitorDefinition
from k2eg_rx.gateway.fleet.entries import (
    Entry,
    Kind,
    Release,
    SnapshotDefinition,
    command_of,
    command_value,
    encoded,
    key_of,
    monitor_key,
    monitor_name,
    monitor_of,
    monitor_value,
    partition_of,
    snapshot_of,
    snapshot_value,
)
from k2eg_rx.protocol import (
    RepeatingSnapshotCommand,
    RepeatingSnapshotTriggerCommand,
    ReplyTo,
    Serialization,
)
from k2eg_rx.pv import PVAddress


def entry(kind: Kind, name: str, value: object) -> Entry:
    made = Entry.of(3, 7, key_of(kind, name), encoded(value))  # type: ignore[arg-type]
    assert made is not None
    return made


@pytest.mark.parametrize("name", ["a:b", "a|b", "pva://a:b", "ü"])
def test_a_monitor_is_read_as_it_was_written(name: str) -> None:
    address = PVAddress.parse("pva://a:b.HIGH")
    wanted = MonitorDefinition(name, address, "a_b.HIGH", Serialization.JSON, ("app", "other"), reads_on=False)
    assert monitor_of(entry(Kind.MONITOR, monitor_name(wanted.key), monitor_value(wanted, 1))) == wanted
    assert monitor_key(monitor_name(wanted.key)) == wanted.key


def test_a_snapshot_is_read_as_it_was_written() -> None:
    command = RepeatingSnapshotCommand("My Snap", ("pva://a", "ca://b"), 5, 100, 10, triggered=True, numbered=False)
    wanted = SnapshotDefinition(command, Serialization.MSGPACK, ("app",))
    read = snapshot_of(entry(Kind.SNAPSHOT, wanted.topic, snapshot_value(wanted, 1)))
    assert read is not None
    assert read.topic == wanted.topic == "my_snap"
    assert (read.serialization, read.applications) == (wanted.serialization, wanted.applications)
    assert (read.command.pv_name_list, read.command.triggered) == (command.pv_name_list, True)
    assert not read.reply_to.complete, "the owner does not reply again"


@pytest.mark.parametrize("reply_to", [ReplyTo("app", "id", Serialization.JSON), ReplyTo("", "", Serialization.MSGPACK)])
def test_a_command_reaches_its_owner_with_its_reply_address(reply_to: ReplyTo) -> None:
    command = RepeatingSnapshotTriggerCommand("s", {"shot": "1"})
    read = command_of(entry(Kind.COMMAND, "s|1", command_value(command, reply_to, 1)))
    assert read is not None
    assert (read.command, read.reply_to) == (command, reply_to)


def test_a_release_is_read_as_it_was_written() -> None:
    wanted = Release(5, {"a|t": 7}, {"s": 3})
    assert Release.of(entry(Kind.RELEASED, "3", wanted.value)) == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"monitor", b"{}"),
        (b"later:x", b"{}"),
        (b"monitor:x", b"[]"),
        (b"monitor:x", b"{"),
        (b"\xff:x", b"{}"),
    ],
)
def test_what_is_not_understood_is_no_entry(key: bytes | None, value: bytes) -> None:
    assert Entry.of(0, 0, key, value) is None


@pytest.mark.parametrize(
    "value",
    [{}, {"uri": "nonsense", "serialization": "Json", "applications": ["a"]}, {"uri": "pva://a", "serialization": 1}],
)
def test_a_monitor_that_is_not_understood_is_none(value: dict[str, object]) -> None:
    assert monitor_of(entry(Kind.MONITOR, "a|a", value)) is None
    assert snapshot_of(entry(Kind.SNAPSHOT, "a", value)) is None
    assert command_of(entry(Kind.COMMAND, "a", value)) is None


def test_partitions_are_the_same_for_every_gateway() -> None:
    assert partition_of("a:b", 32) == 8
    assert {partition_of(f"pv{number}", 32) for number in range(1000)} == set(range(32))
