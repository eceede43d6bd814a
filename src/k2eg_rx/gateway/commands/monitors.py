"""Monitors: publish a PV's updates to a topic for as long as the topic has consumers.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import reactivex
from reactivex import Observable, Observer, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.connections import Connection
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, MonitorShare, Usage
from k2eg_rx.gateway.commands.messages import ConnectionRecord, OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.monitor_streams import CommandStream, HeldValues, Monitor
from k2eg_rx.gateway.commands.monitor_targets import (
    MonitorDefinition,
    MonitorKey,
    MonitorRefusedError,
    Target,
    check_topics,
    confirmation,
    event_names,
    requested_targets,
)
from k2eg_rx.gateway.commands.purge import TopicPurge
from k2eg_rx.gateway.commands.repeats import Repeats
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.commands.topic_rules import TopicRules
from k2eg_rx.gateway.commands.topics import PV_PARTITIONS, Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import in_slices
from k2eg_rx.gateway.runtime.metrics import Result
from k2eg_rx.protocol import (
    MONITOR_KEY,
    ConnectionEvent,
    MonitorCommand,
    MonitorReport,
    MultiMonitorCommand,
    ReplyTo,
    connection_body,
    connection_key,
)
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)


class Monitors:
    """The active monitors of a gateway.

    Args:
        channels: The PVs.
        topics: Creates the monitors' topics.
        context: Scheduler, metrics, options and announcement.
        usage: Bounds PVs and topics.
        rules: Checks the monitors' topics.

    Attributes:
        purge: Deletes the topics of expired monitors.
        on_expired: Called with each monitor that has ended for want of consumers.
    """

    def __init__(
        self, channels: Channels, topics: Topics, context: GatewayContext, usage: Usage, rules: TopicRules
    ) -> None:
        self._rules = rules
        self._channels = channels
        self._topics = topics
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._options = context.options
        self._announcement = context.announcement
        self._usage = usage
        self._active: dict[MonitorKey, Monitor] = {}
        self.on_expired: Callable[[Monitor], None] = lambda _: None
        self.purge = TopicPurge(topics, rules, context)
        self._repeats = Repeats(
            context.scheduler, self._publish_latest, topics.listeners, context.options.first_value_delay
        )

    def __len__(self) -> int:
        return len(self._active)

    def monitor(
        self, request: CommandRequest[MonitorCommand] | CommandRequest[MultiMonitorCommand]
    ) -> Observable[OutgoingRecord]:
        """Returns the reply to a monitor or multi-monitor command, followed by the events of its PVs.

        A malformed PV name refuses the whole command; the reply names it.
        """
        reply_to, uri_keys = request.reply_to, request.command.uri_keys
        try:
            targets = requested_targets(request.command, self._options)
            check_topics(targets, self._rules, reply_to.topic)
        except MonitorRefusedError as error:
            return refusal_stream(self._metrics, reply_to, MONITOR_KEY, error.error, str(error))

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            names = self._names(targets, uri_keys=uri_keys)
            new = sum((name, topic) not in self._active for (_, topic), name in zip(targets, names, strict=True))
            share = MonitorShare(self._usage, reply_to.topic, new)
            if share.refusal:
                self._metrics.refused += 1
                self._metrics.count_result(reply_to.command, Result.REFUSED)
                if reply_to.complete:
                    observer.on_next(reply(reply_to, MONITOR_KEY, OVER_LIMIT, share.refusal))
                observer.on_completed()
                return Disposable()
            self._metrics.count_result(reply_to.command, Result.OK)
            stream = CommandStream(observer, share, self._remove)

            def begin() -> None:
                if reply_to.complete:
                    observer.on_next(
                        confirmation(request.command, reply_to, names, self._announcement.topic_for(request.topic))
                    )
                activations.disposable = in_slices(self._scheduler, named, activate, all_started, fail)

            def activate(named: tuple[tuple[PVAddress, str], str]) -> None:
                (address, topic), name = named
                monitor = self._activate(address, topic, name, reply_to, stream)
                if not uri_keys:
                    self._repeats.subscribing(monitor)

            def all_started() -> None:
                share.give_back_rest()
                stream.all_started()

            def fail(error: Exception) -> None:
                dispose()  # a monitor that stayed would publish nothing, and later requests would join it
                observer.on_error(error)

            def dispose() -> None:
                waiting.dispose()
                activations.dispose()
                share.give_back_rest()
                stream.dispose()

            waiting, activations = SerialDisposable(), SerialDisposable()
            named = list(zip(targets, names, strict=True))
            if uri_keys:  # such a client finds a topic as soon as it exists
                begin()
            else:
                topics = [topic for _, topic in targets if topic != reply_to.topic]
                waiting.disposable = self._topics.ensure_all(topics, PV_PARTITIONS, begin, fail)
            return Disposable(dispose)

        return reactivex.create(subscribe)

    def run(self, definition: MonitorDefinition, publish: Callable[[OutgoingRecord], None], epoch: str | None) -> None:
        """Starts a monitor that no command of this gateway's has requested, or one that was requested again.

        One that runs publishes the PV's latest value once more.

        Args:
            definition: The monitor.
            publish: Publishes its records.
            epoch: The epoch of its events; None holds them back until `go_live`.
        """
        monitor = self._active.get(definition.key)
        if monitor is not None and monitor.address != definition.address:
            monitor.end()
            monitor = None
        ready = self._topics.ensure(definition.topic, PV_PARTITIONS)
        if monitor is None:
            application = definition.applications[0]
            share = MonitorShare(Usage(self._options, is_bounded=False), application, 1)
            stream = CommandStream(Observer(publish), share, self._remove)
            address, topic, form = definition.address, definition.topic, definition.serialization
            monitor = self._active[definition.key] = Monitor(address, topic, form, definition.name, share)
            monitor.epoch, monitor.held = (epoch, None) if epoch is not None else ("", HeldValues())
            share.use_one()
            self._rules.add_monitor(topic, application)
            self._start(monitor, ready, stream.add(monitor))
        else:
            ready.subscribe()
            self._repeats.request(monitor)
        for application in definition.applications:
            monitor.consumed_topics.add(application)
        if not definition.reads_on:
            self._repeats.subscribing(monitor)

    def has_value(self, key: MonitorKey) -> bool:
        """Returns whether a monitor has values of its PV; one that waits for its topic has none yet."""
        monitor = self._active.get(key)
        if monitor is None:
            return False
        return bool(monitor.held) if monitor.held is not None else self._channels.latest(monitor.address) is not None

    def go_live(self, key: MonitorKey, epoch: str, since: int | None) -> None:
        """Publishes what was held back of a monitor, and its events from now on.

        Args:
            key: The monitor.
            epoch: The epoch of its events.
            since: The time of the last value that another gateway has published, in nanoseconds; None if unknown.
        """
        monitor = self._active.get(key)
        held = None if monitor is None else monitor.held
        if monitor is None or held is None:
            return
        monitor.epoch, monitor.held, monitor.since = epoch, None, since
        connection = self._channels.connections.current(monitor.address)
        if connection is not None:
            monitor.publish(_connection_record(monitor, connection))
        for value in held.after(since):
            monitor.latest = value
            monitor.publish(self._event(monitor, value))

    def set_epoch(self, key: MonitorKey, epoch: str) -> None:
        """Sets the epoch of the events of a monitor that publishes."""
        monitor = self._active.get(key)
        if monitor is not None and monitor.held is None:
            monitor.epoch = epoch

    def first_held(self, key: MonitorKey) -> int:
        """Returns the time of the first value that is held back of a monitor, in nanoseconds; 0 if it is unknown."""
        monitor = self._active.get(key)
        return 0 if monitor is None or monitor.held is None else monitor.held.first_time

    def is_before(self, key: MonitorKey, time: int) -> bool:
        """Returns whether a monitor is still to publish values that are older than a time in nanoseconds."""
        monitor = self._active.get(key)
        if monitor is None or self._channels.latest(monitor.address) is None:  # there are none
            return False
        return 0 < (monitor.published_until or 0) < time

    def end(self, key: MonitorKey) -> int | None:
        """Ends a monitor; returns the time of its last published value in nanoseconds, None if it is unknown."""
        monitor = self._active.get(key)
        if monitor is None:
            return None
        monitor.end()
        return monitor.published_until

    def _activate(
        self,
        address: PVAddress,
        topic: str,
        name: str,
        reply_to: ReplyTo,
        stream: CommandStream,
    ) -> Monitor:
        """Starts a monitor; if it is active already, publishes the PV's latest value once more."""
        monitor = self._active.get((name, topic))
        topic_ready = self._topic_ready(topic, reply_to)
        if monitor is None:
            monitor = self._active[name, topic] = Monitor(address, topic, reply_to.serialization, name, stream.share)
            stream.share.use_one()
            self._rules.add_monitor(topic, stream.share.application)
            self._start(monitor, topic_ready, stream.add(monitor))
        else:
            topic_ready.subscribe()  # the topic may have been deleted since
            self._repeats.request(monitor)
        monitor.consumed_topics.add(reply_to.topic)
        return monitor

    def _names(self, targets: Sequence[Target], *, uri_keys: bool) -> list[str]:
        """Returns the names of the events of PVs on their topics.

        A monitor without a value makes room for the PV over the other protocol, if the client does not accept URIs.
        """
        names = event_names(targets, self._user_of, uri_keys=uri_keys)
        for (address, topic), name in zip(targets, names, strict=True):
            named = self._active.get((name, topic))
            if named is not None and named.address != address and self._channels.latest(named.address) is None:
                _log.info("monitor replaced: topic=%s old=%s new=%s reason=no value", topic, named.address, address)
                named.end()
        return names

    def _user_of(self, key: MonitorKey) -> PVAddress | None:
        named = self._active.get(key)
        return None if named is None else named.address

    def _remove(self, monitor: Monitor) -> None:
        key = monitor.name, monitor.topic
        if self._active.get(key) is monitor:
            del self._active[key]
            self._repeats.forget(monitor)
            monitor.share.give_back_one()
            if self._rules.remove_monitor(monitor.topic, monitor.share.application):
                self._topics.forget(monitor.topic)

    def _topic_ready(self, topic: str, reply_to: ReplyTo) -> Observable[Any]:
        """Returns a stream that completes when the topic exists. Clients create their reply topics themselves."""
        return reactivex.empty() if topic == reply_to.topic else self._topics.ensure(topic, PV_PARTITIONS)

    def _start(self, monitor: Monitor, topic_ready: Observable[Any], disposables: CompositeDisposable) -> None:
        """Subscribes to the PV and publishes its events once the topic exists."""

        def on_value(value: PVValue) -> None:
            monitor.repeats.owed = False
            if monitor.held is not None:
                monitor.held.add(value)
                return
            monitor.latest = value
            monitor.publish(self._event(monitor, value))

        def on_connection(connection: Connection) -> None:
            if monitor.held is None:
                monitor.publish(_connection_record(monitor, connection))

        def on_error(error: Exception) -> None:
            _log.warning("monitor ended: pv=%s error=%s", monitor.address, error)
            monitor.end()

        def subscribe() -> None:
            connections = self._channels.connections
            known = connections.current(monitor.address)
            if known is not None:  # a snapshot has it, or a monitor on another topic
                on_connection(known)
            disposables.add(connections.listen(monitor.address, on_connection))
            disposables.add(self._channels.stream(monitor.address).subscribe(on_value, on_error))

        disposables.add(topic_ready.subscribe(on_completed=subscribe))

    def republish(self, topic: str) -> None:
        """Publishes the latest values of a topic's PVs again, after the topic was deleted and recreated."""
        for monitor in [monitor for (_, at), monitor in self._active.items() if at == topic]:
            self._repeats.request(monitor)

    def _publish_latest(self, monitor: Monitor) -> bool:
        """Publishes the connection and the latest value once more; returns False if nothing is known yet."""
        connection = self._channels.connections.current(monitor.address)
        if monitor.held is not None or connection is None:
            return False
        monitor.publish(_connection_record(monitor, connection))
        latest = self._channels.latest(monitor.address)
        if latest is not None:
            monitor.publish(self._event(monitor, latest)._replace(repeated=True))
        return True

    def _event(self, monitor: Monitor, value: PVValue) -> OutgoingRecord:
        """Returns the event of a value; a notice if the value cannot be serialized."""
        try:
            body = value.event(monitor.serialization, monitor.name)
        except WireError as error:
            self._metrics.unencodable += 1
            if not monitor.logged:
                monitor.logged = True
                _log.warning(
                    "value cannot be serialized: pv=%s error=%s (further ones count only)", monitor.address, error
                )
            return monitor.notice(f"the value cannot be serialized: {error}", 1)
        protocol = monitor.address.protocol
        form, epoch = monitor.serialization, monitor.epoch
        return OutgoingRecord(monitor.topic, monitor.key, body, form, protocol, True, monitor.notice, epoch=epoch)

    def reports(self) -> list[MonitorReport]:
        """Returns a report of each monitor."""
        return [self._report(monitor) for monitor in self._active.values()]

    def _report(self, monitor: Monitor) -> MonitorReport:
        connection = self._channels.connections.current(monitor.address)
        state, host = ("", "") if connection is None else (connection.state.value, connection.host)
        return MonitorReport(monitor.address.uri, monitor.topic, state, host, monitor.consumed_topics.applications)

    def expire(self, listeners: Mapping[str, int] | None, now: datetime, expiration: float) -> None:
        """Ends the monitors whose topics have had no consumers for too long; see `ConsumedTopics.have_expired`."""
        self.purge.check(listeners)
        self._repeats.consumers(listeners)
        monitors = self._active.values()
        expired = [monitor for monitor in monitors if monitor.consumed_topics.have_expired(listeners, now, expiration)]
        in_slices(self._scheduler, expired, self._expire)

    def _expire(self, monitor: Monitor) -> None:
        _log.info("monitor expired: pv=%s topic=%s reason=no consumers", monitor.address, monitor.topic)
        monitor.end()
        self.purge.add(monitor.topic, monitor.address.name)
        self.on_expired(monitor)


def _connection_record(monitor: Monitor, connection: Connection) -> OutgoingRecord:
    address = monitor.address
    event = ConnectionEvent(
        address.name, address.uri, connection.state, connection.since, connection.host, connection.reason
    )
    return ConnectionRecord(
        monitor.topic,
        connection_key(monitor.name),
        connection_body(event),
        monitor.serialization,
        address.protocol,
        droppable=True,
        epoch=monitor.epoch,
    )
