"""The parts of a client and how they are connected.

Thread safety: the parts do not change between the construction and `close`, so any thread may use them.
"""

from __future__ import annotations

import time

from reactivex import abc

from k2eg_rx.client.batches import Batches
from k2eg_rx.client.correlation import CommandSender, PendingRequests
from k2eg_rx.client.get_put import Puts
from k2eg_rx.client.hot_streams import HotStreamContext
from k2eg_rx.client.monitors import Monitors
from k2eg_rx.client.requests import Requests, closed_before_reply, closed_before_sending
from k2eg_rx.client.router import EventRouter
from k2eg_rx.client.snapshots import RecurringSnapshots
from k2eg_rx.client.status import REPLY_PATIENCE, GatewayWatch, LossCounter, Status, StatusBoard
from k2eg_rx.concurrency import RequestPriority, Runtime, TimerScheduler
from k2eg_rx.delivery import Dispatcher
from k2eg_rx.errors import TransportError, WireError
from k2eg_rx.history import HistoryReader, Replays
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.protocol import PVUpdate, Reply
from k2eg_rx.pv import gateway_topic
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import (
    ClientTransports,
    ConnectionLog,
    DecodeErrorCounter,
    SizeFilter,
    Transport,
    TransportStatus,
    time_left,
)

_log = get_logger(__name__)


class Core:
    """The parts of one client. The construction connects the transport and starts its threads; `close` ends them.

    Attributes:
        dispatcher: Calls the subscribers.
        status: Makes the client's status.
        sender: Sends commands.
        requests: Makes requests.
        puts: Makes puts.
        batches: Makes gets and puts of many PVs.
        monitors: The monitored PVs.
        recurring: The recurring snapshots.
        event_source: Reads the topics of the monitors and recurring snapshots.
        history: Reads the history of PVs.
        replays: Replays the history of PVs.

    Args:
        settings: The environment.
        transport: The transport to a gateway; None for the runtime's.
        app_name: The application.
        group_name: The consumer group that shares the events, if any.
        timeout: Seconds after which activations without a reply are repeated.
        silence: Seconds without an event after which a monitor or a recurring snapshot is activated again.
        snapshot_wait: Seconds that missing messages of an iteration are waited for; None for its default.
        runtime: The scheduler, executor and transport.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None,
        app_name: str,
        group_name: str | None,
        *,
        timeout: float,
        silence: float,
        snapshot_wait: float | None,
        runtime: Runtime,
    ) -> None:
        limit = settings.max_message_bytes
        self._shares_events = group_name is not None
        self._command_topic = settings.command_topic
        self._decode_errors = DecodeErrorCounter()
        self._losses = LossCounter()
        self._own_timers = TimerScheduler()  # starts its thread when it is used
        timers: abc.SchedulerBase = runtime.scheduler if runtime.is_virtual else self._own_timers
        priority = RequestPriority()
        self.dispatcher = Dispatcher(
            self._decode,
            self._decode_errors.add,
            self._wake,
            runtime.executor(),
            yield_to_requests=priority.yield_to_requests,
            is_behind=lambda: self.event_source.is_behind(),  # noqa: PLW0108 - it is made later
        )
        self.status = StatusBoard(self._measure, timers)
        self._watch = GatewayWatch(settings.command_topic, max(timeout, REPLY_PATIENCE), timers)
        self._pending = PendingRequests(
            self._decode_errors, priority.note, on_reply=self._watch.received, on_start=self._on_gateway_start
        )
        self._router = EventRouter(
            self._decode_errors,
            self._has_room,
            self.dispatcher.collect_inline,
            priority.is_due,
            on_events=self._watch.received,
            limit=limit,
            on_notice=self._losses.add,
        )
        self._transports = ClientTransports(
            transport or (runtime.transport or KafkaTransport)(settings),
            settings,
            app_name,
            group_name,
            events=SizeFilter(self._router, limit, self._decode_errors),
            replies=SizeFilter(self._pending, limit, self._decode_errors),
        )
        self.event_source = self._transports.event_source
        self.sender = CommandSender(
            self._pending,
            self._transports.sink,
            command_topic=settings.command_topic,
            reply_topic=settings.reply_topic,
            ready=self._transports.ready,
            on_sent=self._watch.sent,
        )
        self.sender.connection_fault = lambda: self.status.reason
        self.requests = Requests(self.sender, timers)
        self.puts = Puts(self.requests, timers)
        self.batches = Batches(self.sender, self.puts, self.dispatcher, timers=timers)
        self.history = HistoryReader(
            self._transports.history,
            self._decode_errors,
            max_bytes=limit,
            timeout=timeout,
            scheduler=runtime.scheduler if runtime.is_virtual else None,
        )
        self.replays = Replays(self.history, self.dispatcher)
        context = HotStreamContext(
            self._router,
            self.event_source,
            self.requests,
            self.dispatcher,
            timers,
            timeout=timeout,
            silence=silence,
            on_reply=self._follow_starts,
        )
        self.monitors = Monitors(context, self.history, shares_events=self._shares_events, settings=settings)
        self.recurring = RecurringSnapshots(context, snapshot_wait)
        self._connection_log = ConnectionLog(
            _log, timers, lambda: {"unsent_commands": self.sender.unsent}, lambda: f"pending={len(self._pending)}"
        )
        self._transports.on_status(self._on_status)

    def close(self, timeout: float) -> None:
        """Completes the hot streams, fails pending requests, disconnects and ends the threads. Must be called once.

        Args:
            timeout: Maximum seconds to take.
        """
        deadline = time.monotonic() + timeout
        self._connection_log.close()
        if self._shares_events:
            self.event_source.close(timeout)  # before the routes: events that find none would be lost to the group
        self.monitors.close()
        self.recurring.close()
        self.history.stop()
        self._pending.close(closed_before_reply(), closed_before_sending())
        self.status.close()
        self.event_source.close(time_left(deadline))
        self.dispatcher.close(time_left(deadline))
        self._transports.close(deadline)
        self.history.close(time_left(deadline))  # last: its threads take a second while the broker is away
        self._own_timers.dispose()

    def _on_status(self, status: TransportStatus) -> None:
        self._connection_log.on_status(status)
        self.status.update(status)
        self.sender.refuse(TransportError(status.reason) if status.refused else None)

    def _follow_starts(self, reply: Reply) -> None:
        """Reads the topic of the starts of gateways, if the reply to an activation tells that there is one.

        The deployed gateway has none. It is not read before: looking for it would create load on the broker.
        """
        if isinstance(reply.body.get("gateway_topic"), str):
            self._transports.read_beside_replies(gateway_topic(self._command_topic))

    def _on_gateway_start(self) -> None:
        self.monitors.gateway_started()
        self.recurring.gateway_started()

    def _measure(self, transport: TransportStatus) -> Status:
        silent_since = self._watch.silent_since()
        return Status(
            transport.connection,
            reason=transport.reason or ("" if silent_since is None else self._watch.reason(silent_since)),
            silent_since=silent_since,
            lag=self.event_source.lag(),
            dropped=self.dispatcher.dropped,
            decode_errors=self._decode_errors.counts(),
            snapshot_drops=self.recurring.drops(),
            monitors=len(self.monitors),
            disconnected=tuple(self.monitors.disconnected()),
            unconfirmed=self.monitors.unconfirmed() + self.recurring.unconfirmed(),
            pending=len(self._pending) + self.puts.order.waiting,
            lost=self._losses.counts(),
            loss_reasons=self._losses.reasons(),
            repeated=self._router.repeated(),
            superseded=self._router.superseded(),
        )

    def _has_room(self) -> bool:
        """Returns whether subscribers can take another batch of events; called on the event poll thread."""
        return self.dispatcher.gate.is_open()

    def _wake(self) -> None:
        self.event_source.wake()

    def _decode(self, item: object) -> None:
        """Decodes an update on the subscriber's thread, so that dropped updates are never decoded."""
        if isinstance(item, PVUpdate):
            try:
                item.load()
            except WireError as error:
                self.monitors.check_decode_error(item.address, error)
                raise
