"""The side of a fleet that receives commands: checks them, writes what is wanted to the log, and confirms them.

Any gateway of a fleet may get any command. A trigger and a stop reach the owner of their snapshot through the log, and
the owner answers. What concerns this gateway's own snapshots is carried out at once.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable
from reactivex.subject import Subject

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.claims import LOST, UNCONFIRMED, ClaimState
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, too_many_names
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.monitor_targets import (
    MonitorDefinition,
    MonitorRefusedError,
    Target,
    check_topics,
    confirmation,
    event_names,
    requested_targets,
)
from k2eg_rx.gateway.commands.recurring_snapshots import IN_USE, RecurringSnapshots, name_error
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream, reply_stream
from k2eg_rx.gateway.commands.snapshot_definitions import InvalidSnapshotError, difference, validated
from k2eg_rx.gateway.commands.status import StatusHandler
from k2eg_rx.gateway.commands.topic_rules import TOPIC_REFUSED, TopicRules
from k2eg_rx.gateway.commands.topics import PV_PARTITIONS, SNAPSHOT_PARTITIONS, Topics
from k2eg_rx.gateway.fleet.desired_state import DesiredState
from k2eg_rx.gateway.fleet.entries import (
    Kind,
    SnapshotDefinition,
    command_value,
    monitor_name,
    monitor_value,
    snapshot_value,
)
from k2eg_rx.gateway.fleet.owner import Append, Owner
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import in_slices
from k2eg_rx.gateway.runtime.metrics import Result
from k2eg_rx.protocol import (
    MONITOR_KEY,
    RECURRING_KEY,
    GatewayStatusCommand,
    MonitorCommand,
    MultiMonitorCommand,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
)
from k2eg_rx.pv import PVAddress, snapshot_topic

_MOST_APPLICATIONS = 100  # of a monitor or a snapshot that the log keeps; their consumers keep it active

_STATUS_PER_SECOND = 20  # requests that reach the other gateways; each is an entry of the log, which all read
_STATUS_PARTITION = 0  # all gateways read all partitions

MonitorRequest = CommandRequest[MonitorCommand] | CommandRequest[MultiMonitorCommand]
ControlRequest = CommandRequest[RepeatingSnapshotTriggerCommand] | CommandRequest[RepeatingSnapshotStopCommand]


def _with(applications: tuple[str, ...], application: str) -> tuple[str, ...]:
    if application in applications:
        return applications
    return (*applications[:1], *applications[1:][-_MOST_APPLICATIONS:], application)


class FleetHandlers:
    """Handles the commands of monitors and recurring snapshots for a fleet.

    Args:
        desired: What is wanted.
        owner: What this gateway publishes.
        append: Appends an entry to the log.
        catch_up: Calls its argument when this gateway has read what is in the log now.
        snapshots: This gateway's snapshots.
        status: Answers for this gateway.
        topics: Creates topics.
        rules: Checks topics.
        context: Metrics, options and clock.
    """

    def __init__(
        self,
        desired: DesiredState,
        owner: Owner,
        append: Append,
        catch_up: Callable[[Callable[[], None]], None],
        *,
        snapshots: RecurringSnapshots,
        status: StatusHandler,
        topics: Topics,
        rules: TopicRules,
        context: GatewayContext,
    ) -> None:
        self._desired = desired
        self._owner = owner
        self._append = append
        self._catch_up = catch_up
        self._snapshots = snapshots
        self._status = status
        self._asked: deque[datetime] = deque(maxlen=_STATUS_PER_SECOND)
        self._topics = topics
        self._rules = rules
        self._metrics = context.metrics
        self._options = context.options
        self._clock = context.clock
        self._announcement = context.announcement
        self._scheduler = context.scheduler

    def monitor(self, request: MonitorRequest) -> Observable[OutgoingRecord]:
        """Returns the reply to a monitor or multi-monitor command."""
        reply_to, command = request.reply_to, request.command
        try:
            targets = requested_targets(command, self._options)
            check_topics(targets, self._rules, reply_to.topic)
        except MonitorRefusedError as error:
            return refusal_stream(self._metrics, reply_to, MONITOR_KEY, error.error, str(error))

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            names = event_names(targets, self._desired.user_of, uri_keys=command.uri_keys)
            keys = [(name, topic) for (_, topic), name in zip(targets, names, strict=True)]
            new = [key for key in dict.fromkeys(keys) if key not in self._desired.monitors]
            refusal = self._desired.take(reply_to.topic, new, len(new))
            if refusal:
                refused = refusal_stream(self._metrics, reply_to, MONITOR_KEY, OVER_LIMIT, refusal)
                return refused.subscribe(observer)
            self._metrics.count_result(reply_to.command, Result.OK)

            def answer() -> None:
                if reply_to.complete:
                    observer.on_next(
                        confirmation(command, reply_to, names, self._announcement.topic_for(request.topic))
                    )
                observer.on_completed()

            def write() -> None:
                definitions = self._definitions(request, targets, names)
                self._request(definitions, answer)

            if command.uri_keys:  # such a client finds a topic as soon as it exists
                write()
                return SerialDisposable()
            topics = [topic for _, topic in targets if topic != reply_to.topic]
            return self._topics.ensure_all(topics, PV_PARTITIONS, write, observer.on_error)

        return reactivex.create(subscribe)

    def _definitions(
        self, request: MonitorRequest, targets: Sequence[Target], names: Sequence[str]
    ) -> list[MonitorDefinition]:
        reply_to, reads_on = request.reply_to, request.command.uri_keys
        wanted: dict[tuple[str, str], MonitorDefinition] = {}
        for (address, topic), name in zip(targets, names, strict=True):
            key = name, topic
            known = self._desired.monitors.get(key) or wanted.get(key)
            if known is None:
                form, applications = reply_to.serialization, (reply_to.topic,)
                principals = (request.principal,)
                wanted[key] = MonitorDefinition(name, address, topic, form, applications, reads_on, principals)
            else:
                applications = _with(known.applications, reply_to.topic)
                other = address != known.address and self._may_replace(known)
                wanted[key] = replace(
                    known,
                    address=address if other else known.address,
                    applications=applications,
                    reads_on=reads_on,
                    principals=_with(known.principals, request.principal),
                )
        return list(wanted.values())

    def _may_replace(self, known: MonitorDefinition) -> bool:
        """Returns whether a PV without a value makes room for the one over the other protocol."""
        return self._owner.has_no_value(self._partition_of(known), known.key)

    def _partition_of(self, wanted: MonitorDefinition) -> int:
        return self._desired.partition_of(wanted.key, wanted.address)

    def _request(self, definitions: Sequence[MonitorDefinition], done: Callable[[], None]) -> None:
        """Requests monitors from their owners; calls `done` when Kafka has what is new."""
        local: list[MonitorDefinition] = []
        pending = 1

        def confirmed(_error: TransportError | None = None) -> None:
            nonlocal pending
            pending -= 1
            if pending == 0:
                done()

        def request(definition: MonitorDefinition) -> None:
            nonlocal pending
            partition, known = self._partition_of(definition), self._desired.monitors.get(definition.key)
            is_known = known is not None and replace(known, reads_on=definition.reads_on) == definition
            if is_known and self._owner.publishes(partition):
                local.append(definition)
                return
            pending += 1
            value = monitor_value(definition, int(self._clock() * 1000))
            self._append(partition, Kind.MONITOR, monitor_name(definition.key), value, confirmed)

        def requested() -> None:
            confirmed()
            in_slices(self._scheduler, local, lambda each: self._owner.run(self._partition_of(each), each))

        in_slices(self._scheduler, definitions, request, requested)

    def start(self, request: CommandRequest[RepeatingSnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to the start of a recurring snapshot; see `RecurringSnapshots.start`."""
        command, reply_to = request.command, request.reply_to
        try:
            addresses: Sequence[PVAddress] = validated(command)
        except InvalidSnapshotError as error:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, error.error, str(error))
        name, topic = command.snapshot_name, snapshot_topic(command.snapshot_name)
        refusal = too_many_names(len(addresses), self._options)
        if refusal:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, OVER_LIMIT, refusal)
        if self._snapshots.is_stopping(topic) and topic in self._desired.snapshots:
            return self._desired.after(topic, lambda: self.start(request))
        starts = self._announcement.topic_for(request.topic)
        known = self._desired.snapshots.get(topic)
        if known is not None:
            other = self._refusal_of(known, request)
            if other is not None:
                return other
            principals = _with(known.principals, request.principal)
            joined = replace(known, applications=_with(known.applications, reply_to.topic), principals=principals)
            self._write(joined, lambda _: None)
            text = f"Snapshot {name} is already running"
            return reply_stream(self._metrics, reply_to, RECURRING_KEY, text, gateway_topic=starts)
        refusal = self._rules.snapshot_topic(topic)
        if refusal:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, TOPIC_REFUSED, f"snapshot refused: {refusal}")
        refusal = self._desired.take(reply_to.topic, topic, len(addresses))
        if refusal:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, OVER_LIMIT, refusal)
        wanted = SnapshotDefinition(command, reply_to.serialization, (reply_to.topic,), (request.principal,))
        text = f"The snapshot '{name}' has been started"
        answer = reply(reply_to, RECURRING_KEY, 0, text, topic, gateway_topic=starts)

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def read() -> None:
                running = self._desired.snapshots.get(topic)
                other = None if running is None else self._refusal_of(running, request)
                if other is not None:  # another gateway has started it, or another command
                    other.subscribe(observer)
                    return
                self._metrics.count_result(reply_to.command, Result.OK)
                if reply_to.complete:
                    observer.on_next(answer)
                observer.on_completed()

            def write() -> None:
                self._write(wanted, lambda _: self._catch_up(read))

            return self._topics.ensure_all([topic], SNAPSHOT_PARTITIONS, write, observer.on_error)

        return reactivex.create(subscribe)

    def _refusal_of(
        self, running: SnapshotDefinition, request: CommandRequest[RepeatingSnapshotCommand]
    ) -> Observable[OutgoingRecord] | None:
        """Returns the reply to the start of a snapshot that runs with another definition; None if it is the same."""
        other = difference(running.command, request.command)
        if not other:
            return None
        text = f"Snapshot {request.command.snapshot_name} is in use with {other}; stop it first, or use another name"
        return refusal_stream(self._metrics, request.reply_to, RECURRING_KEY, IN_USE, text)

    def _write(self, wanted: SnapshotDefinition, done: Callable[[TransportError | None], None]) -> None:
        partition, value = self._desired.partition_of(wanted.topic), snapshot_value(wanted, int(self._clock() * 1000))
        self._append(partition, Kind.SNAPSHOT, wanted.topic, value, done)

    def trigger(self, request: CommandRequest[RepeatingSnapshotTriggerCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a trigger; empty if the owner of the snapshot replies."""
        return self._when_known(request, lambda: self._trigger(request))

    def _trigger(self, request: CommandRequest[RepeatingSnapshotTriggerCommand]) -> Observable[OutgoingRecord]:
        name, reply_to = request.command.snapshot_name, request.reply_to
        topic = snapshot_topic(name)
        if topic not in self._desired.snapshots:
            text = f"Snapshot '{name}' has not been found"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -2, text)
        if self._runs_here(topic):
            return self._snapshots.trigger(request)
        claim = request.claim.open()
        late = request.too_late(self._clock(), self._options.max_put_age, "trigger")
        if late and claim.answer():
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -3, late)
        if not claim.begin():
            text = LOST if claim.state is ClaimState.LOST else UNCONFIRMED
            if claim.answer():
                return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -3, text)
            self._metrics.count_result(reply_to.command, Result.HANDED_OVER)
            return reactivex.empty()
        return self._forward(topic, request)

    def stop(self, request: CommandRequest[RepeatingSnapshotStopCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a stop; empty if the owner of the snapshot replies."""
        return self._when_known(request, lambda: self._stop(request))

    def _stop(self, request: CommandRequest[RepeatingSnapshotStopCommand]) -> Observable[OutgoingRecord]:
        name, reply_to = request.command.snapshot_name, request.reply_to
        topic = snapshot_topic(name)
        if topic not in self._desired.snapshots:
            return reply_stream(self._metrics, reply_to, RECURRING_KEY, f"Snapshot '{name}' is already stopped")
        return self._snapshots.stop(request) if self._runs_here(topic) else self._forward(topic, request)

    def status(self, request: CommandRequest[GatewayStatusCommand]) -> Observable[OutgoingRecord]:
        """Returns the replies of this gateway; the others read the request in the log, and reply to it themselves."""
        now = self._scheduler.now
        if len(self._asked) < _STATUS_PER_SECOND or now - self._asked[0] >= timedelta(seconds=1):
            self._asked.append(now)
            name, (member, _) = uuid.uuid4().hex, self._status.membership()
            value = {**command_value(request.command, request.reply_to, int(self._clock() * 1000)), "by": member}

            def written(_error: TransportError | None) -> None:
                self._append(_STATUS_PARTITION, Kind.STATUS, name, None, lambda _: None)

            self._append(_STATUS_PARTITION, Kind.STATUS, name, value, written)
        return self._status.status(request)

    def _when_known(
        self, request: ControlRequest, answer: Callable[[], Observable[OutgoingRecord]]
    ) -> Observable[OutgoingRecord]:
        """Returns the answer about a snapshot. One that is not known is looked for in the log first.

        A start is confirmed when Kafka has it, which may be before this gateway has read it.
        """
        name = request.command.snapshot_name
        if wrong := name_error(name):
            return refusal_stream(self._metrics, request.reply_to, RECURRING_KEY, -1, wrong)
        if snapshot_topic(name) in self._desired.snapshots:
            return answer()
        caught_up: Subject[OutgoingRecord] = Subject()
        self._catch_up(caught_up.on_completed)
        return reactivex.concat(caught_up, reactivex.defer(lambda _: answer()))

    def _runs_here(self, topic: str) -> bool:
        return self._owner.publishes(self._desired.partition_of(topic)) and self._snapshots.runs(topic)

    def _forward(self, topic: str, request: ControlRequest) -> Observable[OutgoingRecord]:
        """Writes a command for the owner of a snapshot, which replies."""
        self._metrics.count_result(request.reply_to.command, Result.HANDED_OVER)
        value = command_value(request.command, request.reply_to, int(self._clock() * 1000))
        name = f"{topic}|{uuid.uuid4().hex}"
        self._append(self._desired.partition_of(topic), Kind.COMMAND, name, value, lambda _: None)
        return reactivex.empty()
