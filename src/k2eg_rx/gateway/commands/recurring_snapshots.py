"""Recurring snapshots: started, triggered and stopped by commands, each published to its own topic.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.claims import LOST, UNCONFIRMED, ClaimState
from k2eg_rx.gateway.commands.iterations import IterationBuilder, Message, UnencodedData
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.one_shot_snapshots import MAX_WINDOW_MSEC
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream, reply_stream, shown
from k2eg_rx.gateway.commands.schedule import SnapshotTiming, WindowEvent, window_events
from k2eg_rx.gateway.commands.topics import SNAPSHOT_PARTITIONS, ConsumedTopics, Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.protocol import (
    RECURRING_KEY,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    ReplyTo,
    SnapshotHeader,
    SnapshotType,
    encode_data,
    encode_header,
    encode_tail,
)
from k2eg_rx.pv import PVAddress, has_control, snapshot_topic
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_IN_USE = -8  # a code of this gateway: the deployed one confirms the start, and goes on with the PVs that it has
_SHOWN_PVS = 3  # in the text of a refusal


class _InvalidSnapshotError(Exception):
    """A start command is invalid; `error` is the reply's code."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error


def _validate(command: RepeatingSnapshotCommand) -> tuple[PVAddress, ...]:
    """Returns the PVs of a valid start command, in order."""
    name = command.snapshot_name
    if command.type not in tuple(SnapshotType):
        raise _InvalidSnapshotError(-1, "The snapshot type Unknown is not supported")
    if not 0 <= command.repeat_delay_msec <= MAX_WINDOW_MSEC:
        raise _InvalidSnapshotError(-3, f"The repeat delay is not valid {name}")
    if not 0 <= command.time_window_msec <= MAX_WINDOW_MSEC:
        raise _InvalidSnapshotError(-4, f"The time window is not valid {name}")
    if not name:
        raise _InvalidSnapshotError(-5, f"The snapshot name is not valid {name}")
    if has_control(name):
        raise _InvalidSnapshotError(-5, f"The snapshot name is not valid {name!a}: it must have no control characters")
    addresses: list[PVAddress] = []
    for pv_name in command.pv_name_list:
        try:
            addresses.append(PVAddress.parse(pv_name))
        except ValueError:
            raise _InvalidSnapshotError(-6, f"The pv uri {shown(pv_name)} is not parsable") from None
    if not 0 <= command.sub_push_delay_msec <= MAX_WINDOW_MSEC:
        raise _InvalidSnapshotError(-7, f"The sub push delay is not valid {name}")
    for field in command.pv_field_filter_list:
        if not field or "." in field:
            text = f"The field filter {field!r} is not valid: it keeps top-level fields {name}"
            raise _InvalidSnapshotError(-7, text)
    return tuple(addresses)


def _comparable(command: RepeatingSnapshotCommand) -> dict[str, object]:
    """Returns the properties in which two start commands of one snapshot must agree."""
    return {
        "time_window_msec": command.time_window_msec,
        "repeat_delay_msec": command.repeat_delay_msec,
        "sub_push_delay_msec": command.sub_push_delay_msec,
        "triggered": command.triggered,
        "type": str(command.type),
        "pv_field_filter_list": sorted(set(command.pv_field_filter_list)),
    }


def _difference(running: RepeatingSnapshotCommand, other: RepeatingSnapshotCommand) -> str:
    """Returns in what a command differs from that of the running snapshot; empty if it is the same."""
    has, wants = set(running.pv_name_list), set(other.pv_name_list)
    if has != wants:
        parts = [f"also {_some(has - wants)}"] if has - wants else []
        parts += [f"not {_some(wants - has)}"] if wants - has else []
        return f"other PVs: it has {' and '.join(parts)}"
    mine, theirs = _comparable(running), _comparable(other)
    return ", ".join(f"{name}={mine[name]!r}, not {theirs[name]!r}" for name in mine if mine[name] != theirs[name])


def _some(names: Collection[str]) -> str:
    more = len(names) - _SHOWN_PVS
    return ", ".join(sorted(names)[:_SHOWN_PVS]) + (f" ... ({more} more)" if more > 0 else "")


class _RunningSnapshot:
    """The state of a running snapshot.

    Args:
        command: The start command.
        addresses: Its PVs.
        reply_to: The reply data of the start command; its serialization is that of the snapshot's messages.
        limit: The number of values to buffer.

    Attributes:
        consumed_topics: The topics whose consumers keep the snapshot running.
        trigger: Ends the current iteration; does nothing unless the snapshot is triggered.
        stop: Publishes the last iteration and ends the snapshot.
    """

    def __init__(
        self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress], reply_to: ReplyTo, limit: int
    ) -> None:
        self.command = command
        self.addresses = addresses
        self.serialization = reply_to.serialization
        self.topic = snapshot_topic(command.snapshot_name)
        self.consumed_topics = ConsumedTopics(self.topic)
        self.key = command.snapshot_name.encode()
        window = command.time_window_msec / 1000
        self.timing = SnapshotTiming(window, command.repeat_delay_msec / 1000, command.sub_push_delay_msec / 1000)
        self.builder = IterationBuilder(
            command.snapshot_name,
            addresses,
            buffered=command.type == SnapshotType.TIMED_BUFFERED,
            max_age=window if command.triggered else None,
            limit=limit,
        )
        self.trigger: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None


class RecurringSnapshots:
    """The running recurring snapshots of a gateway.

    Args:
        channels: The PVs.
        topics: Creates the snapshots' topics.
        context: Scheduler, metrics, options and clock.
    """

    def __init__(self, channels: Channels, topics: Topics, context: GatewayContext) -> None:
        self._channels = channels
        self._topics = topics
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._buffer_limit = context.options.snapshot_buffer
        self._clock = context.clock
        self._unencodable = RateLimitedWarning(_log, "{} values cannot be serialized")
        self._overflow = RateLimitedWarning(_log, "{} values dropped: a snapshot's buffer is full")
        self._running: dict[str, _RunningSnapshot] = {}  # by topic

    def __len__(self) -> int:
        return len(self._running)

    def start(self, request: CommandRequest[RepeatingSnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a start command, followed by the iterations until the snapshot is stopped.

        A snapshot that runs already is joined by a command of the same PVs and properties; others are refused.
        """
        command, reply_to = request.command, request.reply_to
        try:
            addresses = _validate(command)
        except _InvalidSnapshotError as error:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, error.error, str(error))
        name = command.snapshot_name
        joined = self._running.get(snapshot_topic(name))
        if joined is not None:
            return self._join(joined, request)
        running = _RunningSnapshot(command, addresses, reply_to, self._buffer_limit)
        started = reply(reply_to, RECURRING_KEY, 0, f"The snapshot '{name}' has been started", running.topic)

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            running.consumed_topics.add(reply_to.topic)
            self._running[running.topic] = running
            subscriptions = CompositeDisposable(Disposable(lambda: self._remove(running)))
            try:
                self._run(running, observer, subscriptions)
            except BaseException:  # a snapshot that stayed would publish nothing, and later starts would join it
                subscriptions.dispose()
                raise
            observer.on_next(started)
            return subscriptions

        return reactivex.create(subscribe)

    def _join(
        self, running: _RunningSnapshot, request: CommandRequest[RepeatingSnapshotCommand]
    ) -> Observable[OutgoingRecord]:
        name, reply_to = request.command.snapshot_name, request.reply_to
        difference = _difference(running.command, request.command)
        if difference:
            text = f"Snapshot {name} is in use with {difference}; stop it first, or use another name"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, _IN_USE, text)
        running.consumed_topics.add(reply_to.topic)
        return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot {name} is already running"))

    def trigger(self, request: CommandRequest[RepeatingSnapshotTriggerCommand]) -> Observable[OutgoingRecord]:
        """Makes a triggered snapshot publish an iteration; returns the reply. No effect on timed snapshots."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        if not name or has_control(name):
            text = f"The snapshot name has control characters: {name!a}" if name else "The snapshot name is empty"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, text)
        running = self._running.get(snapshot_topic(name))
        if running is None:
            text = f"Snapshot '{name}' has not been found"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -2, text)
        claim = request.claim.open()
        if not claim.begin():
            text = LOST if claim.state is ClaimState.LOST else UNCONFIRMED
            return (
                refusal_stream(self._metrics, reply_to, RECURRING_KEY, -3, text)
                if claim.answer()
                else reactivex.empty()
            )
        running.trigger()
        return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' has been armed"))

    def stop(self, request: CommandRequest[RepeatingSnapshotStopCommand]) -> Observable[OutgoingRecord]:
        """Makes a snapshot publish its last iteration and end; returns the reply."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        if not name or has_control(name):
            text = f"The snapshot name has control characters: {name!a}" if name else "The snapshot name is empty"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, text)
        running = self._running.get(snapshot_topic(name))
        if running is None:
            return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' is already stopped"))
        running.stop()
        return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' has been stopped"))

    def expire(self, listeners: Mapping[str, int] | None, now: datetime, expiration: float) -> None:
        """Stops the snapshots whose topics have had no consumers for too long; see `ConsumedTopics.have_expired`."""
        for running in list(self._running.values()):
            if running.consumed_topics.have_expired(listeners, now, expiration):
                name = running.command.snapshot_name
                _log.info("snapshot expired: snapshot=%s topic=%s reason=no consumers", name, running.topic)
                running.stop()

    def _run(
        self,
        running: _RunningSnapshot,
        observer: abc.ObserverBase[OutgoingRecord],
        subscriptions: CompositeDisposable,
    ) -> None:
        """Subscribes to the PVs and emits iterations once the topic exists, until `running.stop` is called."""
        builder = running.builder

        def emit(messages: Sequence[Message]) -> None:
            for message in messages:
                outgoing = self._encode(running, message)
                if outgoing is not None:
                    observer.on_next(outgoing)

        def on_window_event(event: WindowEvent) -> None:
            if event is WindowEvent.OPEN:
                builder.open(self._now())
            elif event is WindowEvent.PUSH:
                emit(builder.push(self._timestamp()))
            else:
                emit(builder.end(self._timestamp(), self._now(), pause=running.timing.delay > 0))

        def trigger() -> None:
            emit(builder.end(self._timestamp(), self._now()))

        def stop() -> None:
            emit(builder.stop(self._timestamp(), self._now()))
            observer.on_completed()

        early_triggers: list[None] = []

        def start() -> None:
            builder.open(self._now())
            if running.command.triggered:
                running.trigger = trigger
                for _ in early_triggers:
                    trigger()
            else:
                subscriptions.add(window_events(running.timing, self._scheduler).subscribe(on_window_event))

        running.stop = stop
        builder.hold()  # until the topic exists: iterations before that would be lost
        if running.command.triggered:
            running.trigger = lambda: early_triggers.append(None)
        for address in running.addresses:
            subscriptions.add(self._collect(running, address))
        subscriptions.add(self._topics.ensure(running.topic, SNAPSHOT_PARTITIONS).subscribe(on_completed=start))

    def _remove(self, running: _RunningSnapshot) -> None:
        if self._running.get(running.topic) is running:
            del self._running[running.topic]

    def _collect(self, running: _RunningSnapshot, address: PVAddress) -> abc.DisposableBase:
        """Subscribes to a PV; one whose subscription fails is missing from the iterations."""
        name = running.command.snapshot_name

        def on_value(value: PVValue) -> None:
            lost = running.builder.add(address, value, self._now())
            if lost:
                self._metrics.dropped_samples += lost
                self._overflow.count(f"snapshot={name}")

        def on_error(error: Exception) -> None:
            _log.warning("snapshot without a PV: snapshot=%s pv=%s error=%s", name, address, error)

        return self._channels.stream(address).subscribe(on_value, on_error)

    def _encode(self, running: _RunningSnapshot, message: Message) -> OutgoingRecord | None:
        form = running.serialization
        subject = message.value.name if isinstance(message, UnencodedData) else ""
        try:
            if isinstance(message, UnencodedData):
                fragment = message.value.fragment(form, running.command.pv_field_filter_list)
                body = encode_data(form, message.timestamp, message.iter_index, message.value.name, fragment)
            elif isinstance(message, SnapshotHeader):
                body = encode_header(form, message)
            else:
                notes = running.builder.take_notes()  # of the data encoded just before, too
                text = "; ".join(filter(None, (message.error_message, notes)))
                body = encode_tail(form, replace(message, error_message=text))
        except WireError as error:
            self._metrics.unencodable += 1
            self._unencodable.count(f"snapshot={running.command.snapshot_name} subject={subject} error={error}")
            running.builder.note(subject, f"the value cannot be serialized: {error}", 1)
            return None
        instead = partial(running.builder.note, subject)
        return OutgoingRecord(running.topic, running.key, body, form, droppable=True, instead=instead)

    def _timestamp(self) -> int:
        return int(self._clock() * 1000)

    def _now(self) -> float:
        return self._scheduler.now.timestamp()
