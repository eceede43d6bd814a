"""Snapshots: one-shot ones, and recurring ones as one hot stream per snapshot and client.

Thread safety: see `k2eg_rx.client.hot_streams`; iterations are assembled on the event poll thread, and on the timer
thread where messages are missing, with the router's lock held.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable

from k2eg_rx.client.get_put import get_request
from k2eg_rx.client.hot_streams import HotStreamContext, HotStreams
from k2eg_rx.client.recurring_snapshot import RecurringSnapshot
from k2eg_rx.client.requests import Requests
from k2eg_rx.delivery import Overflow, SubscriberInput
from k2eg_rx.protocol import (
    IterationAssembler,
    OneShotAssembler,
    PVData,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    Reply,
    Snapshot,
    SnapshotCommand,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotType,
)
from k2eg_rx.pv import PVAddress, is_topic_name, snapshot_topic

# The deployed gateway publishes a last, partial iteration shortly before or after its reply to a stop.
_LAST_ITERATION_SECONDS = 1.0
_LEAST_WAIT = 1.0  # seconds for missing messages: longer than a short stall of a broker


def one_shot_snapshot(
    requests: Requests, addresses: Sequence[PVAddress], timeout: float, duration: float | None
) -> Observable[Snapshot]:
    """Returns a one-shot snapshot as a single-item Observable; each subscription sends a command.

    Args:
        requests: Sends the command.
        addresses: The PVs.
        timeout: Seconds until `OperationTimeout`.
        duration: Seconds that the gateway collects data; None for the gateway's default.
    """
    uris = tuple(address.uri for address in addresses)
    command = SnapshotCommand(uris, None if duration is None else round(duration * 1000))
    subject = uris[0] if len(uris) == 1 else f"{len(uris)} PVs"

    def start(_: object = None) -> Observable[Snapshot]:
        assembler = OneShotAssembler(str(uuid.uuid4()), addresses)
        snapshots = requests.replies(command).pipe(
            ops.map(assembler.feed), ops.filter(lambda snapshot: snapshot is not None), ops.take(1)
        )
        return cast("Observable[Snapshot]", snapshots).pipe(requests.within(timeout, command.operation, subject))

    return rx.defer(start)


class RecurringSnapshots(HotStreams[RecurringSnapshot]):
    """The recurring snapshots of one client. A gateway in which one runs already confirms an activation.

    Args:
        context: The parts of the client.
        wait: Seconds that missing messages of an iteration are waited for; None for the snapshot's time window, and a
            second at least.
    """

    def __init__(self, context: HotStreamContext, wait: float | None) -> None:
        super().__init__(context)
        self._wait = wait
        self._drops: Counter[str] = Counter()  # changed with the router's lock held

    def drops(self) -> Mapping[str, int]:
        """Returns what the snapshots could not use, by reason; see `IterationAssembler.counts`."""
        return dict(self._drops)  # one atomic operation

    def snapshots(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[Snapshot]:
        """Returns the complete iterations of a recurring snapshot."""

        def add(recurring: RecurringSnapshot, subscriber: SubscriberInput[Snapshot]) -> None:
            recurring.snapshot_subscribers = (*recurring.snapshot_subscribers, subscriber)

        return self._stream(properties, add, overflow, capacity, check_fields=check_fields)

    def messages(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[SnapshotMessage]:
        """Returns headers, data and tails as they arrive."""

        def add(recurring: RecurringSnapshot, subscriber: SubscriberInput[SnapshotMessage]) -> None:
            recurring.message_subscribers = (*recurring.message_subscribers, subscriber)

        return self._stream(properties, add, overflow, capacity, check_fields=check_fields)

    def activation(self, name: str, timeout: float) -> Observable[Reply]:
        """Returns the gateway's reply to the start of a snapshot.

        Raises:
            ValueError: No stream of that snapshot is subscribed to in this client.
        """
        with self._lock:
            recurring = self._streams.get(snapshot_topic(name))
        if recurring is None:
            raise ValueError(f"snapshot {name!r} is not subscribed to in this client; subscribe to it first")
        return self._replies([recurring], RepeatingSnapshotCommand.operation, name, timeout)

    def trigger(self, name: str, timeout: float, tags: dict[str, str]) -> Observable[Reply]:
        """Returns the reply to a trigger."""
        reply = self._requests.reply(RepeatingSnapshotTriggerCommand(name, tags), name, timeout)

        def send(_: object = None) -> Observable[Reply]:
            self._note(name, lambda recurring: recurring.count_triggers(1))
            return reply.pipe(
                ops.do_action(on_error=lambda _: self._note(name, lambda recurring: recurring.count_triggers(-1)))
            )

        return rx.defer(send)

    def stop(self, name: str, timeout: float) -> Observable[Reply]:
        """Returns the reply to a stop; the streams of the snapshot complete after its last iteration.

        The iteration that a gateway adds at the stop of a triggered snapshot is not handed over.
        """
        reply = self._requests.reply(RepeatingSnapshotStopCommand(name), name, timeout)

        def send(_: object = None) -> Observable[Reply]:
            self._note(name, lambda recurring: recurring.set_stopping(stopping=True))
            return reply.pipe(
                ops.do_action(
                    lambda _: self._stopped(snapshot_topic(name)),
                    lambda _: self._note(name, lambda recurring: recurring.set_stopping(stopping=False)),
                )
            )

        return rx.defer(send)

    def _note(self, name: str, change: Callable[[RecurringSnapshot], None]) -> None:
        """Changes the snapshot of a name, if it is subscribed to in this client."""
        with self._lock, self._router.lock:
            recurring = self._streams.get(snapshot_topic(name))
            if recurring is not None:
                change(recurring)

    def _stream(
        self,
        properties: SnapshotProperties,
        add: Callable[[RecurringSnapshot, SubscriberInput[Any]], None],
        overflow: Overflow,
        capacity: int,
        *,
        check_fields: bool,
    ) -> Observable[Any]:
        properties.validate()
        command = properties.command()
        addresses = [PVAddress.parse(uri) for uri in command.pv_name_list]

        def attach(subscriber: SubscriberInput[Any]) -> abc.DisposableBase:
            with self._lock:
                recurring = self._running(command)
                is_new = recurring is None
                if recurring is None:
                    recurring = self._made(command, addresses)
                try:
                    if is_new:
                        self._streams[recurring.key] = recurring
                        self._router.add_messages(recurring.key, recurring)
                    with self._router.lock:
                        add(recurring, subscriber)
                    if is_new:
                        self._open([recurring], self._field_checks(command, addresses) if check_fields else None)
                except BaseException:  # a snapshot that stayed would keep later subscribers waiting for ever
                    self._detach(recurring, subscriber)
                    raise
            return Disposable(lambda: self._detach(recurring, subscriber))

        return self._dispatcher.stream(attach, f"snapshot {command.snapshot_name}", overflow, capacity)

    def _made(self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress]) -> RecurringSnapshot:
        wait = max(command.time_window_msec / 1000, _LEAST_WAIT) if self._wait is None else self._wait
        assembler = IterationAssembler(command.snapshot_name, addresses, counts=self._drops, wait=wait)
        recurring = RecurringSnapshot(command, assembler, wait, self._now)

        def arm(seconds: float) -> abc.DisposableBase:
            return self._timers.schedule_relative(seconds, expire)

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._router.publish(lambda outgoing: recurring.expire(outgoing, is_reading=self._router.ready()))

        recurring.arm = arm
        return recurring

    def _now(self) -> float:
        return self._timers.now.timestamp()

    def _running(self, command: RepeatingSnapshotCommand) -> RecurringSnapshot | None:
        """Returns the running snapshot of a command; ends one that was stopped. `_lock` is held.

        Raises:
            ValueError: The snapshot runs with other properties.
        """
        recurring = self._streams.get(snapshot_topic(command.snapshot_name))
        if recurring is not None and recurring.ending:
            self._end([recurring])
            return None
        if recurring is not None and recurring.command != command:
            name = command.snapshot_name
            raise ValueError(f"snapshot {name!r} runs in this client with other properties; stop it first")
        return recurring

    def _detach(self, recurring: RecurringSnapshot, subscriber: SubscriberInput[Any]) -> None:
        with self._lock, self._router.lock:
            snapshots, messages = recurring.snapshot_subscribers, recurring.message_subscribers
            recurring.snapshot_subscribers = tuple(other for other in snapshots if other is not subscriber)
            recurring.message_subscribers = tuple(other for other in messages if other is not subscriber)
            if not recurring.subscribers:
                self._remove(recurring)

    def _activate(
        self, streams: Sequence[RecurringSnapshot], timeout: float, after: Sequence[Future[None]] = ()
    ) -> Observable[Reply]:
        (recurring,) = streams
        command = recurring.command
        return self._requests.reply(command, command.snapshot_name, timeout, after=after)

    def _activated(self, stream: RecurringSnapshot, reply: Reply) -> None:
        topic = reply.body.get("publishing_topic")
        with self._lock:
            if not isinstance(topic, str) or not is_topic_name(topic) or topic in stream.topics:
                return
            if self._streams.get(stream.key) is stream:
                stream.add_topic(topic)  # a gateway with another rule for the name
                self._router.add_messages(topic, stream)
                self._source.read(topic)

    def _close_routes(self, stream: RecurringSnapshot) -> None:
        stream.timer.dispose()
        for topic in stream.topics:
            self._router.remove_messages(topic)

    def _field_checks(self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress]) -> Observable[Reply]:
        """Gets the PVs and fails if one lacks a field of a ``timedbuffered`` snapshot's filter, which would kill the
        deployed gateway."""
        fields = command.pv_field_filter_list
        if not fields or command.type != SnapshotType.TIMED_BUFFERED:
            return rx.empty()

        def check(address: PVAddress) -> Observable[Any]:
            def check_fields(data: PVData) -> None:
                missing = [name for name in fields if name not in data.data]
                if missing:
                    present = ", ".join(data.data)
                    text = f"pv_field_filter_list: {address.uri} has no field {missing[0]!r}; it has {present}"
                    raise ValueError(text)

            return self._requests.single(get_request(address, self._timeout)).pipe(ops.map(check_fields))

        return rx.merge(*map(check, addresses)).pipe(ops.ignore_elements())

    def _stopped(self, topic: str) -> None:
        with self._lock:
            recurring = self._streams.get(topic)
            if recurring is None:
                return
            recurring.ending = True  # it is not started again

        def end(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._router.publish(recurring.finish)
            self._end([recurring])

        self._timers.schedule_relative(_LAST_ITERATION_SECONDS, end)
