"""The owner's side of a fleet: publishes the monitors and snapshots of the partitions that belong to this gateway.

A partition goes through the stages of `Stage`. Its new owner subscribes to its PVs first and holds their updates back,
then writes that it is the owner, and the times of the first values that it holds. The one before, which sees that,
stops when it has published the values before these, and writes what it has published. So no update is lost and none is
published twice, as long as both are there.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Any, Protocol

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.monitor_streams import Monitor
from k2eg_rx.gateway.commands.monitor_targets import MonitorDefinition, MonitorKey
from k2eg_rx.gateway.commands.monitors import Monitors
from k2eg_rx.gateway.commands.recurring_snapshots import RecurringSnapshots
from k2eg_rx.gateway.fleet.desired_state import DesiredState
from k2eg_rx.gateway.fleet.entries import (
    Kind,
    Release,
    SnapshotDefinition,
    monitor_key,
    monitor_name,
    monitor_value,
    snapshot_value,
)
from k2eg_rx.gateway.fleet.tenancy import Tenancy
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import in_slices
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.protocol import epoch_text
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# Seconds that PVs have to connect before the partition is claimed; most take milliseconds. Where the owner before has
# announced nothing, no gateway publishes them.
_CONNECT = 0.5
# Seconds from the claim that the owner before has to stop if it has not announced that it hands the partition over: it
# is dead or frozen, as one that is alive announces that before the group assigns the partition.
_RELEASE = 0.2
# Seconds for each, if the owner before has announced that it hands the partition over: it is alive, and may be slow.
_CONNECT_AT_LEISURE = 6.0
RELEASE_AT_LEISURE = 10.0
_CATCH_UP = 4.0  # seconds that a former owner has to publish what the new one does not hold
_FLUSH = 5.0  # seconds that Kafka may take to confirm what a former owner has published
_NEVER = 1 << 63  # as a time in nanoseconds
_STEP = 0.02  # seconds between looks at what is waited for
_RESERVED = 1000  # iteration numbers that an owner may use before it has to reserve more: a second at the highest rate


class Outlet(Protocol):
    """The part of `Publisher` that is used here."""

    def send(self, outgoing: OutgoingRecord) -> None: ...
    def is_settled(self, topic: str, key: bytes) -> bool: ...
    def drop(self, topic: str, key: bytes) -> bool: ...
    def in_session(self) -> bool: ...


class Stage(Enum):
    """How far this gateway is with a partition."""

    PREPARING = "preparing"  # subscribes to its PVs, and holds their updates back
    CLAIMED = "claimed"  # has written that it is the owner, and has not read it yet
    WAITING = "waiting"  # is the owner; the one before has not stopped yet
    LIVE = "live"  # publishes
    STOPPING = "stopping"  # another one is the owner; what this one has is being published and confirmed


class Tenure:
    """A partition that this gateway has, will have or had.

    Attributes:
        stage: See there.
        epoch: The epoch that it has claimed last.
        streams: The subscriptions to the messages of its snapshots, by topic.
        times: The time of the last value of each monitor that the owner before has published, in nanoseconds.
        told: The names of the monitors of which its claim has the time of the first value.
        next_times: The time of the first value of each monitor that the next owner holds; 0 if it holds none. Monitors
            that it did not know when it wrote its claim are missing until it holds a value.
        first_numbers: The number of the first iteration of each snapshot that has not begun, by topic.
        reserved: The first iteration number of each snapshot that is not reserved.
        ending: The monitors and snapshots that have ended, until the log says so.
        wanted_again: Those of them that were requested meanwhile, and snapshots that publish their last iteration.
        handing_over: The snapshots that another gateway goes on with.
        next_numbers: The numbers of their next iterations, once they have ended here.
        announced: Whether this gateway has announced that it hands the partition over.
        work: The preparation.
        timer: What it waits for.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.stage = Stage.PREPARING
        self.epoch = 0
        self.streams: dict[str, SerialDisposable] = {}
        self.times: Mapping[str, int] = {}
        self.told: Collection[str] = ()
        self.next_times: Mapping[str, int] = {}
        self.first_numbers: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.ending: set[MonitorKey | str] = set()
        self.wanted_again: dict[MonitorKey | str, MonitorDefinition | SnapshotDefinition] = {}
        self.handing_over: set[str] = set()
        self.next_numbers: dict[str, int] = {}
        self.announced = False
        self.work = SerialDisposable()
        self.timer = SerialDisposable()


Append = Callable[[int, Kind, str, Mapping[str, Any] | None, Callable[[TransportError | None], None]], None]


class Owner:
    """The partitions of this gateway.

    Args:
        fleet: A short text that the epochs of the fleet have.
        name: The gateway's name in the log, unlike any other's.
        monitors: Publishes PVs.
        snapshots: Publishes snapshots.
        desired: What is wanted.
        outlet: Publishes records.
        denial_of: Returns why none of some principals may read all of some PVs; ``""`` if one may.
        append: Appends an entry to the log, given its partition, kind, name and value; repeats that until Kafka has it.
        context: Scheduler and clock.

    Attributes:
        tenures: The partitions.
        tenancies: The owners of all partitions, by the log.
        taken_over: The number of partitions that this gateway has begun to publish.
        handed_over: The number of those that it has published no more, as another one has taken over or it ends.
        unconfirmed: The number of releases that the log does not have yet.
    """

    def __init__(
        self,
        fleet: str,
        name: str,
        *,
        monitors: Monitors,
        snapshots: RecurringSnapshots,
        desired: DesiredState,
        outlet: Outlet,
        append: Append,
        denial_of: Callable[[Collection[str], Sequence[str]], str],
        context: GatewayContext,
    ) -> None:
        self._fleet = fleet
        self._name = name
        self._monitors = monitors
        self._snapshots = snapshots
        self._desired = desired
        self._outlet = outlet
        self._append = append
        self._denial_of = denial_of
        self._suspended = RateLimitedWarning(_log, "{} remembered monitors and snapshots suspended: they are denied")
        self._scheduler = context.scheduler
        self._clock = context.clock
        self.tenures: dict[int, Tenure] = {}
        self.tenancies: defaultdict[int, Tenancy] = defaultdict(Tenancy)
        self._assigned: frozenset[int] = frozenset()
        self._is_rebalancing = False
        self.taken_over = self.handed_over = self.unconfirmed = 0

    def publishes(self, partition: int) -> bool:
        """Returns whether this gateway publishes a partition now."""
        tenure = self.tenures.get(partition)
        return tenure is not None and tenure.stage is Stage.LIVE

    def has_no_value(self, partition: int, key: MonitorKey) -> bool:
        """Returns whether this gateway publishes a monitor whose PV is not connected."""
        return self.publishes(partition) and not self._monitors.has_value(key)

    def is_owner(self, partition: int) -> bool:
        """Returns whether this gateway is the owner of a partition, by the log as far as it was read."""
        return partition in self.tenures and self.tenancies[partition].owner == self._name

    def assign(self, partitions: frozenset[int]) -> None:
        """Takes over partitions that the group has assigned; others are published until they have another owner."""
        self._assigned, self._is_rebalancing = partitions, False
        for tenure in self._claimed():
            is_given_up = tenure.partition not in partitions
            if is_given_up is not tenure.announced:
                self._announce(tenure, lambda _: None, is_given_up=is_given_up)
        for partition in sorted(partitions - self.tenures.keys()):
            tenure = self.tenures[partition] = Tenure(partition)
            work: list[MonitorKey | str] = [each.key for each in self._desired.monitors_in(partition)]
            work += [each.topic for each in self._desired.snapshots_in(partition)]
            tenure.work.disposable = in_slices(
                self._scheduler, work, partial(self._prepare, tenure), partial(self._await_values, tenure)
            )

    def announce(self, done: Callable[[], None], *, is_member: bool) -> None:
        """Announces that this gateway hands all its partitions over, as the group assigns them anew.

        Args:
            done: Called when the log has it.
            is_member: Whether they were its own until now; it announces nothing otherwise.
        """
        self._is_rebalancing = True
        self._announce_each(self._claimed() if is_member else (), done)

    def hand_over_all_but(self, kept: Collection[int], done: Callable[[], None]) -> None:
        """Announces that this gateway, which was cut off and is back, hands over what the group has assigned to others.

        Args:
            kept: The partitions that the group has assigned to this gateway.
            done: Called when the log has it.
        """
        self._announce_each((tenure for tenure in self._claimed() if tenure.partition not in kept), done)

    def _announce_each(self, tenures: Iterable[Tenure], done: Callable[[], None]) -> None:
        awaited = list(tenures)

        def on_done(tenure: Tenure, _error: TransportError | None) -> None:
            awaited.remove(tenure)
            if not awaited:
                done()

        for tenure in list(awaited):
            self._announce(tenure, partial(on_done, tenure), is_given_up=True)
        if not awaited:
            done()

    def _claimed(self) -> Iterator[Tenure]:
        """Returns the partitions of which others see this gateway as the owner, and that it does not give up yet."""
        stages = (Stage.CLAIMED, Stage.WAITING, Stage.LIVE)
        return (tenure for tenure in self.tenures.values() if tenure.stage in stages)

    def _announce(self, tenure: Tenure, done: Callable[[TransportError | None], None], *, is_given_up: bool) -> None:
        tenure.announced = is_given_up
        value = dict[str, Any]() if is_given_up else None
        self._append(tenure.partition, Kind.HANDING_OVER, str(tenure.epoch), value, done)

    def _prepare(self, tenure: Tenure, key: MonitorKey | str) -> None:
        wanted = self._desired.snapshots.get(key) if isinstance(key, str) else self._desired.monitors.get(key)
        if isinstance(wanted, MonitorDefinition):
            wanted = replace(wanted, reads_on=True)  # no client has requested it now
        if wanted is not None:
            self._run(tenure, wanted)

    def _run(self, tenure: Tenure, wanted: MonitorDefinition | SnapshotDefinition) -> None:
        """Runs a monitor or a snapshot, or requests one that runs again."""
        key = wanted.key if isinstance(wanted, MonitorDefinition) else wanted.topic
        if key in tenure.ending:
            tenure.wanted_again[key] = wanted
            return
        denial = self._denial(wanted)
        if denial:
            self._suspended.count(f"name={key} reason={denial}")
            return
        epoch = self._epoch_text(tenure) if tenure.stage is Stage.LIVE else None
        if isinstance(wanted, MonitorDefinition):
            self._monitors.run(wanted, self._outlet.send, epoch)
            return
        topic = wanted.topic
        for application in wanted.applications:
            self._snapshots.add_application(topic, application)
        if topic in tenure.streams:
            if self._snapshots.is_stopping(topic):
                tenure.wanted_again[topic] = wanted
            return
        stream = tenure.streams[topic] = SerialDisposable()
        stream.disposable = self._snapshots.run(wanted.command, wanted.reply_to).subscribe(
            self._outlet.send, partial(self._on_failed, tenure, topic), partial(self._on_ended, tenure, topic)
        )
        for application in wanted.applications:
            self._snapshots.add_application(topic, application)
        if epoch is not None:
            tenure.first_numbers[topic] = self._desired.numbers.get(topic, 1)
            self._begin(tenure, topic)

    def _denial(self, wanted: MonitorDefinition | SnapshotDefinition) -> str:
        """Returns why what was requested under other rules, perhaps, is not to be published now."""
        is_monitor = isinstance(wanted, MonitorDefinition)
        names = (wanted.address.uri,) if is_monitor else wanted.command.pv_name_list
        return self._denial_of(wanted.principals, names)

    def end_suspended(self, partition: int, topic: str) -> None:
        """Ends what is wanted of a snapshot that does not run, as it is denied."""
        tenure, wanted = self.tenures.get(partition), self._desired.snapshots.get(topic)
        if tenure is not None and wanted is not None and topic not in tenure.streams and self._denial(wanted):
            for kind in (Kind.NUMBERS, Kind.SNAPSHOT):
                self._append(partition, kind, topic, None, lambda _: None)

    def _epoch_text(self, tenure: Tenure) -> str:
        return epoch_text(self._fleet, tenure.epoch)

    def _await_values(self, tenure: Tenure) -> None:
        """Claims a partition when its PVs are connected, if another gateway publishes them until then."""
        tenancy = self.tenancies[tenure.partition]
        began = self._clock()

        def is_ready() -> bool:
            patience = _CONNECT_AT_LEISURE if tenancy.is_handing_over else _CONNECT
            if tenancy.is_vacant or self._clock() >= began + patience:
                return True
            return self._have_values(self._desired.monitors_in(tenure.partition))

        self._when(tenure.timer, is_ready, partial(self._claim, tenure))

    def _have_values(self, wanted: Iterable[MonitorDefinition]) -> bool:
        return all(self._monitors.has_value(each.key) or self._denial(each) for each in wanted)

    def _when(self, timer: SerialDisposable, is_true: Callable[[], bool], action: Callable[[], None]) -> None:
        """Does something once a condition is true, unless the timer is used for something else."""
        if is_true():
            action()
            return

        def look(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._when(timer, is_true, action)

        timer.disposable = self._scheduler.schedule_relative(_STEP, look)

    def _claim(self, tenure: Tenure) -> None:
        if self._is_rebalancing:
            self._when(tenure.timer, lambda: not self._is_rebalancing, partial(self._claim, tenure))
            return
        if tenure.partition not in self._assigned:
            self.drop(tenure)
            return
        tenure.stage, tenure.announced = Stage.CLAIMED, False
        tenure.epoch = self.tenancies[tenure.partition].next_epoch(int(self._clock() * 1000))
        tenure.told = ()
        self._write_claim(tenure, list(self._desired.monitors_in(tenure.partition)))

    def _write_claim(self, tenure: Tenure, held: Iterable[MonitorDefinition]) -> None:
        """Writes that this gateway is the owner, and the times of the first values that it holds of monitors."""
        first = {monitor_name(each.key): self._monitors.first_held(each.key) for each in held}
        tenure.told = {*tenure.told, *first}
        value = {"owner": self._name, "epoch": tenure.epoch, "first": first}
        self._append(tenure.partition, Kind.OWNER, str(tenure.partition), value, lambda _: None)

    def on_owner(self, partition: int, owner: str, epoch: int, first: Mapping[str, int]) -> None:
        """Applies an owner entry, which has the times of the first values that the owner holds."""
        tenancy, tenure = self.tenancies[partition], self.tenures.get(partition)
        counts = tenancy.take(owner, epoch)
        if tenure is None:
            return
        if owner == self._name:
            if epoch == tenure.epoch and not counts and tenancy.owner != self._name:
                self._claim(tenure)
            elif epoch == tenure.epoch and counts:
                self._on_owned(tenure, tenancy)
        elif counts:
            tenure.next_times = first
            self._on_lost(tenure)
        elif (owner, epoch) == (tenancy.owner, tenancy.epoch):
            tenure.next_times = {**tenure.next_times, **first}

    def _on_owned(self, tenure: Tenure, tenancy: Tenancy) -> None:
        if tenure.stage is Stage.LIVE:  # the log was made anew
            for each in self._desired.monitors_in(tenure.partition):
                self._monitors.set_epoch(each.key, self._epoch_text(tenure))
            for topic in tenure.streams:
                self._snapshots.set_epoch(topic, self._epoch_text(tenure))
        if tenure.stage is not Stage.CLAIMED:
            return
        tenure.stage = Stage.WAITING
        began = self._clock()

        def may_begin() -> bool:
            patience = RELEASE_AT_LEISURE if tenancy.was_handing_over(tenure.epoch) else _RELEASE
            return tenancy.may_begin(tenure.epoch) or self._clock() >= began + patience

        self._when(tenure.timer, may_begin, partial(self._on_vacant, tenure, tenancy))
        self._tell_unknown(tenure)

    def _tell_unknown(self, tenure: Tenure) -> None:
        """Completes the claim once there are values of monitors before it in the log that were read after it.

        The owner before publishes them until then.
        """
        wanted = self._desired.monitors_in(tenure.partition)
        unknown = [each for each in wanted if monitor_name(each.key) not in tenure.told]

        def is_done() -> bool:
            return tenure.stage is not Stage.WAITING or self._have_values(unknown)

        def tell() -> None:
            if tenure.stage is Stage.WAITING:
                self._write_claim(tenure, unknown)

        if unknown:
            self._when(tenure.work, is_done, tell)

    def _on_vacant(self, tenure: Tenure, tenancy: Tenancy) -> None:
        """Publishes from now on, or passes on what this gateway has if it has lost the partition meanwhile."""
        release = tenancy.release_before(tenure.epoch)
        if release is None and tenancy.was_handing_over(tenure.epoch):  # it has died meanwhile
            before = str(tenancy.before(tenure.epoch))
            self._append(tenure.partition, Kind.HANDING_OVER, before, None, lambda _: None)
        tenure.times = {} if release is None else release.times
        for topic in tenure.streams:
            index = self._desired.numbers.get(topic, 1)
            tenure.first_numbers[topic] = index if release is None else release.next_numbers.get(topic, index)
        if tenure.stage is Stage.STOPPING:
            self.hand_over(tenure)
            return
        tenure.stage = Stage.LIVE
        self.taken_over += 1
        for topic in list(tenure.streams):
            self._begin(tenure, topic)
        _log.debug("partition live: partition=%d epoch=%d handed_over=%s", tenure.partition, tenure.epoch, release)
        keys = [each.key for each in self._desired.monitors_in(tenure.partition)]
        in_slices(self._scheduler, keys, partial(self._go_live, tenure))

    def _go_live(self, tenure: Tenure, key: MonitorKey) -> None:
        self._monitors.go_live(key, self._epoch_text(tenure), tenure.times.get(monitor_name(key)))

    def _begin(self, tenure: Tenure, topic: str) -> None:
        """Lets a snapshot publish iterations from its first number on, once enough numbers are reserved."""

        def begin(_error: TransportError | None) -> None:
            if tenure.stage is Stage.LIVE and topic in tenure.first_numbers:
                self._snapshots.go_live(topic, self._epoch_text(tenure), tenure.first_numbers.pop(topic))

        self._reserve(tenure, topic, tenure.first_numbers[topic], begin)

    def _reserve(
        self, tenure: Tenure, topic: str, index: int, done: Callable[[TransportError | None], None] = lambda _: None
    ) -> None:
        tenure.reserved[topic] = index + _RESERVED
        self._append(tenure.partition, Kind.NUMBERS, topic, {"until": index + _RESERVED}, done)

    def reserve(self) -> None:
        """Reserves iteration numbers where few are left."""
        for tenure in self.tenures.values():
            for topic, reserved in tenure.reserved.items() if tenure.stage is Stage.LIVE else ():
                index = self._snapshots.next_index(topic)
                if index is not None and index > reserved - _RESERVED // 2:
                    self._reserve(tenure, topic, index)

    def run(self, partition: int, wanted: MonitorDefinition | SnapshotDefinition) -> None:
        """Runs what is wanted of a partition, if it is this gateway's; requests it again if it runs."""
        tenure = self.tenures.get(partition)
        if tenure is not None and tenure.stage is not Stage.STOPPING:
            self._run(tenure, wanted)

    def end(self, partition: int, kind: Kind, name: str) -> None:
        """Ends a monitor or a snapshot that is not wanted any more."""
        tenure = self.tenures.get(partition)
        if tenure is None:
            return
        key = monitor_key(name) if kind is Kind.MONITOR else name
        tenure.ending.discard(key)
        again = tenure.wanted_again.pop(key, None)
        if again is not None:  # requested before the log had its end
            self._write(partition, again)
        if kind is Kind.MONITOR:
            self._monitors.end(monitor_key(name))
        elif (stream := tenure.streams.pop(name, None)) is not None:
            stream.dispose()

    def expired(self, monitor: Monitor) -> None:
        """Ends what is wanted of a monitor that has ended for want of consumers."""
        key = monitor.name, monitor.topic
        partition = self._desired.partition_of(key, monitor.address)
        if partition in self.tenures:
            self.tenures[partition].ending.add(key)
        self._append(partition, Kind.MONITOR, monitor_name(key), None, lambda _: None)

    def _write(self, partition: int, wanted: MonitorDefinition | SnapshotDefinition) -> None:
        time_ms = int(self._clock() * 1000)
        if isinstance(wanted, MonitorDefinition):
            value = monitor_value(wanted, time_ms)
            self._append(partition, Kind.MONITOR, monitor_name(wanted.key), value, lambda _: None)
        else:
            self._append(partition, Kind.SNAPSHOT, wanted.topic, snapshot_value(wanted, time_ms), lambda _: None)

    def _on_failed(self, tenure: Tenure, topic: str, error: Exception) -> None:
        _log.error("snapshot failed: topic=%s", topic, exc_info=error)
        tenure.streams.pop(topic, None)

    def _on_ended(self, tenure: Tenure, topic: str) -> None:
        """Ends what is wanted of a snapshot that was stopped or has expired; not if another gateway goes on with it."""
        index, wanted = self._snapshots.next_index(topic), self._desired.snapshots.get(topic)
        index = tenure.first_numbers.pop(topic, index)
        tenure.streams.pop(topic).dispose()
        if topic in tenure.handing_over:
            tenure.next_numbers.update({} if index is None else {topic: index})
            return
        if topic in tenure.wanted_again and wanted is not None and tenure.stage is Stage.LIVE:
            del tenure.wanted_again[topic]
            self._run(tenure, wanted)
            self._desired.ended(topic)
            return
        tenure.ending.add(topic)
        for kind in (Kind.NUMBERS, Kind.SNAPSHOT):
            self._append(tenure.partition, kind, topic, None, lambda _: None)
        tenure.reserved.pop(topic, None)

    def write_again(self, partition: int, topic: str) -> None:
        """Writes the definition of a snapshot again, if it is its own, as the log keeps the latest entry."""
        if self.is_owner(partition):
            self._write(partition, self._desired.snapshots[topic])

    def claim_again(self) -> None:
        """Writes everything that this gateway publishes to a log that was made anew."""
        time_ms = int(self._clock() * 1000)
        for tenure in self.tenures.values():
            partition = tenure.partition
            for monitor in self._desired.monitors_in(partition):
                self._write(partition, monitor)
            for snapshot in self._desired.snapshots_in(partition):
                self._write(partition, snapshot)
                until = {"until": self._desired.numbers.get(snapshot.topic, 1)}
                self._append(partition, Kind.NUMBERS, snapshot.topic, until, lambda _: None)
            if tenure.stage is Stage.LIVE:
                tenure.epoch, tenure.announced = self.tenancies[partition].next_epoch(time_ms), False
                self._write_claim(tenure, ())

    def _on_lost(self, tenure: Tenure) -> None:
        """Lets another owner publish a partition.

        If the owner before has stopped for this one, which waits until that is confirmed, only this one has the values
        since then. The next owner waits for them, as this one has announced that it hands over.
        """
        if tenure.stage is Stage.LIVE:
            self.hand_over(tenure)
        elif tenure.stage is Stage.WAITING and tenure.announced:
            tenure.stage = Stage.STOPPING
        elif tenure.stage is not Stage.STOPPING:
            self.drop(tenure)

    def drop(self, tenure: Tenure) -> None:
        """Gives up a partition of which nothing was published, and nothing is to be."""
        if tenure.epoch:
            value = {"owner": self._name, "epoch": tenure.epoch}
            self._append(tenure.partition, Kind.WITHDRAWN, str(tenure.partition), value, lambda _: None)
        self._end_announcement(tenure)
        tenure.work.dispose()
        tenure.timer.dispose()
        for each in self._desired.monitors_in(tenure.partition):
            self._monitors.end(each.key)
        for stream in tenure.streams.values():
            stream.dispose()
        del self.tenures[tenure.partition]

    def hand_over(self, tenure: Tenure) -> None:
        """Stops publishing a partition when the values are published that the next owner does not hold.

        While this gateway has no contact to the group it publishes nothing, and the next owner waits for it if it has
        announced that it hands over; otherwise that one publishes by now.
        """
        tenure.stage = Stage.STOPPING
        tenancy = self.tenancies[tenure.partition]
        behind = [each.key for each in self._desired.monitors_in(tenure.partition)]
        for key in behind:
            self._go_live(tenure, key)  # those whose turn has not come
        deadline = self._clock() + _CATCH_UP
        unknown = _NEVER if tenancy.owner != self._name else 0

        def is_before(key: MonitorKey) -> bool:
            return self._monitors.is_before(key, tenure.next_times.get(monitor_name(key), unknown))

        def is_done() -> bool:
            if self._clock() >= deadline:
                return True
            if not self._outlet.in_session():
                return not tenancy.is_awaited(tenure.epoch)
            behind[:] = filter(is_before, behind)
            return not behind

        self._when(tenure.timer, is_done, lambda: self._release(tenure, flush=self._outlet.in_session()))

    def _release(self, tenure: Tenure, *, flush: bool) -> None:
        """Stops publishing a partition, and writes what was published when that is confirmed."""
        times: dict[str, int] = {}
        lanes: list[tuple[str, bytes]] = []
        for each in self._desired.monitors_in(tenure.partition):
            lane, time = (each.topic, each.name.encode()), self._monitors.end(each.key)
            lanes.append(lane)
            is_published = flush or not self._outlet.drop(*lane)  # the next owner publishes what it holds otherwise
            if time is not None and is_published:
                times[monitor_name(each.key)] = time
        for topic in list(tenure.streams):
            lanes.append((topic, self._snapshots.key_of(topic)))
            if topic in tenure.first_numbers and self._snapshots.has_triggers(topic):
                self._snapshots.go_live(topic, self._epoch_text(tenure), tenure.first_numbers.pop(topic))
            tenure.handing_over.add(topic)
            if not self._snapshots.hand_over(topic):
                tenure.handing_over.discard(topic)
            if not flush:
                self._outlet.drop(*lanes[-1])
        deadline = self._clock() + _FLUSH

        def is_done() -> bool:
            done = not tenure.streams and all(self._outlet.is_settled(*lane) for lane in lanes)
            return done or self._clock() >= deadline

        self._when(
            tenure.timer, is_done, lambda: self._released(tenure, Release(tenure.epoch, times, tenure.next_numbers))
        )

    def _released(self, tenure: Tenure, release: Release) -> None:
        for stream in tenure.streams.values():
            stream.dispose()
        del self.tenures[tenure.partition]
        partition = tenure.partition
        self.handed_over += 1
        self.unconfirmed += 1

        def on_confirmed(_error: TransportError | None) -> None:
            self.unconfirmed -= 1

        self._append(partition, Kind.RELEASED, str(partition), release.value, on_confirmed)
        self._end_announcement(tenure)
        _log.debug("partition released: partition=%d epoch=%d", partition, release.epoch)

    def _end_announcement(self, tenure: Tenure) -> None:
        if tenure.announced:
            self._announce(tenure, lambda _: None, is_given_up=False)
