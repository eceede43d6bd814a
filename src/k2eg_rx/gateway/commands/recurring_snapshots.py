"""Recurring snapshots: started, triggered and stopped by command, published to a topic each.

In: orders, and the samples of PVs. Out: replies, and iterations. Belongs to the gateway's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.iterations import IterationBuilder, Part, UnencodedData
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.one_shot_snapshots import MAX_WINDOW_MSEC
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream, reply_stream
from k2eg_rx.gateway.commands.schedule import SnapshotTiming, WindowEvent, window_events
from k2eg_rx.gateway.commands.topics import SNAPSHOT_PARTITIONS, Topics
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
from k2eg_rx.pv import PVAddress, snapshot_topic

_log = logging.getLogger(__name__)


class _NotValid(Exception):
    """A recurring snapshot cannot be started so; with the reply's code."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error


def _check(command: RepeatingSnapshotCommand) -> tuple[PVAddress, ...]:
    """Returns the PVs of a snapshot that can be started, in their order."""
    name = command.snapshot_name
    if command.type not in tuple(SnapshotType):
        raise _NotValid(-1, "The snapshot type Unknown is not supported")
    if not 0 <= command.repeat_delay_msec <= MAX_WINDOW_MSEC:
        raise _NotValid(-3, f"The repeat delay is not valid {name}")
    if not 0 <= command.time_window_msec <= MAX_WINDOW_MSEC:
        raise _NotValid(-4, f"The time window is not valid {name}")
    if not name:
        raise _NotValid(-5, f"The snapshot name is not valid {name}")
    addresses: list[PVAddress] = []
    for pv_name in command.pv_name_list:
        try:
            addresses.append(PVAddress.parse(pv_name))
        except ValueError:
            raise _NotValid(-6, f"The pv uri {pv_name} is not parsable") from None
    if not 0 <= command.sub_push_delay_msec <= MAX_WINDOW_MSEC:
        raise _NotValid(-7, f"The sub push delay is not valid {name}")
    for field in command.pv_field_filter_list:
        if not field or "." in field:
            raise _NotValid(-7, f"The field filter {field!r} is not valid: it keeps top-level fields {name}")
    return tuple(addresses)


class _Running:
    """A recurring snapshot that runs.

    Args:
        command: What was asked.
        addresses: Its PVs.
        serialization: The form of its messages.
        limit: How many values it may hold back.
    """

    def __init__(
        self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress], reply_to: ReplyTo, limit: int
    ) -> None:
        self.command = command
        self.addresses = addresses
        self.serialization = reply_to.serialization
        self.topic = snapshot_topic(command.snapshot_name)
        self.key = command.snapshot_name.encode()
        window = command.time_window_msec / 1000
        self.timing = SnapshotTiming(window, command.repeat_delay_msec / 1000, command.sub_push_delay_msec / 1000)
        self.iterations = IterationBuilder(
            command.snapshot_name,
            addresses,
            buffered=command.type == SnapshotType.TIMED_BUFFERED,
            max_age=window if command.triggered else None,
            limit=limit,
        )
        self.trigger: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None


class RecurringSnapshots:
    """The recurring snapshots of a gateway.

    Args:
        channels: The PVs.
        topics: Kafka's topics.
        context: The gateway's thread, options and numbers.
    """

    def __init__(self, channels: Channels, topics: Topics, context: GatewayContext) -> None:
        self._channels = channels
        self._topics = topics
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._buffer = context.options.snapshot_buffer
        self._clock = context.clock
        self._unencodable = RateLimitedWarning(_log, "{} values have no form on the wire")
        self._overflow = RateLimitedWarning(_log, "{} values did not fit into a snapshot's buffer")
        self._running: dict[str, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, request: CommandRequest[RepeatingSnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a start, and then the iterations until the stop."""
        command, reply_to = request.command, request.reply_to
        try:
            addresses = _check(command)
        except _NotValid as error:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, error.error, str(error))
        name = command.snapshot_name
        if snapshot_topic(name) in self._running:
            return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot {name} is already running"))
        running = _Running(command, addresses, reply_to, self._buffer)
        started = reply(reply_to, RECURRING_KEY, 0, f"The snapshot '{name}' has been started", running.topic)

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self._running[running.topic] = running
            observer.on_next(started)
            return self._run(running, observer)

        return reactivex.create(subscribe)

    def trigger(self, request: CommandRequest[RepeatingSnapshotTriggerCommand]) -> Observable[OutgoingRecord]:
        """Has a snapshot publish an iteration; returns the reply. Without effect on one that runs by itself."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        if not name:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, "The snapshot name is empty")
        running = self._running.get(snapshot_topic(name))
        if running is None:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -2, f"Snapshot '{name}' has not been found")
        running.trigger()
        return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' has been armed"))

    def stop(self, request: CommandRequest[RepeatingSnapshotStopCommand]) -> Observable[OutgoingRecord]:
        """Has a snapshot publish its last iteration and end; returns the reply."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        if not name:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, "The snapshot name is empty")
        running = self._running.get(snapshot_topic(name))
        if running is None:
            return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' is already stopped"))
        running.stop()
        return reply_stream(reply_to, reply(reply_to, RECURRING_KEY, 0, f"Snapshot '{name}' has been stopped"))

    def _run(self, running: _Running, observer: abc.ObserverBase[OutgoingRecord]) -> abc.DisposableBase:
        """Opens the PVs and the windows, and emits iterations until `running.stop` is called."""
        iterations = running.iterations

        def emit(parts: Sequence[Part]) -> None:
            for part in parts:
                outgoing = self._outgoing(running, part)
                if outgoing is not None:
                    observer.on_next(outgoing)

        def happen(moment: WindowEvent) -> None:
            if moment is WindowEvent.OPEN:
                iterations.open()
            elif moment is WindowEvent.PUSH:
                emit(iterations.push(self._timestamp()))
            else:
                emit(iterations.end(self._timestamp(), self._now(), pause=running.timing.delay > 0))

        def trigger() -> None:
            emit(iterations.end(self._timestamp(), self._now()))

        def stop() -> None:
            emit(iterations.stop(self._timestamp(), self._now()))
            observer.on_completed()

        running.stop = stop
        open_ = [self._topics.ensured(running.topic, SNAPSHOT_PARTITIONS).subscribe()]
        open_.extend(self._collect(running, address) for address in running.addresses)
        if running.command.triggered:
            running.trigger = trigger
        else:
            open_.append(window_events(running.timing, self._scheduler).subscribe(happen))
        return CompositeDisposable([*open_, Disposable(lambda: self._forget(running))])

    def _forget(self, running: _Running) -> None:
        if self._running.get(running.topic) is running:
            del self._running[running.topic]

    def _collect(self, running: _Running, address: PVAddress) -> abc.DisposableBase:
        """Collects a PV's samples; one that cannot be subscribed to has none."""

        def take(iterations: IterationBuilder, sample: PVValue) -> None:
            lost = iterations.take(address, sample, self._now())
            if lost:
                self._metrics.dropped_samples += lost
                self._overflow.count(running.command.snapshot_name)

        def failed(error: Exception) -> None:
            _log.warning("the snapshot %s goes without %s: %s", running.command.snapshot_name, address, error)

        return self._channels.stream(address).subscribe(partial(take, running.iterations), failed)

    def _outgoing(self, running: _Running, part: Part) -> OutgoingRecord | None:
        form = running.serialization
        try:
            if isinstance(part, UnencodedData):
                fragment = part.sample.fragment(form, running.command.pv_field_filter_list)
                body = encode_data(form, part.timestamp, part.iter_index, part.sample.name, fragment)
            elif isinstance(part, SnapshotHeader):
                body = encode_header(form, part)
            else:
                body = encode_tail(form, part)
        except WireError as error:
            self._metrics.unencodable += 1
            self._unencodable.count(f"in the snapshot {running.command.snapshot_name}: {error}")
            return None
        return OutgoingRecord(running.topic, running.key, body, form)

    def _timestamp(self) -> int:
        return int(self._clock() * 1000)

    def _now(self) -> float:
        return self._scheduler.now.timestamp()
