"""Monitored PVs: one hot stream per PV and client.

Thread safety: see `k2eg_rx.client.hot_streams`; a topic's deletion is reported on a thread of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.arguments import check_one_protocol
from k2eg_rx.client.first_values import FirstValues
from k2eg_rx.client.hot_streams import HotStream, HotStreamContext, HotStreams
from k2eg_rx.client.router import first_offsets
from k2eg_rx.client.routes import Naming, PVRoute
from k2eg_rx.delivery import Overflow, ReplayGate, SubscriberInput, run_buffer_for
from k2eg_rx.errors import WireError
from k2eg_rx.history import EVER, CatchUp, HistoryQuery, HistoryReader, Interval, Positions, Splice
from k2eg_rx.protocol import OTHER_PROTOCOL, ColumnBatch, MonitorCommand, MultiMonitorCommand, PVUpdate, Reply
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Offsets

_DELETION_DELAY = 0.5  # seconds: until then a deleted topic is created anew, and others deleted with it are reported


def _distinct(addresses: Sequence[PVAddress]) -> tuple[list[PVAddress], str]:
    """Returns each PV once, and the label of a stream of them."""
    distinct = list({address.uri: address for address in addresses}.values())
    return distinct, _label(distinct)


def _over_other_protocol(address: PVAddress) -> PVAddress:
    """Returns the same PV over the other protocol."""
    return replace(address, protocol="ca" if address.protocol == "pva" else "pva")


def _indistinct(address: PVAddress, other: PVAddress) -> ValueError:
    return ValueError(
        f"{address} cannot be monitored beside {other} in one client: this gateway publishes a PV over one protocol"
        " only and does not say which; use one of them"
    )


def _label(addresses: Sequence[PVAddress]) -> str:
    first = addresses[0].uri
    return first if len(addresses) == 1 else f"{len(addresses)} PVs from {first} on"


class _Monitor(HotStream):
    """One monitored PV."""

    __slots__ = ("route",)

    def __init__(self, address: PVAddress, shared_topic: str = "") -> None:
        super().__init__()
        self.route = PVRoute(address, shared_topic or monitor_topic(address.name))
        self.route.naming = Naming.UNKNOWN

    @property
    def key(self) -> str:
        return self.route.address.uri

    @property
    def topics(self) -> Sequence[str]:
        return (self.route.topic,)

    @property
    def subscribers(self) -> Sequence[SubscriberInput[Any]]:
        return self.route.subscribers

    @property
    def heard(self) -> bool:
        return self.route.heard

    def set_heard(self, *, heard: bool) -> None:
        self.route.heard = heard


class Monitors(HotStreams[_Monitor]):
    """The monitored PVs of one client.

    Args:
        context: The parts of the client.
        history: Reads the history of PVs.
        shares_events: Whether other members of a group get the events that this client has not delivered.
        settings: The environment, whose `events_topic` large streams use.
    """

    _MAX_PER_COMMAND = 500  # some 50 kB of JSON; brokers accept 1 MB by default

    def __init__(
        self, context: HotStreamContext, history: HistoryReader, *, shares_events: bool, settings: Settings
    ) -> None:
        super().__init__(context)
        self._events_topic = settings.events_topic
        self._shared_from = settings.events_topic_from
        self._history = history
        self._shares_events = shares_events
        self._deleted_topics: set[str] = set()
        self._tells_protocols = True  # whether the gateway tells a PV's two protocols apart, as far as known
        self._source.on_gone = self.topic_deleted

    def updates(
        self,
        addresses: Sequence[PVAddress],
        overflow: Overflow,
        capacity: int,
        *,
        values: bool = True,
        connections: bool = False,
        last: bool = True,
    ) -> Observable[Any]:
        """Returns the updates of PVs, the events of their connections, or both, in the order in which they arrive.

        With `last`, the updates begin with the last known one.

        PVs that are not monitored yet are activated together. A refused activation fails the streams of its PVs; the
        next subscription tries again.
        """
        distinct, label = _distinct(addresses)
        self._check_protocols(distinct)

        def attach(subscriber: SubscriberInput[Any]) -> abc.DisposableBase:
            return self._subscribe(distinct, subscriber, values=values, connections=connections, last=last)

        return self._dispatcher.stream(attach, label, overflow, capacity)

    def columns(
        self,
        addresses: Sequence[PVAddress],
        overflow: Overflow,
        capacity: int,
        *,
        every: float | None,
        count: int | None,
    ) -> Observable[ColumnBatch]:
        """Returns the updates of PVs as batches of columns.

        Args:
            addresses: The PVs.
            overflow: As for `updates`; there is no `LATEST`.
            capacity: As for `updates`.
            every: Seconds after which a batch is emitted.
            count: Updates of all PVs after which a batch is emitted.
        """
        from k2eg_rx.client.columns import ColumnCollector, Ticks, column_batches  # noqa: PLC0415 - numpy is an extra

        distinct, label = _distinct(addresses)
        self._check_protocols(distinct)

        def attach(subscriber: SubscriberInput[Any]) -> abc.DisposableBase:
            attached = self._subscribe(distinct, subscriber, values=False, connections=False, records=True)
            if every is None:
                return attached
            timer = rx.interval(every, scheduler=self._timers).subscribe(Ticks(subscriber).add)
            return CompositeDisposable(timer, attached)

        def on_decode_error(address: PVAddress, error: WireError) -> None:
            self.check_decode_error(address, error)
            self._dispatcher.on_decode_error(error, label)

        runs = self._dispatcher.stream(attach, label, overflow, capacity, run_buffer_for)
        return column_batches(runs, lambda: ColumnCollector(distinct, count, on_decode_error), label, overflow)

    def first_values(
        self, addresses: Sequence[PVAddress], timeout: float, hint: Callable[[], str]
    ) -> Observable[Mapping[str, PVUpdate]]:
        """Returns the first values of PVs as a single-item Observable, emitted when all of them have one.

        Args:
            addresses: The PVs.
            timeout: Seconds until `OperationTimeout`.
            hint: Returns what is wrong with the broker or the gateway; empty if nothing is known.
        """
        distinct, label = _distinct(addresses)
        self._check_protocols(distinct)

        def unconfirmed() -> Sequence[str]:
            with self._lock:
                return [each.key for each in self._streams.values() if each.is_waiting()]

        def attach(subscriber: SubscriberInput[Mapping[str, PVUpdate]]) -> abc.DisposableBase:
            uris = [address.uri for address in distinct]
            values = FirstValues(subscriber, uris, label=label, timeout=timeout, unconfirmed=unconfirmed, hint=hint)
            timer = self._timers.schedule_relative(timeout, values.time_out)
            try:
                attached = self._subscribe(distinct, values, values=True, connections=True)
            except BaseException:
                timer.dispose()
                raise
            return CompositeDisposable(timer, attached)

        return self._dispatcher.stream(attach, label)

    def _subscribe(
        self,
        addresses: Sequence[PVAddress],
        subscriber: SubscriberInput[Any],
        *,
        values: bool,
        connections: bool,
        records: bool = False,
        last: bool = True,
    ) -> abc.DisposableBase:
        monitors = self._attach(
            addresses, subscriber, values=values, connections=connections, records=records, last=last
        )
        return Disposable(lambda: self._detach(monitors, subscriber))

    def updates_since(
        self,
        addresses: Sequence[PVAddress],
        since: Callable[[], int] | Positions,
        overflow: Overflow,
        capacity: int,
    ) -> Observable[PVUpdate]:
        """Returns the updates of PVs: first those that Kafka still keeps, then live ones.

        Args:
            addresses: The PVs.
            since: Returns the event time at which the history starts, called at each subscription; or its offsets.
            overflow: As for `updates`.
            capacity: As for `updates`.
        """
        distinct, label = _distinct(addresses)
        check_one_protocol(distinct, "updates in a history")

        def attach(subscriber: SubscriberInput[PVUpdate], gate: ReplayGate) -> abc.DisposableBase:
            positions = since if isinstance(since, Positions) else None
            interval = EVER if isinstance(since, Positions) else Interval(since())
            query = HistoryQuery(self._history, distinct, interval, label, capacity, patient=True, positions=positions)
            splice = Splice(subscriber, capacity)
            monitors = self._attach(distinct, splice, shared=False)
            self._move_to_own_topics(monitors)  # whose history it is
            resolved = [monitor.position for monitor in monitors]
            try:
                catch_up = self._history.start(CatchUp(query, splice, subscriber, gate, resolved))
            except BaseException:
                self._detach(monitors, splice)
                raise

            def detach() -> None:
                catch_up.dispose()
                self._detach(monitors, splice)

            return Disposable(detach)

        return self._dispatcher.replay_stream(attach, label, overflow, capacity)

    def activation(self, addresses: Sequence[PVAddress], timeout: float) -> Observable[Reply]:
        """Returns the gateway's reply to the activation of monitored PVs: the last one when all are active.

        Raises:
            ValueError: This client does not monitor one of the PVs.
        """
        with self._lock:
            missing = [address.uri for address in addresses if address.uri not in self._streams]
            if missing:
                raise ValueError(f"not monitored by this client: {', '.join(missing)}; subscribe to them first")
            monitors = [self._streams[address.uri] for address in addresses]
        return self._replies(monitors, MonitorCommand.operation, _label(addresses), timeout)

    def disconnected(self) -> Sequence[str]:
        """Returns the URIs of the PVs that the gateway reports as lost."""
        with self._lock:
            return [stream.key for stream in self._streams.values() if stream.route.is_lost()]

    def topic_deleted(self, topic: str) -> None:
        """Activates the PVs of a deleted topic again, together with those of other topics deleted with it."""
        with self._lock:
            is_first = not self._deleted_topics
            self._deleted_topics.add(topic)
        if is_first:
            self._timers.schedule_relative(_DELETION_DELAY, self._reactivate_deleted)

    def _reactivate_deleted(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        with self._lock:
            topics, self._deleted_topics = self._deleted_topics, set()
            monitors = [each for each in self._streams.values() if each.is_active() and each.route.topic in topics]
        self._reactivate(monitors)

    def _attach(
        self,
        addresses: Sequence[PVAddress],
        subscriber: SubscriberInput[Any],
        *,
        values: bool = True,
        connections: bool = False,
        records: bool = False,
        shared: bool = True,
        last: bool = True,
    ) -> list[_Monitor]:
        """Adds a subscriber to PVs; those that are not monitored yet are activated together."""
        with self._lock:
            self._check_protocols(addresses)
            shared_topic = self._events_topic if shared and len(addresses) >= self._shared_from else ""
            new = {
                address.uri: _Monitor(address, shared_topic)
                for address in addresses
                if address.uri not in self._streams
            }
            monitors = [new.get(address.uri) or self._streams[address.uri] for address in addresses]
            try:
                for monitor in new.values():
                    self._streams[monitor.key] = monitor
                    self._router.add_pv(monitor.route)
                for monitor in monitors:
                    self._router.attach(
                        monitor.route, subscriber, values=values, connections=connections, records=records, last=last
                    )
                self._open(list(new.values()))
            except BaseException:  # a monitor that stayed would keep later subscribers waiting for ever
                self._remove_subscriber(monitors, subscriber)
                raise
        return monitors

    def _detach(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[Any]) -> None:
        with self._lock:
            if self._shares_events:
                self._release_undelivered([each for each in monitors if each.subscribers == (subscriber,)], subscriber)
            self._remove_subscriber(monitors, subscriber)

    def _remove_subscriber(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[Any]) -> None:
        """Removes a subscriber from PVs, and those PVs that have no other. `_lock` is held."""
        for monitor in monitors:
            if self._router.detach(monitor.route, subscriber) == 0:
                self._remove(monitor)

    def _release_undelivered(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[Any]) -> None:
        """Leaves events that the last subscriber of PVs was not called with to other members of the group."""

        def unused() -> Offsets:
            return first_offsets(item.record for item in subscriber.cancel_and_drain() if isinstance(item, PVUpdate))

        topics = {monitor.route.topic for monitor in monitors}
        topics -= {other.route.topic for other in self._streams.values() if other not in monitors}
        if topics:
            self._source.release_for_rebalance(topics, unused)

    def _activate(
        self, streams: Sequence[_Monitor], timeout: float, after: Sequence[Future[None]] = ()
    ) -> Observable[Reply]:
        addresses = [monitor.route.address for monitor in streams]
        uris = tuple(address.uri for address in addresses)
        topic = streams[0].route.topic
        shared_topic = topic if topic == self._events_topic else ""
        command = (
            MonitorCommand(uris[0], topic, uri_keys=True)
            if len(uris) == 1
            else MultiMonitorCommand(uris, uri_keys=True, monitor_dest_topic=shared_topic)
        )
        reply = self._requests.reply(command, _label(addresses), timeout, after=after)

        def start(_: object = None) -> Observable[Reply]:
            for stream in streams:
                self._set_naming(stream, Naming.UNKNOWN)  # the gateway may have been replaced by another one
            return reply.pipe(ops.do_action(lambda reply: self._note_naming(streams, reply)))

        return rx.defer(start)

    def _note_naming(self, streams: Sequence[_Monitor], reply: Reply) -> None:
        """Takes from the reply to an activation under which names the topics carry the PVs, and which topics."""
        if len(streams) > 1 and reply.body.get("publishing_topic") != self._events_topic:
            self._move_to_own_topics(streams)  # the gateway knows no shared topics
        by_uri = reply.body.get("uri_keys")
        uris: list[Any] = cast("list[Any]", by_uri) if isinstance(by_uri, list) else []
        for stream in streams:
            self._set_naming(stream, Naming.URI if stream.key in uris else Naming.NAME)
        self._tells_protocols = isinstance(by_uri, list)
        if not self._tells_protocols:
            with self._lock:
                places = {key: place for place, key in enumerate(self._streams)}
                others = {each: self._streams.get(_over_other_protocol(each.route.address).uri) for each in streams}
            for stream, other in others.items():
                if other is not None and stream.key in places:
                    later, first = sorted((stream, other), key=lambda each: places[each.key], reverse=True)
                    self._end([later], _indistinct(later.route.address, first.route.address))

    def _chunks(self, streams: Sequence[_Monitor]) -> Iterator[Sequence[_Monitor]]:
        shared = [stream for stream in streams if stream.route.topic == self._events_topic]
        own = [stream for stream in streams if stream.route.topic != self._events_topic]
        yield from super()._chunks(shared)
        yield from super()._chunks(own)

    def _move_to_own_topics(self, streams: Sequence[_Monitor]) -> None:
        """Makes streams of the shared topic read those of their PVs, and activates them once more."""
        with self._lock:
            shared = [
                stream
                for stream in streams
                if stream.route.topic == self._events_topic and self._streams.get(stream.key) is stream
            ]
            for stream in shared:
                self._router.move_pv(stream.route, monitor_topic(stream.route.address.name))
                stream.position = self._source.read(stream.route.topic)
            if shared and not self._router.reads(self._events_topic):
                self._source.release(self._events_topic)
        self._reactivate(shared)

    def _set_naming(self, stream: _Monitor, naming: Naming) -> None:
        with self._lock:
            if self._streams.get(stream.key) is stream:
                self._router.set_naming(stream.route, naming)

    def _check_protocols(self, addresses: Sequence[PVAddress]) -> None:
        """Checks that the gateway can tell the PVs' protocols apart.

        Raises:
            ValueError: It cannot, and a PV is monitored over the other protocol in this client, or in the list.
        """
        if self._tells_protocols:
            return
        with self._lock:
            uris = {address.uri for address in addresses} | self._streams.keys()
        for address in addresses:
            other = _over_other_protocol(address)
            if other.uri in uris and address.uri not in self._streams:
                raise _indistinct(address, other)

    def check_decode_error(self, address: PVAddress, error: WireError) -> None:
        """Activates a PV again whose name the topic now carries over the other protocol, as an event's error tells.

        That is so when another gateway has taken over and had the other protocol's request first.
        """
        if error.kind != OTHER_PROTOCOL:
            return
        with self._lock:
            stream = self._streams.get(address.uri)
            if stream is None or stream.route.naming is Naming.UNKNOWN:
                return
        self._reactivate([stream])

    def _close_routes(self, stream: _Monitor) -> None:
        self._router.remove_pv(stream.route)
