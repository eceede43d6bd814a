"""The client: one connection to a K2EG gateway, and its PVs and snapshots as streams.

In: calls, from any thread. Out: reactivex Observables. The client starts the threads of its transport, one for timers
and, when there is something to hand over, a few for subscribers; `close` ends them all.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from enum import Enum
from types import TracebackType
from typing import Any, Self

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.delivery import DEFAULT_CAPACITY, Delivery
from k2eg_rx.discards import Discards, SizeGuard
from k2eg_rx.errors import ClientClosedError, ForkError, OperationError, TransportError
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.mailbox import Inlet
from k2eg_rx.monitors import Monitors
from k2eg_rx.overflow import Overflow
from k2eg_rx.properties import SnapshotProperties
from k2eg_rx.puts import Puts
from k2eg_rx.pv import PvAddress
from k2eg_rx.recurring import RecurringSnapshots
from k2eg_rx.requests import ReplyRouter, Requests
from k2eg_rx.router import EventRouter
from k2eg_rx.settings import Settings, load_settings
from k2eg_rx.snapshots import OneShotAssembler, Snapshot
from k2eg_rx.status import Status, StatusBoard
from k2eg_rx.timers import Timers
from k2eg_rx.transport import Receiver, Transport, TransportStatus
from k2eg_rx.wire.commands import GetCommand, SnapshotCommand
from k2eg_rx.wire.messages import PVData, PVUpdate, Reply, SnapshotMessage
from k2eg_rx.wire.structure import structure_of

# The deployed gateway gives up a get or a put after 10 s and says so: its word is worth waiting for.
DEFAULT_TIMEOUT = 12.0
# Long enough that PVs that never change cost nothing to speak of, short enough for an operator to wait.
DEFAULT_SILENCE = 60.0
_CLOSE_TIMEOUT = 5.0
_LEAST_CLOSE_TIMEOUT = 0.1  # what every part gets to close, even if those before it took all the time
# Seen once of the deployed gateway for a healthy PV: a race there, to be asked again. The spelling is the gateway's.
_SPURIOUS = (-2, "Operaton cancelled")


class Lifetime(Enum):
    """Where a client is in its life."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Client:
    """A client of a K2EG gateway.

    Every method that returns a stream raises ValueError at the call for a bad argument. Streams of one answer (`get`,
    `put`, one-shot snapshots) send one command per subscription; those of monitors and recurring snapshots are hot:
    shared by all subscribers in this client, and open while there is one.

    Subscribers are called on threads of a pool, each subscriber's items in order and one at a time; or on the
    scheduler given to `subscribe`.

    Args:
        environment_id: The environment: the name of its ``.ini`` file. See `k2eg_rx.settings`.
        app_name: The application: its instances share a reply topic.
        group_name: Given, the clients of that group share the events of monitors and snapshots among them, each event
            to one of them. Without it every client gets every event.
        settings: An environment made in the program, in place of a file.
        transport: Another way to a gateway than Kafka, such as one in memory for tests.
        timeout: Seconds that operations may take which are given no timeout of their own.
        silence: Seconds without an event after which a monitor or a recurring snapshot is asked for again, since its
            gateway may have been restarted. A PV that does not change is sent once more for it.

    Raises:
        ValueError: The environment is missing or wrong, or `app_name` is.
    """

    def __init__(
        self,
        environment_id: str,
        app_name: str,
        group_name: str | None = None,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        silence: float = DEFAULT_SILENCE,
    ) -> None:
        self.settings = settings or load_settings(environment_id, app_name)
        self.app_name = app_name
        self.timeout = _positive(timeout, "timeout")
        self._shares_events = group_name is not None
        self._process = os.getpid()
        self._lifetime = Lifetime.OPEN
        self._closing = threading.Lock()
        self._closed = threading.Event()
        self._discards = Discards()
        self._timers = Timers()
        self._delivery = Delivery(_decode, self._discards.add, self._wake)
        self._status = StatusBoard(self._measure, self._timers)
        self._replies = ReplyRouter(self._discards)
        self._events = EventRouter(self._discards, self._delivery.valve.is_open)
        with ExitStack() as parts:  # what was made is closed if what comes after it fails
            self._transport = transport or KafkaTransport(self.settings)
            parts.callback(self._transport.close, _LEAST_CLOSE_TIMEOUT)
            self._event_source = self._transport.events(self._guarded(self._events), group_name)
            parts.callback(self._event_source.close, _LEAST_CLOSE_TIMEOUT)
            self._reply_source, self._ready = self._transport.replies(
                self._guarded(self._replies), self.settings.reply_topic
            )
            parts.callback(self._reply_source.close, _LEAST_CLOSE_TIMEOUT)
            self._sink = self._transport.sink()
            parts.callback(self._sink.close, _LEAST_CLOSE_TIMEOUT)
            self._presence = self._transport.presence(self.settings.reply_topic, app_name)
            parts.pop_all()
        self._requests = Requests(
            self._replies,
            self._sink,
            command_topic=self.settings.command_topic,
            reply_topic=self.settings.reply_topic,
            ready=self._ready,
            timers=self._timers,
        )
        self._puts = Puts(self._requests)
        self._monitors = Monitors(
            self._events,
            self._event_source,
            self._requests,
            self._delivery,
            timers=self._timers,
            timeout=self.timeout,
            silence=_positive(silence, "silence"),
        )
        self._recurring = RecurringSnapshots(
            self._events,
            self._event_source,
            self._requests,
            self._delivery,
            get=self._get,
            timers=self._timers,
            timeout=self.timeout,
            silence=silence,
        )
        self._transport.on_status(self._on_status)
        _open_clients.add(self)

    def get_stream(self, uri: str, timeout: float | None = None) -> Observable[PVData]:
        """Returns a stream of one: the PV's value.

        Args:
            uri: The PV, ``pva://NAME`` or ``ca://NAME``, also of a field.
            timeout: Seconds until `OperationTimeout`.
        """
        address, seconds = PvAddress.parse(uri), self._seconds(timeout)
        return self._delivery.hand_over(self._get(address, seconds), address.uri)

    def put_stream(
        self, uri: str, value: object, timeout: float | None = None, *, check: bool = True
    ) -> Observable[Reply]:
        """Returns a stream of one: the gateway's reply to a put.

        Args:
            uri: The PV.
            value: A plain or numpy value: a number, string, sequence, mapping of fields, or of columns for a table; an
                enum's index or label. Or a `MessagePackSerializable`, which is sent as given.
            timeout: Seconds until `OperationTimeout`; the command may be carried out even then.
            check: False sends a plain value as it is, without a look at the PV's type. The deployed gateway then
                writes wrong values without a word (an enum's label sets index 0, a scalar empties an array).

        The stream fails with ValueError if the value does not fit the PV.
        """
        address, seconds = PvAddress.parse(uri), self._seconds(timeout)
        return self._delivery.hand_over(self._puts.put(address, value, seconds, check=check), address.uri)

    def monitor_stream(
        self, uri: str, *, overflow: Overflow | str = Overflow.BLOCK, capacity: int = DEFAULT_CAPACITY
    ) -> Observable[PVUpdate]:
        """Returns the hot stream of a PV's updates; a later subscriber first gets the last known one.

        Args:
            uri: The PV.
            overflow: What happens to updates that this subscriber is too slow for; see `Overflow`.
            capacity: How many updates may wait for this subscriber.
        """
        return self.monitor_many_stream([uri], overflow=overflow, capacity=capacity)

    def monitor_many_stream(
        self, uris: Iterable[str], *, overflow: Overflow | str = Overflow.BLOCK, capacity: int = DEFAULT_CAPACITY
    ) -> Observable[PVUpdate]:
        """Returns the hot streams of several PVs as one, in the order in which the updates come.

        Args:
            uris: The PVs.
            overflow: As for `monitor_stream`.
            capacity: As for `monitor_stream`; for all the PVs together.
        """
        return self._monitors.updates(self._addresses(uris), Overflow(overflow), capacity)

    def activation_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the gateway's answer to the activation of PVs that are monitored by this client.

        A gateway acknowledges a monitor before it knows whether the PV exists.

        Args:
            uris: The PVs.
            timeout: Seconds until `OperationTimeout`.
        """
        activation = self._monitors.activation(self._addresses(uris), self._seconds(timeout))
        return self._delivery.hand_over(activation, "activation")

    def snapshot_stream(
        self, uris: Iterable[str], timeout: float | None = None, *, time_window: float | None = None
    ) -> Observable[Snapshot]:
        """Returns a stream of one: the values of several PVs, acquired together by the gateway.

        Args:
            uris: The PVs. One that has no data in time has an empty list in the snapshot.
            timeout: Seconds until `OperationTimeout`, the time window included.
            time_window: Seconds that the gateway waits for the PVs; 1 by default.
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        window = None if time_window is None else round(_positive(time_window, "time_window") * 1000)
        return self._delivery.hand_over(self._snapshot(addresses, seconds, window), f"snapshot of {len(addresses)} PVs")

    def snapshot_recurring_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[Snapshot]:
        """Returns the hot stream of a recurring snapshot, an item per iteration.

        The first subscriber starts it. It runs in the gateway, for other clients too, until `snapshot_stop_stream`.

        Args:
            properties: What to acquire, and when.
            check_fields: Whether a ``timedbuffered`` snapshot with a field filter is started only after a look whether
                every PV has the fields; the deployed gateway dies of one that has not.
            overflow: As for `monitor_stream`.
            capacity: As for `monitor_stream`.
        """
        self._require_open()
        return self._recurring.snapshots(properties, Overflow(overflow), capacity, check_fields=check_fields)

    def snapshot_events_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[SnapshotMessage]:
        """Returns the hot stream of a recurring snapshot's headers, data and tails, as they come.

        With `sub_push_delay_msec` data come before the window ends. Arguments as for `snapshot_recurring_stream`.
        """
        self._require_open()
        return self._recurring.messages(properties, Overflow(overflow), capacity, check_fields=check_fields)

    def snapshot_activation_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the gateway's answer to the start of a recurring snapshot subscribed to here."""
        return self._delivery.hand_over(self._recurring.activation(name, self._seconds(timeout)), name)

    def snapshot_trigger_stream(
        self, name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> Observable[Reply]:
        """Returns a stream of one: the reply to a trigger of a triggered snapshot."""
        trigger = self._recurring.trigger(_named(name), self._seconds(timeout), dict(tags or {}))
        return self._delivery.hand_over(trigger, name)

    def snapshot_stop_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the reply to a stop. The snapshot's streams complete after its last iteration."""
        return self._delivery.hand_over(self._recurring.stop(_named(name), self._seconds(timeout)), name)

    def ready_stream(self, timeout: float | None = None) -> Observable[Status]:
        """Returns a stream of one: the status, as soon as replies can be received."""
        seconds = self._seconds(timeout)
        return self._delivery.hand_over(self._requests.ready(seconds).pipe(ops.map(lambda _: self.status)), "ready")

    def status_stream(self) -> Observable[Status]:
        """Returns the client's status: the present one, then each change."""
        self._require_open()
        status = self._status.stream()

        def attach(inlet: Inlet[Status]) -> Any:
            return status.subscribe(lambda item: inlet.offer((item,)), inlet.finish, inlet.finish)

        return self._delivery.stream(attach, "status", Overflow.LATEST)

    @property
    def status(self) -> Status:
        """The client's status now."""
        return self._status.now()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Completes the hot streams, fails what is pending, leaves Kafka and ends the threads.

        May be called anywhere, in a subscriber too, and more than once.

        Args:
            timeout: Seconds that it may take at most.
        """
        if os.getpid() != self._process:
            return  # a forked child: the threads are the parent's
        with self._closing:
            first = self._lifetime is Lifetime.OPEN
            self._lifetime = Lifetime.CLOSING if first else self._lifetime
        if not first:
            self._closed.wait(0 if self._delivery.is_worker() else timeout)
            return
        deadline = time.monotonic() + timeout
        if self._shares_events:
            self._event_source.close(timeout)  # while there are routes: what this member receives, no other one will
        self._monitors.close()
        self._recurring.close()
        self._requests.close()
        self._status.close()
        for close in (
            self._event_source.close,
            self._delivery.close,
            self._reply_source.close,
            self._presence.close,
            self._sink.close,
            self._transport.close,
        ):
            close(max(_LEAST_CLOSE_TIMEOUT, deadline - time.monotonic()))
        self._timers.dispose()
        self._lifetime = Lifetime.CLOSED
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, address: PvAddress, timeout: float) -> Observable[PVData]:
        get = self._requests.single(GetCommand(address.uri), address.uri, timeout)

        def again(error: Exception, _: Observable[Reply]) -> Observable[Reply]:
            if isinstance(error, OperationError) and (error.error, error.message) == _SPURIOUS:
                return get
            raise error

        return get.pipe(
            ops.catch(again),
            ops.map(lambda reply: PVData(address.name, structure_of(address, reply.body))),
        )

    def _snapshot(self, addresses: list[PvAddress], timeout: float, window: int | None) -> Observable[Snapshot]:
        command = SnapshotCommand(tuple(address.uri for address in addresses), window)
        subject = addresses[0].uri if len(addresses) == 1 else f"{len(addresses)} PVs"

        def assembler() -> Callable[[Reply], Snapshot | None]:
            return OneShotAssembler(str(uuid.uuid4()), addresses).feed

        return self._requests.assembled(command, assembler, subject, timeout)

    def _addresses(self, uris: Iterable[str]) -> list[PvAddress]:
        self._require_open()
        if isinstance(uris, str):
            raise ValueError(f"a list of PV URIs is expected, not the one string {uris!r}")
        addresses = [PvAddress.parse(uri) for uri in uris]
        if not addresses:
            raise ValueError("the list of PV URIs is empty")
        return addresses

    def _seconds(self, timeout: float | None) -> float:
        self._require_open()
        return self.timeout if timeout is None else _positive(timeout, "timeout")

    def _require_open(self) -> None:
        if os.getpid() != self._process:
            raise ForkError(
                "this client was made before a fork, and its threads are the parent's; make one in the child"
            )
        if self._lifetime is not Lifetime.OPEN:
            raise ClientClosedError("the client is closed")

    def _guarded(self, receiver: Receiver) -> Receiver:
        return SizeGuard(receiver, self.settings.max_message_bytes, self._discards)

    def _on_status(self, status: TransportStatus) -> None:
        self._status.update(status)
        self._requests.refuse(TransportError(status.reason) if status.refused else None)

    def _measure(self, transport: TransportStatus) -> Status:
        return Status(
            connection=transport.connection,
            reason=transport.reason,
            lag=self._event_source.lag(),
            dropped=self._delivery.dropped,
            discarded=self._discards.total,
            monitors=len(self._monitors),
            pending=len(self._replies),
        )

    def _wake(self) -> None:
        self._event_source.wake()


def _decode(item: object) -> None:
    """Decodes an update on the subscriber's thread; what was dropped before never is."""
    if isinstance(item, PVUpdate):
        item.load()


def _positive(seconds: float, name: str) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}")
    return float(seconds)


def _named(name: str) -> str:
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a snapshot's name is a string that is not empty, not {name!r}")
    return name


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Lets a script end that forgot to close, its members leaving their groups at once instead of by time-out."""
    for client in list(_open_clients):
        client.close(timeout=1.0)
