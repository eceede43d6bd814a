"""Monitored PVs: one hot stream per PV and client, open while somebody is subscribed.

In: subscriptions. Out: activation commands, and `PVUpdate`s to the subscribers' inlets. The table of PVs belongs to
the lock; an activation ends on the thread of the reply pump or of the timers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import AsyncSubject

from k2eg_rx.client.requests import Requests, closed_before_reply
from k2eg_rx.client.router import EventRouter, PVRoute, first_offsets
from k2eg_rx.delivery import Dispatcher, Overflow, ReplayGate, SubscriberInput
from k2eg_rx.history import CatchUp, Interval, Past, Reading, Splice
from k2eg_rx.protocol import MonitorCommand, MultiMonitorCommand, PVUpdate, Reply
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport import Offsets, RecordSource, SourceClosedError

_PVS_PER_COMMAND = 500  # some 50 kB of JSON; brokers take 1 MB by default
_GATHER = 0.5  # seconds: who deletes a topic and makes it again has done so, and others that go with it have come


_log = logging.getLogger(__name__)


def _not_now(error: Exception) -> None:
    _log.info("could not ask again for silent PVs, and shall later: %s", error)


def _named(addresses: Sequence[PVAddress]) -> tuple[list[PVAddress], str]:
    """The PVs, each once, and what a stream of them is called."""
    unique = list({address.name: address for address in addresses}.values())
    return unique, unique[0].uri if len(unique) == 1 else f"{len(unique)} PVs from {unique[0].uri} on"


class _Monitor:
    """One monitored PV. Belongs to the lock of `Monitors`.

    Attributes:
        route: Its subscribers.
        position: Done when all further events are certain to be received.
        activation: The gateway's answer, once it is there.
        active: Whether the gateway has answered.
    """

    __slots__ = ("activation", "active", "position", "route")

    def __init__(self, address: PVAddress) -> None:
        self.active = False
        self.position: Future[None] = Future()
        self.route = PVRoute(address, monitor_topic(address.name))
        self.activation: AsyncSubject[Reply] = AsyncSubject()


class Monitors:
    """The monitored PVs of one client.

    Args:
        router: Where their events come from.
        source: What reads their topics.
        requests: What activates them.
        delivery: What hands over to subscribers.
        past: What reads their past.
        timers: The scheduler of the look at who is silent.
        timeout: Seconds that an activation may take.
        silence: Seconds without an event after which a PV is activated again: its gateway may have been restarted.
        shares_events: Whether others get the events that this client does not use.
    """

    def __init__(
        self,
        router: EventRouter,
        source: RecordSource,
        requests: Requests,
        delivery: Dispatcher,
        *,
        past: Past,
        timers: abc.SchedulerBase,
        timeout: float,
        silence: float,
        shares_events: bool = False,
    ) -> None:
        self._past = past
        self._shares_events = shares_events
        self._router = router
        self._source = source
        self._requests = requests
        self._delivery = delivery
        self._timeout = timeout
        self._lock = threading.RLock()
        self._monitors: dict[str, _Monitor] = {}
        self._gone: set[str] = set()
        self._timers = timers
        source.on_gone = self.topic_gone
        # two looks without an event between them: silent for one to two intervals
        self._looks = rx.interval(silence / 2, scheduler=timers).subscribe(lambda _: self._reactivate())

    def __len__(self) -> int:
        return len(self._monitors)

    def updates(self, addresses: Sequence[PVAddress], overflow: Overflow, capacity: int) -> Observable[PVUpdate]:
        """Returns the updates of some PVs, in the order in which they came, in one stream.

        PVs that are not monitored yet are activated together. If an activation fails, the streams of its PVs end
        with that error, and the next subscription tries afresh.
        """
        unique, label = _named(addresses)

        def attach(inlet: SubscriberInput[PVUpdate]) -> abc.DisposableBase:
            attached = self._attach(unique, inlet)
            return Disposable(lambda: self._detach(attached, inlet))

        return self._delivery.stream(attach, label, overflow, capacity)

    def updates_since(
        self, addresses: Sequence[PVAddress], since: Callable[[], int], overflow: Overflow, capacity: int
    ) -> Observable[PVUpdate]:
        """Returns the updates of some PVs, first those that Kafka still keeps, then those that come.

        Args:
            addresses: The PVs.
            since: Called at each subscription; returns the event time from which on to tell the past.
            overflow: As for `updates`.
            capacity: As for `updates`.
        """
        unique, label = _named(addresses)

        def attach(inlet: SubscriberInput[PVUpdate], sluice: ReplayGate) -> abc.DisposableBase:
            reading = Reading(self._past, unique, Interval(since()), label, capacity)
            splice = Splice(inlet, capacity)
            attached = self._attach(unique, splice)
            positions = [monitor.position for monitor in attached]
            catch_up = self._past.start(CatchUp(reading, splice, inlet, sluice, positions))

            def detach() -> None:
                catch_up.dispose()
                self._detach(attached, splice)

            return Disposable(detach)

        return self._delivery.stream_of_past(attach, label, overflow, capacity)

    def _attach(self, addresses: Sequence[PVAddress], inlet: SubscriberInput[PVUpdate]) -> list[_Monitor]:
        """Has an inlet get the updates of some PVs; those that are not monitored yet are activated together."""
        with self._lock:
            new = [_Monitor(address) for address in addresses if address.name not in self._monitors]
            for monitor in new:
                self._monitors[monitor.route.address.name] = monitor
                self._router.add_pv(monitor.route)
            attached = [self._of(address) for address in addresses]
            for monitor in attached:
                self._router.attach(monitor.route, inlet)
            for start in range(0, len(new), _PVS_PER_COMMAND):
                self._activate(new[start : start + _PVS_PER_COMMAND])
        return attached

    def _detach(self, attached: Sequence[_Monitor], inlet: SubscriberInput[PVUpdate]) -> None:
        with self._lock:
            if self._shares_events:
                self._give_back([monitor for monitor in attached if monitor.route.inlets == (inlet,)], inlet)
            for monitor in attached:
                if self._router.detach(monitor.route, inlet) == 0:
                    self._remove(monitor)

    def _give_back(self, monitors: Sequence[_Monitor], inlet: SubscriberInput[PVUpdate]) -> None:
        """Has other members of the group get what the last subscriber of some PVs was not handed."""

        def unused() -> Offsets:
            return first_offsets(item.record for item in inlet.cancel_and_drain() if isinstance(item, PVUpdate))

        topics = {monitor.route.topic for monitor in monitors}
        topics -= {other.route.topic for other in self._monitors.values() if other not in monitors}
        if topics:
            self._source.release_for_rebalance(topics, unused)

    def activation(self, addresses: Sequence[PVAddress], timeout: float) -> Observable[Reply]:
        """Returns the gateway's answer to the activation of monitored PVs: the last one's, once all are active.

        Raises:
            ValueError: One of them is not monitored by this client.
        """
        with self._lock:
            missing = [address.uri for address in addresses if address.name not in self._monitors]
            if missing:
                raise ValueError(f"not monitored by this client: {', '.join(missing)}")
            activations = {id(monitor.activation): monitor.activation for monitor in map(self._of, addresses)}
        subject = addresses[0].uri if len(addresses) == 1 else f"{len(addresses)} PVs"
        both: Observable[Reply] = rx.merge(*activations.values()).pipe(ops.last())
        return both.pipe(self._requests.within(timeout, "monitor", subject))

    def topic_gone(self, topic: str) -> None:
        """Has the PVs of a topic that was deleted activated again; those of several at once together. Any thread."""
        with self._lock:
            is_first = not self._gone
            self._gone.add(topic)
        if is_first:
            self._timers.schedule_relative(_GATHER, self._ask_for_gone)

    def _ask_for_gone(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        with self._lock:
            topics, self._gone = self._gone, set()
            asked = [monitor for monitor in self._monitors.values() if monitor.active and monitor.route.topic in topics]
        self._ask_again(asked)

    def close(self) -> None:
        """Completes the streams of all PVs."""
        self._looks.dispose()
        with self._lock:
            monitors = list(self._monitors.values())
            for monitor in monitors:
                self._remove(monitor)
        for monitor in monitors:
            for inlet in monitor.route.inlets:
                inlet.finish()

    def _of(self, address: PVAddress) -> _Monitor:
        return self._monitors[address.name]

    def _activate(self, monitors: Sequence[_Monitor]) -> None:
        for monitor in monitors:
            monitor.position = self._source.read(monitor.route.topic)
        positions = [monitor.position for monitor in monitors]

        def active(reply: Reply) -> None:
            for monitor in monitors:
                monitor.active = True
                monitor.activation.on_next(reply)
                monitor.activation.on_completed()

        def failed(error: Exception) -> None:
            if isinstance(error, SourceClosedError):  # the streams are about to be completed
                for monitor in monitors:
                    monitor.activation.on_error(closed_before_reply())
                return
            inlets: list[SubscriberInput[Any]] = []
            with self._lock:
                for monitor in monitors:
                    inlets.extend(monitor.route.inlets)
                    self._remove(monitor)
            for monitor in monitors:
                monitor.activation.on_error(error)
            for inlet in inlets:
                inlet.finish(error)

        self._ask(monitors, positions).subscribe(active, failed)

    def _ask(self, monitors: Sequence[_Monitor], positions: Sequence[Future[None]] = ()) -> Observable[Reply]:
        """Returns the gateway's answer to one command that activates PVs."""
        uris = tuple(monitor.route.address.uri for monitor in monitors)
        command = MonitorCommand(uris[0], monitors[0].route.topic) if len(monitors) == 1 else MultiMonitorCommand(uris)
        subject = uris[0] if len(uris) == 1 else f"{len(uris)} PVs from {uris[0]} on"
        return self._requests.reply(command, subject, self._timeout, after=positions)

    def _reactivate(self) -> None:
        """Asks once more for PVs that are silent. What comes of it, events will tell."""
        with self._lock:
            silent = [monitor for monitor in self._monitors.values() if monitor.active and not monitor.route.heard]
            for monitor in self._monitors.values():
                monitor.route.heard = False
        self._ask_again(silent)

    def _ask_again(self, monitors: Sequence[_Monitor]) -> None:
        for start in range(0, len(monitors), _PVS_PER_COMMAND):
            self._ask(monitors[start : start + _PVS_PER_COMMAND]).subscribe(on_error=_not_now)

    def _remove(self, monitor: _Monitor) -> None:
        route = monitor.route
        if self._monitors.get(route.address.name) is not monitor:
            return
        del self._monitors[route.address.name]
        self._router.remove_pv(route)
        if not self._router.reads(route.topic):
            self._source.release(route.topic)
