"""Recurring snapshots: started, triggered and stopped by commands, each published to its own topic.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import reactivex
from reactivex import Observable, Subject, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.claims import LOST, UNCONFIRMED, ClaimState
from k2eg_rx.gateway.commands.iteration_output import IterationOutput
from k2eg_rx.gateway.commands.iterations import IterationBuilder, Message, UnencodedData
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, Usage, too_many_names
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.numbering import IterationNumbers, Part, Place
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream, reply_stream
from k2eg_rx.gateway.commands.schedule import SnapshotTiming, WindowEvent, window_events
from k2eg_rx.gateway.commands.snapshot_definitions import InvalidSnapshotError, difference, validated
from k2eg_rx.gateway.commands.topic_rules import TOPIC_REFUSED, TopicRules
from k2eg_rx.gateway.commands.topics import SNAPSHOT_PARTITIONS, ConsumedTopics, Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import SlicedDisposable, in_slices
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning, Result
from k2eg_rx.protocol import (
    RECURRING_KEY,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    ReplyTo,
    SnapshotHeader,
    SnapshotTail,
    SnapshotType,
    encode_data,
    encode_header,
    encode_tail,
)
from k2eg_rx.pv import PVAddress, has_control, snapshot_topic
from k2eg_rx.texts import get_logger, printable

_log = get_logger(__name__)

_MILLISECOND = 1_000_000  # in nanoseconds: times of messages are whole milliseconds
IN_USE = -8  # a code of this gateway: the deployed one confirms the start, and goes on with the PVs that it has


class _RunningSnapshot:
    """The state of a running snapshot.

    Args:
        command: The start command.
        addresses: Its PVs.
        reply_to: The reply data of the start command; its serialization is that of the snapshot's messages.
        limit: The number of values to buffer.

    Attributes:
        application: The reply topic of the start command.
        is_held: Whether its iterations are held back.
        consumed_topics: The topics whose consumers keep the snapshot running.
        ended: Completes when the last iteration is published and the name is free.
        trigger: Ends the current iteration, given the trigger's tags; does nothing unless the snapshot is triggered.
            False if too many wait.
        has_triggers: Returns whether triggers wait.
        numbers: Those of the iteration that is being encoded.
        push: The number of the newest partial push of that iteration.
        ending: Whether the tail of an iteration waits to be published.
        stop: Publishes the last iteration and ends the snapshot.
        go_live: Publishes iterations from now on, if they were held back.
        epoch: That of its messages, where gateways share snapshots.
        handing_over: Whether another gateway goes on after the last iteration.
        stopping: Whether `stop` was called.
    """

    def __init__(
        self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress], reply_to: ReplyTo, limit: int
    ) -> None:
        self.command = command
        self.addresses = addresses
        self.application = reply_to.topic
        self.is_held = False
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
        self.ended: Subject[OutgoingRecord] = Subject()
        self.trigger: Callable[[Mapping[str, str]], bool] = lambda _: True
        self.has_triggers: Callable[[], bool] = lambda: False
        self.numbers = IterationNumbers()
        self.push = 1
        self.ending = False
        self.stop: Callable[[], None] = lambda: None
        self.stopping = False
        self.go_live: Callable[[], None] = lambda: None
        self.epoch = ""
        self.handing_over = False
        self._notes: dict[str, Callable[[str, int], None]] = {}

    def note_about(self, subject: str) -> Callable[[str, int], None]:
        """Returns what notes that messages about a PV, or an empty string, were not published; one for each."""
        note = self._notes.get(subject)
        if note is None:
            note = self._notes[subject] = partial(self.builder.note, subject)
        return note

    def after(self, handle: Callable[[], Observable[OutgoingRecord]]) -> Observable[OutgoingRecord]:
        """Returns the answer to a command that has to wait until this snapshot has ended."""
        return reactivex.concat(self.ended, reactivex.defer(lambda _: handle()))


def name_error(name: str) -> str:
    """Returns why no snapshot can have a name; an empty string if one can."""
    if not name:
        return "The snapshot name is empty"
    return f"The snapshot name has control characters: {printable(name, 200)!r}" if has_control(name) else ""


class RecurringSnapshots:
    """The running recurring snapshots of a gateway.

    Args:
        channels: The PVs.
        topics: Creates the snapshots' topics.
        context: Scheduler, metrics, options and clock.
        usage: Bounds PVs and topics.
        rules: Checks the snapshots' topics.
    """

    def __init__(
        self, channels: Channels, topics: Topics, context: GatewayContext, usage: Usage, rules: TopicRules
    ) -> None:
        self._rules = rules
        self._channels = channels
        self._topics = topics
        self._scheduler = context.scheduler
        self._announcement = context.announcement
        self._metrics = context.metrics
        self._options = context.options
        self._usage = usage
        self._clock = context.clock
        self._max_trigger_age = context.options.max_put_age
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
            addresses = validated(command)
        except InvalidSnapshotError as error:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, error.error, str(error))
        name = command.snapshot_name
        refusal = too_many_names(len(addresses), self._options)
        if refusal:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, OVER_LIMIT, refusal)
        joined = self._running.get(snapshot_topic(name))
        if joined is not None and joined.stopping:
            return joined.after(lambda: self.start(request))
        if joined is not None:
            return self._join(joined, request)
        refusal = self._rules.snapshot_topic(snapshot_topic(name))
        if refusal:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, TOPIC_REFUSED, f"snapshot refused: {refusal}")
        running = self._make(command, addresses, reply_to)
        text, starts = f"The snapshot '{name}' has been started", self._announcement.topic_for(request.topic)
        started = reply(reply_to, RECURRING_KEY, 0, text, running.topic, gateway_topic=starts)

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            refusal = self._usage.take(reply_to.topic, pvs=len(addresses), topics=1)
            if refusal:
                return refusal_stream(self._metrics, reply_to, RECURRING_KEY, OVER_LIMIT, refusal).subscribe(observer)
            taken = Disposable(lambda: self._usage.give_back(reply_to.topic, pvs=len(addresses), topics=1))
            subscriptions = self._begin(running, started, observer, taken)
            self._metrics.count_result(reply_to.command, Result.OK)
            return subscriptions

        return reactivex.create(subscribe)

    def _make(
        self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress], reply_to: ReplyTo
    ) -> _RunningSnapshot:
        return _RunningSnapshot(command, addresses, reply_to, self._options.snapshot_buffer)

    def _begin(
        self,
        running: _RunningSnapshot,
        started: OutgoingRecord | None,
        observer: abc.ObserverBase[OutgoingRecord],
        taken: abc.DisposableBase,
    ) -> abc.DisposableBase:
        running.consumed_topics.add(running.application)
        self._running[running.topic] = running
        self._rules.add_snapshot(running.topic)
        subscriptions = CompositeDisposable(taken, Disposable(lambda: self._remove(running)))
        try:
            self._run(running, started, observer, subscriptions)
        except BaseException:  # a snapshot that stayed would publish nothing, and later starts would join it
            subscriptions.dispose()
            raise
        return subscriptions

    def run(self, command: RepeatingSnapshotCommand, reply_to: ReplyTo) -> Observable[OutgoingRecord]:
        """Returns the messages of a valid snapshot that no command of this gateway's has started, until it has ended.

        Its iterations are held back until `go_live`.

        Args:
            command: Its start command.
            reply_to: The application that has requested it, and the serialization.
        """

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            running = self._make(command, validated(command), reply_to)
            running.is_held = True
            return self._begin(running, None, observer, Disposable())

        return reactivex.create(subscribe)

    def add_application(self, topic: str, application: str) -> None:
        """Lets the consumers of an application's reply topic keep a snapshot running, too."""
        if topic in self._running:
            self._running[topic].consumed_topics.add(application)

    def go_live(self, topic: str, epoch: str, index: int) -> None:
        """Publishes the iterations of a snapshot from now on, from a number on."""
        running = self._running.get(topic)
        if running is not None and running.is_held:
            running.is_held, running.epoch = False, epoch
            running.builder.begin_at(index)
            running.go_live()

    def set_epoch(self, topic: str, epoch: str) -> None:
        """Sets the epoch of the messages of a snapshot."""
        if topic in self._running:
            self._running[topic].epoch = epoch

    def hand_over(self, topic: str) -> bool:
        """Ends a snapshot after what is under way, without a last iteration of its own; another gateway goes on.

        Returns:
            False if it ends anyway.
        """
        running = self._running.get(topic)
        if running is None or running.stopping:
            return False
        running.handing_over = True
        running.stop()
        return True

    def runs(self, topic: str) -> bool:
        """Returns whether a snapshot runs, perhaps with its iterations held back."""
        return topic in self._running

    def is_stopping(self, topic: str) -> bool:
        """Returns whether a snapshot publishes its last iteration."""
        return topic in self._running and self._running[topic].stopping

    def has_triggers(self, topic: str) -> bool:
        """Returns whether a snapshot has triggers whose iterations are not published."""
        return topic in self._running and self._running[topic].has_triggers()

    def key_of(self, topic: str) -> bytes:
        """Returns the Kafka key of a running snapshot's messages."""
        return self._running[topic].key if topic in self._running else b""

    def next_index(self, topic: str) -> int | None:
        """Returns the number of the next iteration of a running snapshot; None if it does not run, or is held back."""
        running = self._running.get(topic)
        return None if running is None or running.is_held else running.builder.next_index

    def _join(
        self, running: _RunningSnapshot, request: CommandRequest[RepeatingSnapshotCommand]
    ) -> Observable[OutgoingRecord]:
        name, reply_to = request.command.snapshot_name, request.reply_to
        other = difference(running.command, request.command)
        if other:
            text = f"Snapshot {name} is in use with {other}; stop it first, or use another name"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, IN_USE, text)
        running.consumed_topics.add(reply_to.topic)
        text, starts = f"Snapshot {name} is already running", self._announcement.topic_for(request.topic)
        return reply_stream(self._metrics, reply_to, RECURRING_KEY, text, gateway_topic=starts)

    def trigger(self, request: CommandRequest[RepeatingSnapshotTriggerCommand]) -> Observable[OutgoingRecord]:
        """Makes a triggered snapshot publish an iteration; returns the reply. No effect on timed snapshots."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        wrong = name_error(name)
        if wrong:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, wrong)
        running = self._running.get(snapshot_topic(name))
        if running is not None and running.stopping:
            return running.after(lambda: self.trigger(request))
        if running is None:
            text = f"Snapshot '{name}' has not been found"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -2, text)
        claim = request.claim.open()
        late = request.too_late(self._clock(), self._max_trigger_age, "trigger")
        if late and claim.answer():
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -3, late)
        if not claim.begin():
            text = LOST if claim.state is ClaimState.LOST else UNCONFIRMED
            if claim.answer():
                return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -3, text)
            self._metrics.count_result(reply_to.command, Result.HANDED_OVER)
            return reactivex.empty()
        if not running.trigger(request.command.tags):
            bound = self._options.max_waiting_triggers
            text = f"Snapshot '{name}' has {bound} triggers waiting, no more may wait ([gateway] max_waiting_triggers)"
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, OVER_LIMIT, text)
        return reply_stream(self._metrics, reply_to, RECURRING_KEY, f"Snapshot '{name}' has been armed")

    def stop(self, request: CommandRequest[RepeatingSnapshotStopCommand]) -> Observable[OutgoingRecord]:
        """Makes a snapshot publish its last iteration and end; returns the reply."""
        name, reply_to = request.command.snapshot_name, request.reply_to
        wrong = name_error(name)
        if wrong:
            return refusal_stream(self._metrics, reply_to, RECURRING_KEY, -1, wrong)
        running = self._running.get(snapshot_topic(name))
        if running is not None and running.stopping:
            return running.after(lambda: self.stop(request))
        if running is None:
            return reply_stream(self._metrics, reply_to, RECURRING_KEY, f"Snapshot '{name}' is already stopped")
        running.stop()
        return reply_stream(self._metrics, reply_to, RECURRING_KEY, f"Snapshot '{name}' has been stopped")

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
        started: OutgoingRecord | None,
        observer: abc.ObserverBase[OutgoingRecord],
        subscriptions: CompositeDisposable,
    ) -> None:
        """Subscribes to the PVs and emits the reply and iterations once the topic exists, until `running.stop`.

        The reply waits for the topic as well, since released clients subscribe to it at once, and look for one that
        does not exist yet again a minute later.
        """
        builder = running.builder
        windows = SerialDisposable()
        unanswered = [] if started is None else [started]

        def answer() -> None:
            while unanswered:
                observer.on_next(unanswered.pop())

        def publish(message: Message) -> None:
            if isinstance(message, SnapshotTail):
                running.ending = False
            outgoing = self._encode(running, message)
            if outgoing is not None:
                observer.on_next(outgoing)

        def last() -> Sequence[Message]:
            return builder.stop(self._timestamp(), self._now(), only_rest=running.handing_over)

        output = IterationOutput(
            self._scheduler,
            publish,
            triggered=lambda tags: builder.end(self._timestamp(), self._now(), tags=tags),
            last=last,
            ended=observer.on_completed,
            max_triggers=self._options.max_waiting_triggers,
        )

        def on_window_event(event: WindowEvent) -> None:
            if event is WindowEvent.OPEN:
                builder.open(self._now())
            elif event is WindowEvent.PUSH:
                if not output.busy:
                    output.send(builder.push(self._timestamp()))
            elif not running.ending:  # else the iteration before is still being published: this one goes on
                running.ending = True
                output.send(builder.end(self._timestamp(), self._now(), pause=running.timing.delay > 0))

        def stop() -> None:
            running.stopping = True
            answer()
            windows.dispose()
            output.finish()

        def start() -> None:
            answer()
            running.go_live = begin
            if not running.is_held:
                begin()

        def begin() -> None:
            builder.open(self._now())
            if running.command.triggered:
                output.open()
            else:
                windows.disposable = window_events(running.timing, self._scheduler).subscribe(on_window_event)

        running.stop = stop
        builder.hold()  # until the topic exists: iterations before that would be lost
        if running.command.triggered:
            running.trigger, running.has_triggers = output.trigger, output.has_triggers
        values = SlicedDisposable(self._scheduler)
        for part in (output, windows, values):
            subscriptions.add(part)
        subscriptions.add(
            in_slices(
                self._scheduler,
                running.addresses,
                lambda address: values.add(self._collect(running, address)),
                failed=observer.on_error,
            )
        )
        subscriptions.add(self._topics.ensure(running.topic, SNAPSHOT_PARTITIONS).subscribe(on_completed=start))

    def _remove(self, running: _RunningSnapshot) -> None:
        if self._running.get(running.topic) is running:
            del self._running[running.topic]
            self._rules.remove_snapshot(running.topic)
            self._topics.forget(running.topic)
        running.ended.on_completed()

    def _collect(self, running: _RunningSnapshot, address: PVAddress) -> abc.DisposableBase:
        """Subscribes to a PV; one whose subscription fails is missing from the iterations."""
        name, ages = running.command.snapshot_name, running.command.triggered

        def on_value(value: PVValue) -> None:
            lost = running.builder.add(address, value, self._now() if ages else 0.0)
            if lost:
                self._metrics.dropped_samples += lost
                self._overflow.count(f"snapshot={name}")

        def on_error(error: Exception) -> None:
            _log.warning("snapshot without a PV: snapshot=%s pv=%s error=%s", name, address, error)

        return self._channels.stream(address).subscribe(on_value, on_error)

    def _encode(self, running: _RunningSnapshot, message: Message) -> OutgoingRecord | None:
        form = running.serialization
        subject, part, is_last = "", Part.TAIL, False
        try:
            if isinstance(message, UnencodedData):
                subject, part, running.push, is_last = message.value.name, Part.DATA, message.push, message.is_last
                fragment = message.value.fragment(form, running.command.pv_field_filter_list)
                body = encode_data(form, message.timestamp, message.iter_index, message.value.key, fragment)
                self._metrics.snapshot_values += 1
            elif isinstance(message, SnapshotHeader):
                part, running.push = Part.HEADER, 1
                running.numbers = IterationNumbers(shown=running.command.numbered)
                body = encode_header(form, message)
            else:
                notes = running.builder.take_notes()  # of the data encoded just before, too
                text = "; ".join(filter(None, (message.error_message, notes)))
                body = encode_tail(form, replace(message, error_message=text))
                self._metrics.iterations += 1
        except Exception as error:  # of this message only: the others are published
            Place(running.numbers, part).dropped()
            if not isinstance(error, WireError):
                _log.exception("encoding failed: snapshot=%s", running.command.snapshot_name)
                self._metrics.failures += 1
                return None
            self._metrics.unencodable += 1
            self._unencodable.count(f"snapshot={running.command.snapshot_name} subject={subject} error={error}")
            running.builder.note(subject, f"the value cannot be serialized: {error}", 1)
            return None
        push = running.push if running.command.sub_push_delay_msec > 0 else 0
        instead, place = running.note_about(subject), Place(running.numbers, part, push, is_last)
        topic, key, epoch = running.topic, running.key, running.epoch
        return OutgoingRecord(topic, key, body, form, "", True, instead, False, subject, place, epoch)

    def _timestamp(self) -> int:
        return int(self._clock() * 1000) * _MILLISECOND

    def _now(self) -> float:
        return self._scheduler.now.timestamp()
