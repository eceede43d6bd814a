"""Monitors: a PV's updates, published to a topic for as long as anybody reads it.

In: orders, and once in a while who listens to which topic. Out: replies at once, then events. Belongs to the gateway's
thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable
from reactivex.subject import Subject

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.channels import Channels
from k2eg_rx.gateway.counters import Complaint, Counters
from k2eg_rx.gateway.operations import MALFORMED
from k2eg_rx.gateway.orders import Order, refused
from k2eg_rx.gateway.samples import Outgoing, Sample, reply
from k2eg_rx.gateway.topics import PV_PARTITIONS, Topics
from k2eg_rx.pv import PvAddress, monitor_topic
from k2eg_rx.wire.commands import MonitorCommand, MultiMonitorCommand
from k2eg_rx.wire.encode import MONITOR_KEY, Serialization
from k2eg_rx.wire.parse import ReplyTo

_log = logging.getLogger(__name__)


class _Monitor:
    """One PV's way to one topic. `readers` are the topics whose listeners keep it alive: its own, and the reply topics
    of those who asked for it, where clients stand in a consumer group that read the events themselves without one."""

    def __init__(self, address: PvAddress, topic: str, serialization: Serialization) -> None:
        self.address = address
        self.topic = topic
        self.key = address.name.encode()
        self.serialization = serialization
        self.readers = {topic}
        self.unheard_since: datetime | None = None
        self.expired: Subject[None] = Subject()


class Monitors:
    """The monitors of a gateway.

    Args:
        channels: The PVs.
        topics: Kafka's topics.
        counters: Where what cannot be published is counted.
    """

    def __init__(self, channels: Channels, topics: Topics, counters: Counters) -> None:
        self._channels = channels
        self._topics = topics
        self._counters = counters
        self._unencodable = Complaint(_log, "{} values have no form on the wire")
        self._active: dict[tuple[PvAddress, str], _Monitor] = {}

    def __len__(self) -> int:
        return len(self._active)

    def monitor(self, order: Order[MonitorCommand]) -> Observable[Outgoing]:
        """Returns the reply to a monitor command, and then the PV's events."""
        command = order.command
        try:
            address = PvAddress.parse(command.pv_name)
        except ValueError:
            return refused(self._counters, order.reply_to, MONITOR_KEY, -1, MALFORMED)
        return self._start(order, [(address, command.monitor_dest_topic)], f"Monitor activated for {command.pv_name}")

    def multi_monitor(self, order: Order[MultiMonitorCommand]) -> Observable[Outgoing]:
        """Returns the reply to a multi-monitor command, and then the events of all its PVs.

        If a name among them is malformed, none is monitored and the reply says which it is.
        """
        wanted: list[tuple[PvAddress, str]] = []
        for pv_name in order.command.pv_name_list:
            try:
                address = PvAddress.parse(pv_name)
            except ValueError:
                return refused(self._counters, order.reply_to, MONITOR_KEY, -1, f"{MALFORMED}: {pv_name!r}")
            wanted.append((address, monitor_topic(address.name)))
        return self._start(order, wanted, "Monitor activated")

    def _start(self, order: Order[Any], wanted: list[tuple[PvAddress, str]], text: str) -> Observable[Outgoing]:
        reply_to = order.reply_to

        def subscribe(observer: abc.ObserverBase[Outgoing], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            if reply_to.complete:
                observer.on_next(reply(reply_to, MONITOR_KEY, 0, text))
            new: list[Observable[Outgoing]] = []
            for address, topic in wanted:
                monitor = self._active.get((address, topic))
                if monitor is None:
                    monitor = self._active[address, topic] = _Monitor(address, topic, reply_to.serialization)
                    new.append(self._events(monitor, self._there(topic, reply_to)))
                else:
                    self._there(topic, reply_to).subscribe()  # it may have been deleted
                    self._refresh(monitor, observer.on_next)
                if reply_to.topic:
                    monitor.readers.add(reply_to.topic)
            return self._merged(new, observer)

        return reactivex.create(subscribe)

    @staticmethod
    def _merged(streams: list[Observable[Outgoing]], observer: abc.ObserverBase[Outgoing]) -> abc.DisposableBase:
        """Passes streams on that do not fail, and completes with the last of them."""
        left = len(streams)

        def ended() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                observer.on_completed()

        if not streams:
            observer.on_completed()
        return CompositeDisposable([stream.subscribe(observer.on_next, None, ended) for stream in streams])

    def _refresh(self, monitor: _Monitor, publish: Callable[[Outgoing], None]) -> None:
        """Publishes the last value once more, in order: what is newer comes behind it."""
        latest = self._channels.latest(monitor.address)
        event = None if latest is None else self._event(monitor, latest)
        if event is not None:
            publish(event)

    def _there(self, topic: str, reply_to: ReplyTo) -> Observable[Any]:
        """Completes when a topic is there. Reply topics are not the gateway's to create."""
        return reactivex.empty() if topic == reply_to.topic else self._topics.ensured(topic, PV_PARTITIONS)

    def _events(self, monitor: _Monitor, there: Observable[Any]) -> Observable[Outgoing]:
        """A monitor's events, once its topic is there, until it expires; whatever happens, it does not fail."""

        def failed(error: Exception, _: Any) -> Observable[Any]:
            _log.warning("the monitor of %s has ended: %s", monitor.address, error)
            return reactivex.empty()

        events = self._channels.stream(monitor.address).pipe(
            ops.map(lambda sample: self._event(monitor, sample)),
            ops.filter(lambda event: event is not None),
        )
        return reactivex.concat(there, cast("Observable[Outgoing]", events)).pipe(
            ops.take_until(monitor.expired),
            ops.catch(failed),
            ops.finally_action(lambda: self._remove(monitor)),
        )

    def _event(self, monitor: _Monitor, sample: Sample) -> Outgoing | None:
        try:
            body = sample.event(monitor.serialization)
        except WireError as error:
            self._counters.unencodable += 1
            self._unencodable.made(f"{monitor.address}: {error}")
            return None
        return Outgoing(monitor.topic, monitor.key, body, monitor.serialization)

    def _remove(self, monitor: _Monitor) -> None:
        self._active.pop((monitor.address, monitor.topic), None)

    def heard(self, listeners: Mapping[str, int] | None, now: datetime, expiration: float) -> None:
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
                monitor.expired.on_next(None)
