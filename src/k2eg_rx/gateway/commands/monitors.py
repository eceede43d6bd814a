"""Monitors: a PV's updates, published to a topic for as long as anybody reads it.

In: orders, and once in a while who listens to which topic. Out: replies at once, then events. Belongs to the gateway's
thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.get_put import MALFORMED
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.commands.topics import PV_PARTITIONS, Topics
from k2eg_rx.gateway.runtime.metrics import Metrics, RateLimitedWarning
from k2eg_rx.protocol import MONITOR_KEY, MonitorCommand, MultiMonitorCommand, ReplyTo, Serialization
from k2eg_rx.pv import PVAddress, monitor_topic

_log = logging.getLogger(__name__)


class _Monitor:
    """One PV's way to one topic. `readers` are the topics whose listeners keep it alive: its own, and the reply topics
    of those who asked for it, where clients stand in a consumer group that read the events themselves without one."""

    def __init__(self, address: PVAddress, topic: str, serialization: Serialization) -> None:
        self.address = address
        self.topic = topic
        self.key = address.name.encode()
        self.serialization = serialization
        self.readers = {topic}
        self.unheard_since: datetime | None = None
        self.end: Callable[[], None] = lambda: None
        self.publish: Callable[[OutgoingRecord], None] = lambda _: None


class Monitors:
    """The monitors of a gateway.

    Args:
        channels: The PVs.
        topics: Kafka's topics.
        metrics: Where what cannot be published is counted.
    """

    def __init__(self, channels: Channels, topics: Topics, metrics: Metrics) -> None:
        self._channels = channels
        self._topics = topics
        self._metrics = metrics
        self._unencodable = RateLimitedWarning(_log, "{} values have no form on the wire")
        self._active: dict[tuple[str, str], _Monitor] = {}

    def __len__(self) -> int:
        return len(self._active)

    def monitor(self, request: CommandRequest[MonitorCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a monitor command, and then the PV's events."""
        command = request.command
        try:
            address = PVAddress.parse(command.pv_name)
        except ValueError:
            return refusal_stream(self._metrics, request.reply_to, MONITOR_KEY, -1, MALFORMED)
        return self._start(request, [(address, command.monitor_dest_topic)], f"Monitor activated for {command.pv_name}")

    def multi_monitor(self, request: CommandRequest[MultiMonitorCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a multi-monitor command, and then the events of all its PVs.

        If a name among them is malformed, none is monitored and the reply says which it is.
        """
        wanted: list[tuple[PVAddress, str]] = []
        for pv_name in request.command.pv_name_list:
            try:
                address = PVAddress.parse(pv_name)
            except ValueError:
                return refusal_stream(self._metrics, request.reply_to, MONITOR_KEY, -1, f"{MALFORMED}: {pv_name!r}")
            wanted.append((address, monitor_topic(address.name)))
        return self._start(request, wanted, "Monitor activated")

    def _start(
        self, request: CommandRequest[Any], wanted: list[tuple[PVAddress, str]], text: str
    ) -> Observable[OutgoingRecord]:
        reply_to = request.reply_to

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            if reply_to.complete:
                observer.on_next(reply(reply_to, MONITOR_KEY, 0, text))
            running: dict[_Monitor, CompositeDisposable] = {}
            started = False

            def ended(monitor: _Monitor) -> None:
                if self._active.get((monitor.address.name, monitor.topic)) is monitor:
                    del self._active[monitor.address.name, monitor.topic]
                running.pop(monitor, CompositeDisposable()).dispose()
                if started and not running:
                    observer.on_completed()

            def dispose() -> None:
                for monitor in list(running):
                    ended(monitor)

            for address, topic in wanted:
                monitor = self._running(address, topic)
                there = self._there(topic, reply_to)
                if monitor is None:
                    monitor = self._active[address.name, topic] = _Monitor(address, topic, reply_to.serialization)
                    monitor.end = partial(ended, monitor)
                    monitor.publish = observer.on_next
                    running[monitor] = CompositeDisposable()
                    self._run(monitor, there, running[monitor], observer.on_next)
                else:
                    there.subscribe()  # it may have been deleted
                    self._refresh(monitor, observer.on_next)
                if reply_to.topic:
                    monitor.readers.add(reply_to.topic)
            started = True
            if not running:
                observer.on_completed()
            return Disposable(dispose)

        return reactivex.create(subscribe)

    def _running(self, address: PVAddress, topic: str) -> _Monitor | None:
        """The monitor of a PV on a topic, of whichever protocol.

        An event does not tell the protocol, so one topic carries a PV over one of them: the first that was asked for,
        as with the deployed gateway, unless that one gives nothing.
        """
        monitor = self._active.get((address.name, topic))
        if monitor is None or monitor.address == address or self._channels.latest(monitor.address) is not None:
            return monitor
        _log.info("%s gives nothing, so %s takes its place on %s", monitor.address, address, topic)
        monitor.end()
        return None

    def _there(self, topic: str, reply_to: ReplyTo) -> Observable[Any]:
        """Completes when a topic is there. Reply topics are not the gateway's to create."""
        return reactivex.empty() if topic == reply_to.topic else self._topics.ensured(topic, PV_PARTITIONS)

    def _run(
        self,
        monitor: _Monitor,
        there: Observable[Any],
        open_: CompositeDisposable,
        publish: Callable[[OutgoingRecord], None],
    ) -> None:
        """Publishes a monitor's events once its topic is there; `open_` gets what is to be disposed at its end."""

        def take(sample: PVValue) -> None:
            event = self._event(monitor, sample)
            if event is not None:
                publish(event)

        def failed(error: Exception) -> None:
            _log.warning("the monitor of %s has ended: %s", monitor.address, error)
            monitor.end()

        def begin() -> None:
            open_.add(self._channels.stream(monitor.address).subscribe(take, failed))

        open_.add(there.subscribe(on_completed=begin))

    def republish(self, topic: str) -> None:
        """Publishes the last values of a topic's PVs once more: it was deleted, and made again."""
        for monitor in [monitor for (_, at), monitor in self._active.items() if at == topic]:
            self._refresh(monitor, monitor.publish)

    def _refresh(self, monitor: _Monitor, publish: Callable[[OutgoingRecord], None]) -> None:
        """Publishes the last value once more, in order: what is newer comes behind it."""
        latest = self._channels.latest(monitor.address)
        event = None if latest is None else self._event(monitor, latest)
        if event is not None:
            publish(event)

    def _event(self, monitor: _Monitor, sample: PVValue) -> OutgoingRecord | None:
        try:
            body = sample.event(monitor.serialization)
        except WireError as error:
            self._metrics.unencodable += 1
            self._unencodable.count(f"{monitor.address}: {error}")
            return None
        return OutgoingRecord(monitor.topic, monitor.key, body, monitor.serialization)

    def expire(self, listeners: Mapping[str, int] | None, now: datetime, expiration: float) -> None:
        """Ends the monitors that nobody has listened to for too long.

        Args:
            listeners: How many listen to each topic; None if that is unknown, which ends nothing.
            now: The scheduler's time.
            expiration: Seconds.
        """
        for monitor in list(self._active.values()):
            if listeners is None or any(listeners.get(topic) for topic in monitor.readers):
                monitor.unheard_since = None
            elif monitor.unheard_since is None:
                monitor.unheard_since = now
            elif (now - monitor.unheard_since).total_seconds() >= expiration:
                _log.info("nobody listens to %s any more: the monitor of %s ends", monitor.topic, monitor.address)
                monitor.end()
