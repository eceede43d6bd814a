"""What is wanted of a fleet: its monitors and recurring snapshots, as the state log has them. Every gateway has all.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import reactivex
from reactivex import Observable, Subject

from k2eg_rx.gateway.commands.limits import Usage
from k2eg_rx.gateway.commands.monitor_targets import MonitorDefinition, MonitorKey
from k2eg_rx.gateway.commands.snapshot_definitions import difference
from k2eg_rx.gateway.commands.topic_rules import TopicRules
from k2eg_rx.gateway.fleet.entries import (
    Entry,
    Kind,
    SnapshotDefinition,
    integer,
    monitor_key,
    monitor_of,
    partition_of,
    snapshot_of,
)
from k2eg_rx.pv import PVAddress


class DesiredState:
    """The monitors and snapshots that are wanted.

    Args:
        partitions: The number of partitions of the log.
        usage: Bounds PVs and topics of applications.
        rules: Knows the topics that are in use.
        unused: Called with the topic of a monitor that no other one has.

    Attributes:
        monitors: The monitors.
        snapshots: The snapshots, by topic.
        numbers: The first iteration number that a snapshot cannot have used, by topic.
    """

    def __init__(self, partitions: int, usage: Usage, rules: TopicRules, unused: Callable[[str], None]) -> None:
        self.partitions = partitions
        self.monitors: dict[MonitorKey, MonitorDefinition] = {}
        self.snapshots: dict[str, SnapshotDefinition] = {}
        self.numbers: dict[str, int] = {}
        self._in: dict[int, dict[MonitorKey | str, None]] = {}  # the keys of each partition
        self._usage = usage
        self._rules = rules
        self._unused = unused
        self._taken: dict[MonitorKey | str, tuple[str, int]] = {}  # the application that it counts for, and its PVs
        self._ends: dict[str, Subject[Any]] = {}  # of snapshots that are waited for

    def partition_of(self, key: MonitorKey | str, address: PVAddress | None = None) -> int:
        """Returns the partition of a monitor, given its PV, or of a snapshot."""
        return partition_of(key if isinstance(key, str) else address.base if address else key[0], self.partitions)

    def monitors_in(self, partition: int) -> list[MonitorDefinition]:
        """Returns the monitors of a partition."""
        return [self.monitors[key] for key in self._in.get(partition, ()) if not isinstance(key, str)]

    def snapshots_in(self, partition: int) -> list[SnapshotDefinition]:
        """Returns the snapshots of a partition."""
        return [self.snapshots[key] for key in self._in.get(partition, ()) if isinstance(key, str)]

    def user_of(self, key: MonitorKey) -> PVAddress | None:
        """Returns the PV that has a name on a topic."""
        definition = self.monitors.get(key)
        return None if definition is None else definition.address

    def take(self, application: str, keys: Collection[MonitorKey] | str, pvs: int) -> str:
        """Takes the PVs and topics of new monitors or a new snapshot; returns why it may not, or ``""``."""
        new: list[MonitorKey | str] = [keys] if isinstance(keys, str) else list(keys)
        new = [key for key in new if key not in self._taken]
        if not new:
            return ""
        each = pvs if isinstance(keys, str) else 1
        refusal = self._usage.take(application, pvs=each * len(new), topics=len(new))
        if not refusal:
            self._taken.update(dict.fromkeys(new, (application, each)))
        return refusal

    def after(self, topic: str, answer: Callable[[], Observable[Any]]) -> Observable[Any]:
        """Returns the answer to a command that waits for the end of a snapshot."""
        ended = self._ends.setdefault(topic, Subject())
        return reactivex.concat(ended, reactivex.defer(lambda _: answer()))

    def ended(self, topic: str) -> None:
        """Lets commands go on that wait for the end of a snapshot."""
        ended = self._ends.pop(topic, None)
        if ended is not None:
            ended.on_completed()

    def is_void(self, entry: Entry) -> bool:
        """Returns whether an entry starts a snapshot that is wanted with another definition: the first one counts."""
        wanted = self.snapshots.get(entry.name) if entry.kind is Kind.SNAPSHOT else None
        started = None if wanted is None else snapshot_of(entry)
        return wanted is not None and started is not None and bool(difference(wanted.command, started.command))

    def apply(self, entry: Entry) -> MonitorDefinition | SnapshotDefinition | None:
        """Applies an entry; returns the monitor or the snapshot that it defines, None if there is none."""
        if entry.kind is Kind.MONITOR:
            monitor = monitor_of(entry)
            self._set(self.monitors, monitor_key(entry.name), monitor, entry.partition)
            return monitor
        if entry.kind is Kind.SNAPSHOT:
            snapshot = snapshot_of(entry)
            self._set(self.snapshots, entry.name, snapshot, entry.partition)
            if snapshot is None:
                self.ended(entry.name)
            return snapshot
        if entry.kind is Kind.NUMBERS:
            self.numbers.pop(entry.name, None)
            if entry.value is not None:
                self.numbers[entry.name] = integer(entry.value.get("until"))
        return None

    def _set(self, table: dict[Any, Any], key: MonitorKey | str, definition: Any, partition: int) -> None:
        before = table.pop(key, None)
        if definition is not None:
            table[key] = definition
            self._in.setdefault(partition, {})[key] = None
            if before is None:
                self._add(key, definition)
            return
        self._in.get(partition, {}).pop(key, None)
        application, pvs = self._taken.pop(key, ("", 0))
        self._usage.give_back(application, pvs=pvs, topics=1 if pvs else 0)
        if isinstance(before, SnapshotDefinition):
            self._rules.remove_snapshot(before.topic)
        elif before is not None and self._rules.remove_monitor(before.topic, application):
            self._unused(before.topic)

    def _add(self, key: MonitorKey | str, definition: MonitorDefinition | SnapshotDefinition) -> None:
        if key not in self._taken:  # another gateway has accepted it
            application = definition.applications[0]
            pvs = len(definition.command.pv_name_list) if isinstance(definition, SnapshotDefinition) else 1
            self._usage.give_back(application, pvs=-pvs, topics=-1)
            self._taken[key] = application, pvs
        if isinstance(definition, SnapshotDefinition):
            self._rules.add_snapshot(definition.topic)
        else:
            self._rules.add_monitor(definition.topic, self._taken[key][0])
