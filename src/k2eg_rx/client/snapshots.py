"""Snapshots: one-shot ones, and recurring ones as one hot stream per snapshot and client.

Thread safety: see `k2eg_rx.client.hot_streams`; iterations are assembled on the event poll thread, with the router's
lock held.
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
from k2eg_rx.client.hot_streams import HotStream, HotStreamContext, HotStreams
from k2eg_rx.client.requests import Requests
from k2eg_rx.client.routes import Outgoing
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
    SnapshotHeader,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotType,
    State,
    decode_snapshot_message,
)
from k2eg_rx.pv import PVAddress, is_topic_name, snapshot_topic
from k2eg_rx.transport import Record

# The deployed gateway publishes a last, partial iteration shortly before or after its reply to a stop.
_LAST_ITERATION_SECONDS = 1.0


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


class _Recurring(HotStream):
    """One recurring snapshot: its subscribers and the assembly of its iterations."""

    def __init__(self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress], drops: Counter[str]) -> None:
        super().__init__()
        self.command = command
        self._topics = [snapshot_topic(command.snapshot_name)]
        self.snapshot_subscribers: tuple[SubscriberInput[Snapshot], ...] = ()
        self.message_subscribers: tuple[SubscriberInput[SnapshotMessage], ...] = ()
        self._heard = False
        self._assembler = IterationAssembler(command.snapshot_name, addresses, counts=drops)
        self._header: Record | None = None  # of the latest iteration

    @property
    def key(self) -> str:
        return self._topics[0]

    @property
    def topics(self) -> Sequence[str]:
        return self._topics

    def add_topic(self, topic: str) -> None:
        """Adds the topic that the gateway publishes to, where it differs from the rule for names."""
        self._topics.append(topic)

    @property
    def heard(self) -> bool:
        return self._heard

    def set_heard(self, *, heard: bool) -> None:
        self._heard = heard

    @property
    def subscribers(self) -> Sequence[SubscriberInput[Any]]:
        return (*self.snapshot_subscribers, *self.message_subscribers)

    def accept(self, record: Record, outgoing: Outgoing) -> None:
        """Adds a record's message, and the iteration that it completes; see `MessageRoute`."""
        message = decode_snapshot_message(record)
        self._heard = True
        if isinstance(message, SnapshotHeader):
            self._header = record
        for subscriber in self.message_subscribers:
            outgoing.setdefault(subscriber, []).append(message)
        snapshot = self._assembler.feed(message)
        if snapshot is not None:
            for subscriber in self.snapshot_subscribers:
                outgoing.setdefault(subscriber, []).append(snapshot)

    def unused(self) -> Record | None:
        """Returns the header of the open iteration unless its messages were offered; see `MessageRoute`."""
        return self._header if self._assembler.state is State.OPEN and not self.message_subscribers else None


class RecurringSnapshots(HotStreams[_Recurring]):
    """The recurring snapshots of one client. A gateway in which one runs already confirms an activation."""

    def __init__(self, context: HotStreamContext) -> None:
        super().__init__(context)
        self._drops: Counter[str] = Counter()  # changed with the router's lock held

    def drops(self) -> Mapping[str, int]:
        """Returns what the snapshots could not use, by reason; see `IterationAssembler.counts`."""
        return dict(self._drops)  # one atomic operation

    def snapshots(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[Snapshot]:
        """Returns the complete iterations of a recurring snapshot."""

        def add(recurring: _Recurring, subscriber: SubscriberInput[Snapshot]) -> None:
            recurring.snapshot_subscribers = (*recurring.snapshot_subscribers, subscriber)

        return self._stream(properties, add, overflow, capacity, check_fields=check_fields)

    def messages(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[SnapshotMessage]:
        """Returns headers, data and tails as they arrive."""

        def add(recurring: _Recurring, subscriber: SubscriberInput[SnapshotMessage]) -> None:
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
        return self._requests.reply(RepeatingSnapshotTriggerCommand(name, tags), name, timeout)

    def stop(self, name: str, timeout: float) -> Observable[Reply]:
        """Returns the reply to a stop; the streams of the snapshot complete after its last iteration."""
        reply = self._requests.reply(RepeatingSnapshotStopCommand(name), name, timeout)
        return reply.pipe(ops.do_action(lambda _: self._stopped(snapshot_topic(name))))

    def _stream(
        self,
        properties: SnapshotProperties,
        add: Callable[[_Recurring, SubscriberInput[Any]], None],
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
                    recurring = _Recurring(command, addresses, self._drops)
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

    def _running(self, command: RepeatingSnapshotCommand) -> _Recurring | None:
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

    def _detach(self, recurring: _Recurring, subscriber: SubscriberInput[Any]) -> None:
        with self._lock, self._router.lock:
            snapshots, messages = recurring.snapshot_subscribers, recurring.message_subscribers
            recurring.snapshot_subscribers = tuple(other for other in snapshots if other is not subscriber)
            recurring.message_subscribers = tuple(other for other in messages if other is not subscriber)
            if not recurring.subscribers:
                self._remove(recurring)

    def _activate(
        self, streams: Sequence[_Recurring], timeout: float, after: Sequence[Future[None]] = ()
    ) -> Observable[Reply]:
        (recurring,) = streams
        command = recurring.command
        return self._requests.reply(command, command.snapshot_name, timeout, after=after)

    def _activated(self, stream: _Recurring, reply: Reply) -> None:
        topic = reply.body.get("publishing_topic")
        with self._lock:
            if not isinstance(topic, str) or not is_topic_name(topic) or topic in stream.topics:
                return
            if self._streams.get(stream.key) is stream:
                stream.add_topic(topic)  # a gateway with another rule for the name
                self._router.add_messages(topic, stream)
                self._source.read(topic)

    def _close_routes(self, stream: _Recurring) -> None:
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
            self._end([recurring])

        self._timers.schedule_relative(_LAST_ITERATION_SECONDS, end)
