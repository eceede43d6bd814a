"""Recurring snapshots: one hot stream per snapshot and client.

In: subscriptions. Out: start commands, and to the subscribers' inlets either whole `Snapshot`s or the messages of an
iteration as they come. The table of snapshots belongs to the lock; assembly happens on the event pump, under the
router's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import AsyncSubject

from k2eg_rx.client.requests import Requests, closed_before_reply
from k2eg_rx.client.router import EventRouter, Outgoing
from k2eg_rx.delivery import Dispatcher, Overflow, SubscriberInput
from k2eg_rx.protocol import (
    IterationAssembler,
    PVData,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    Reply,
    Snapshot,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotType,
    State,
    decode_snapshot_message,
)
from k2eg_rx.pv import PVAddress, snapshot_topic
from k2eg_rx.transport import Record, RecordSource, SourceClosedError

# The deployed gateway publishes a last, partial iteration around its reply to a stop, in either order.
_LAST_ITERATION_SECONDS = 1.0


_log = logging.getLogger(__name__)


def _not_now(error: Exception) -> None:
    _log.info("could not ask again for a silent snapshot, and shall later: %s", error)


class _Recurring:
    """One running snapshot: its subscribers and the state of its assembly. The inlets belong to the router's lock."""

    def __init__(self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress]) -> None:
        self.command = command
        self.topics = [snapshot_topic(command.snapshot_name)]
        self.activation: AsyncSubject[Reply] = AsyncSubject()
        self.snapshot_inlets: tuple[SubscriberInput[Snapshot], ...] = ()
        self.message_inlets: tuple[SubscriberInput[SnapshotMessage], ...] = ()
        self.started = False
        self.ending = False
        self.heard = True  # since it was last set to False
        self._assembler = IterationAssembler(command.snapshot_name, addresses)
        self._begin: Record | None = None  # of the latest iteration

    def accept(self, record: Record, outgoing: Outgoing) -> None:
        """Adds a record's message, and the iteration that it completes."""
        message = decode_snapshot_message(record)
        self.heard = True
        if isinstance(message, SnapshotHeader):
            self._begin = record
        for inlet in self.message_inlets:
            outgoing.setdefault(inlet, []).append(message)
        snapshot = self._assembler.feed(message)
        if snapshot is not None:
            for inlet in self.snapshot_inlets:
                outgoing.setdefault(inlet, []).append(snapshot)

    def unused(self) -> Record | None:
        """Returns the begin of the open iteration, if nobody has seen any of it."""
        return self._begin if self._assembler.state is State.OPEN and not self.message_inlets else None

    def inlets(self) -> tuple[SubscriberInput[Any], ...]:
        """All subscribers."""
        return (*self.snapshot_inlets, *self.message_inlets)


class RecurringSnapshots:
    """The recurring snapshots of one client.

    Args:
        router: Where their messages come from.
        source: What reads their topics.
        requests: What starts and stops them.
        delivery: What hands over to subscribers.
        get: Reads a PV, for the check of field filters.
        timers: The scheduler for what happens later.
        timeout: Seconds that a start may take.
        silence: Seconds without a message after which a snapshot is asked for again.
    """

    def __init__(
        self,
        router: EventRouter,
        source: RecordSource,
        requests: Requests,
        delivery: Dispatcher,
        *,
        get: Callable[[PVAddress, float], Observable[PVData]],
        timers: abc.SchedulerBase,
        timeout: float,
        silence: float,
    ) -> None:
        self._router = router
        self._source = source
        self._requests = requests
        self._delivery = delivery
        self._get = get
        self._timers = timers
        self._timeout = timeout
        self._lock = threading.RLock()
        self._running: dict[str, _Recurring] = {}
        self._looks = rx.interval(silence / 2, scheduler=timers).subscribe(lambda _: self._restart())

    def snapshots(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[Snapshot]:
        """Returns the iterations of a recurring snapshot, each as a whole."""

        def add(recurring: _Recurring, inlet: SubscriberInput[Snapshot]) -> None:
            recurring.snapshot_inlets = (*recurring.snapshot_inlets, inlet)

        return self._stream(properties, add, overflow, capacity, check_fields=check_fields)

    def messages(
        self, properties: SnapshotProperties, overflow: Overflow, capacity: int, *, check_fields: bool
    ) -> Observable[SnapshotMessage]:
        """Returns headers, data and tails as they come."""

        def add(recurring: _Recurring, inlet: SubscriberInput[SnapshotMessage]) -> None:
            recurring.message_inlets = (*recurring.message_inlets, inlet)

        return self._stream(properties, add, overflow, capacity, check_fields=check_fields)

    def activation(self, name: str, timeout: float) -> Observable[Reply]:
        """Returns the gateway's answer to the start of a snapshot that is subscribed to.

        Raises:
            ValueError: Nobody is subscribed to it in this client.
        """
        with self._lock:
            recurring = self._running.get(snapshot_topic(name))
        if recurring is None:
            raise ValueError(f"no subscription to a snapshot {name!r} in this client")
        return recurring.activation.pipe(self._requests.within(timeout, "repeating_snapshot", name))

    def trigger(self, name: str, timeout: float, tags: dict[str, str]) -> Observable[Reply]:
        """Returns the reply to a trigger."""
        return self._requests.reply(RepeatingSnapshotTriggerCommand(name, tags), name, timeout)

    def stop(self, name: str, timeout: float) -> Observable[Reply]:
        """Returns the reply to a stop; the streams of the snapshot complete after its last iteration."""
        stop = self._requests.reply(RepeatingSnapshotStopCommand(name), name, timeout)
        return stop.pipe(ops.do_action(lambda _: self._stopped(snapshot_topic(name))))

    def close(self) -> None:
        """Completes the streams of all snapshots."""
        self._looks.dispose()
        with self._lock:
            for topic, recurring in list(self._running.items()):
                self._end(topic, recurring, None)

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
        topic = snapshot_topic(command.snapshot_name)
        checked = addresses if check_fields and command.type == SnapshotType.TIMED_BUFFERED else []

        def attach(inlet: SubscriberInput[Any]) -> abc.DisposableBase:
            with self._lock:
                recurring = self._running.get(topic)
                if recurring is not None and recurring.ending:
                    self._end(topic, recurring, None)
                    recurring = None
                if recurring is not None and recurring.command != command:
                    raise ValueError(
                        f"snapshot {command.snapshot_name!r} runs in this client with other properties; stop it first"
                    )
                new = recurring is None
                if recurring is None:
                    recurring = self._running[topic] = _Recurring(command, addresses)
                with self._router.lock:
                    add(recurring, inlet)
                if new:
                    self._start(topic, recurring, checked)
                attached = recurring

            def detach() -> None:
                with self._lock, self._router.lock:
                    attached.snapshot_inlets = tuple(i for i in attached.snapshot_inlets if i is not inlet)
                    attached.message_inlets = tuple(i for i in attached.message_inlets if i is not inlet)
                    if not attached.inlets():
                        self._end(topic, attached, None)

            return Disposable(detach)

        return self._delivery.stream(attach, f"snapshot {command.snapshot_name}", overflow, capacity)

    def _start(self, topic: str, recurring: _Recurring, checked: Sequence[PVAddress]) -> None:
        name = recurring.command.snapshot_name
        self._router.add_messages(topic, recurring)
        position = self._source.read(topic)
        start = self._requests.reply(recurring.command, name, self._timeout, after=[position])
        checks = self._field_checks(recurring.command, checked)

        def started(reply: Reply) -> None:
            published = reply.body.get("publishing_topic")
            if isinstance(published, str) and published not in recurring.topics:
                with self._lock:  # a gateway with another rule for the name: its word counts
                    recurring.topics.append(published)
                    self._router.add_messages(published, recurring)
                    self._source.read(published)
            recurring.started = True
            recurring.activation.on_next(reply)
            recurring.activation.on_completed()

        def failed(error: Exception) -> None:
            if isinstance(error, SourceClosedError):  # the streams are about to be completed
                recurring.activation.on_error(closed_before_reply())
                return
            with self._lock:
                self._end(topic, recurring, error)
            recurring.activation.on_error(error)

        rx.concat(checks, start).subscribe(started, failed)

    def _restart(self) -> None:
        """Asks once more for snapshots that are silent; a gateway in which one runs says so and goes on."""
        with self._lock:
            running = [recurring for recurring in self._running.values() if recurring.started and not recurring.ending]
            silent = [recurring.command for recurring in running if not recurring.heard]
            for recurring in running:
                recurring.heard = False
        for command in silent:
            self._requests.reply(command, command.snapshot_name, self._timeout).subscribe(on_error=_not_now)

    def _field_checks(self, command: RepeatingSnapshotCommand, addresses: Sequence[PVAddress]) -> Observable[Reply]:
        """Reads the PVs and fails if one lacks a field of the filter, which would end the deployed gateway."""
        wanted = command.pv_field_filter_list
        if not wanted or not addresses:
            return rx.empty()

        def check(address: PVAddress) -> Observable[Any]:
            def fields(data: PVData) -> None:
                missing = [name for name in wanted if name not in data.data]
                if missing:
                    has = ", ".join(data.data)
                    raise ValueError(f"pv_field_filter_list: {address.uri} has no field {missing[0]!r}; it has {has}")

            return self._get(address, self._timeout).pipe(ops.map(fields))

        return rx.merge(*map(check, addresses)).pipe(ops.ignore_elements())

    def _stopped(self, topic: str) -> None:
        with self._lock:
            recurring = self._running.get(topic)
            if recurring is None:
                return
            recurring.ending = True

        def end(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            with self._lock:
                self._end(topic, recurring, None)

        self._timers.schedule_relative(_LAST_ITERATION_SECONDS, end)

    def _end(self, topic: str, recurring: _Recurring, error: Exception | None) -> None:
        if self._running.get(topic) is not recurring:
            return
        del self._running[topic]
        for read in recurring.topics:
            self._router.remove_messages(read)
            if not self._router.reads(read):
                self._source.release(read)
        for inlet in recurring.inlets():
            inlet.finish(error)
