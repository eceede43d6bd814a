"""Monitored PVs: one hot stream per PV and client.

Thread safety: see `k2eg_rx.client.hot_streams`; a topic's deletion is reported on a thread of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.client.hot_streams import HotStream, HotStreamContext, HotStreams
from k2eg_rx.client.router import first_offsets
from k2eg_rx.client.routes import PVRoute
from k2eg_rx.delivery import Overflow, ReplayGate, SubscriberInput
from k2eg_rx.history import CatchUp, HistoryQuery, HistoryReader, Interval, Splice
from k2eg_rx.protocol import MonitorCommand, MultiMonitorCommand, PVUpdate, Reply
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport import Offsets

_DELETION_DELAY = 0.5  # seconds: until then a deleted topic is created anew, and others deleted with it are reported


def _distinct(addresses: Sequence[PVAddress]) -> tuple[list[PVAddress], str]:
    """Returns each PV once, and the label of a stream of them."""
    distinct = list({address.name: address for address in addresses}.values())
    return distinct, _label(distinct)


def _label(addresses: Sequence[PVAddress]) -> str:
    first = addresses[0].uri
    return first if len(addresses) == 1 else f"{len(addresses)} PVs from {first} on"


class _Monitor(HotStream):
    """One monitored PV."""

    __slots__ = ("route",)

    def __init__(self, address: PVAddress) -> None:
        super().__init__()
        self.route = PVRoute(address, monitor_topic(address.name))

    @property
    def key(self) -> str:
        return self.route.address.name

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
    """

    _MAX_PER_COMMAND = 500  # some 50 kB of JSON; brokers accept 1 MB by default

    def __init__(self, context: HotStreamContext, history: HistoryReader, *, shares_events: bool) -> None:
        super().__init__(context)
        self._history = history
        self._shares_events = shares_events
        self._deleted_topics: set[str] = set()
        self._source.on_gone = self.topic_deleted

    def updates(self, addresses: Sequence[PVAddress], overflow: Overflow, capacity: int) -> Observable[PVUpdate]:
        """Returns the updates of PVs as one stream, in the order in which they arrive.

        PVs that are not monitored yet are activated together. A refused activation fails the streams of its PVs; the
        next subscription tries again.
        """
        distinct, label = _distinct(addresses)

        def attach(subscriber: SubscriberInput[PVUpdate]) -> abc.DisposableBase:
            monitors = self._attach(distinct, subscriber)
            return Disposable(lambda: self._detach(monitors, subscriber))

        return self._dispatcher.stream(attach, label, overflow, capacity)

    def updates_since(
        self, addresses: Sequence[PVAddress], since: Callable[[], int], overflow: Overflow, capacity: int
    ) -> Observable[PVUpdate]:
        """Returns the updates of PVs: first those that Kafka still keeps, then live ones.

        Args:
            addresses: The PVs.
            since: Returns the event time at which the history starts; called at each subscription.
            overflow: As for `updates`.
            capacity: As for `updates`.
        """
        distinct, label = _distinct(addresses)

        def attach(subscriber: SubscriberInput[PVUpdate], gate: ReplayGate) -> abc.DisposableBase:
            query = HistoryQuery(self._history, distinct, Interval(since()), label, capacity)
            splice = Splice(subscriber, capacity)
            monitors = self._attach(distinct, splice)
            positions = [monitor.position for monitor in monitors]
            try:
                catch_up = self._history.start(CatchUp(query, splice, subscriber, gate, positions))
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
            missing = [address.uri for address in addresses if address.name not in self._streams]
            if missing:
                raise ValueError(f"not monitored by this client: {', '.join(missing)}; subscribe to them first")
            monitors = [self._streams[address.name] for address in addresses]
        return self._replies(monitors, MonitorCommand.operation, _label(addresses), timeout)

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

    def _attach(self, addresses: Sequence[PVAddress], subscriber: SubscriberInput[PVUpdate]) -> list[_Monitor]:
        """Adds a subscriber to PVs; those that are not monitored yet are activated together."""
        with self._lock:
            new = {address.name: _Monitor(address) for address in addresses if address.name not in self._streams}
            monitors = [new.get(address.name) or self._streams[address.name] for address in addresses]
            try:
                for monitor in new.values():
                    self._streams[monitor.key] = monitor
                    self._router.add_pv(monitor.route)
                for monitor in monitors:
                    self._router.attach(monitor.route, subscriber)
                self._open(list(new.values()))
            except BaseException:  # a monitor that stayed would keep later subscribers waiting for ever
                self._remove_subscriber(monitors, subscriber)
                raise
        return monitors

    def _detach(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[PVUpdate]) -> None:
        with self._lock:
            if self._shares_events:
                self._release_undelivered([each for each in monitors if each.subscribers == (subscriber,)], subscriber)
            self._remove_subscriber(monitors, subscriber)

    def _remove_subscriber(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[PVUpdate]) -> None:
        """Removes a subscriber from PVs, and those PVs that have no other. `_lock` is held."""
        for monitor in monitors:
            if self._router.detach(monitor.route, subscriber) == 0:
                self._remove(monitor)

    def _release_undelivered(self, monitors: Sequence[_Monitor], subscriber: SubscriberInput[PVUpdate]) -> None:
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
        command = MonitorCommand(uris[0], streams[0].route.topic) if len(uris) == 1 else MultiMonitorCommand(uris)
        return self._requests.reply(command, _label(addresses), timeout, after=after)

    def _close_routes(self, stream: _Monitor) -> None:
        self._router.remove_pv(stream.route)
