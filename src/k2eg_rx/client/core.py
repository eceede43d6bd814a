"""What a client is made of, put together: the way to Kafka, the routes, the requests, the hot streams, the hand-over.

In: an environment and a transport. Out: the parts, which the client's methods call. It starts the threads of the
transport and one for timers; `close` ends them all. Nothing changes between the two, so any thread may use it.
"""

from __future__ import annotations

import time

from reactivex import abc

from k2eg_rx.client.batches import Batches
from k2eg_rx.client.correlation import CommandSender, PendingRequests
from k2eg_rx.client.get_put import Puts
from k2eg_rx.client.hot_streams import HotStreamContext
from k2eg_rx.client.monitors import Monitors
from k2eg_rx.client.requests import Requests, closed_before_reply
from k2eg_rx.client.router import EventRouter
from k2eg_rx.client.snapshots import RecurringSnapshots
from k2eg_rx.client.status import Status, StatusBoard
from k2eg_rx.concurrency import RequestPriority, Runtime, TimerScheduler
from k2eg_rx.delivery import Dispatcher
from k2eg_rx.errors import TransportError
from k2eg_rx.history import Past, Replays
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.settings import Settings
from k2eg_rx.transport import (
    ClientTransports,
    DecodeErrorCounter,
    Receiver,
    SizeFilter,
    Transport,
    TransportStatus,
    time_left,
)


class Core:
    """The parts of one client.

    Attributes:
        delivery: Hands over to subscribers.
        status: How the client is doing.
        sender: Sends commands.
        requests: Commands and their replies.
        puts: Checked puts.
        batches: Many of either at once.
        monitors: The monitored PVs.
        past: What reads the past.
        replays: The past of PVs, played.
        recurring: The recurring snapshots.
        event_source: Reads the topics of the last two.

    Args:
        settings: The environment.
        transport: The transport; None: the runtime's.
        app_name: The application.
        group_name: The group that shares the events, if any.
        timeout: Seconds that activations may take.
        silence: Seconds without an event after which a monitor or a recurring snapshot is asked for again.
        runtime: Scheduler, executor and transport.
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
        runtime: Runtime,
    ) -> None:
        self._settings = settings
        self._shares_events = group_name is not None
        self._discards = DecodeErrorCounter()
        self._own_timers = TimerScheduler()  # without a thread until it is used
        self._timers: abc.SchedulerBase = runtime.scheduler if runtime.is_virtual else self._own_timers
        courtesy = RequestPriority()
        self.delivery = Dispatcher(
            _decode,
            self._discards.add,
            self._wake,
            runtime.executor(),
            yield_to_requests=courtesy.yield_to_requests,
        )
        self.status = StatusBoard(self._measure, self._timers)
        self._pending = PendingRequests(self._discards, courtesy.note)
        self._events = EventRouter(
            self._discards, self._is_welcome, self.delivery.gather_work, courtesy.is_due, settings.max_message_bytes
        )
        self._session = ClientTransports(
            transport or (runtime.transport or KafkaTransport)(settings),
            settings,
            app_name,
            group_name,
            events=self._guarded(self._events),
            replies=self._guarded(self._pending),
        )
        self.event_source = self._session.event_source
        self.sender = CommandSender(
            self._pending,
            self._session.sink,
            command_topic=settings.command_topic,
            reply_topic=settings.reply_topic,
            ready=self._session.ready,
        )
        self.requests = Requests(self.sender, self._timers)
        self.puts = Puts(self.requests)
        self.past = Past(
            self._session.history,
            self._discards,
            limit=settings.max_message_bytes,
            timeout=timeout,
            scheduler=runtime.scheduler if runtime.is_virtual else None,
        )
        self.replays = Replays(self.past, self.delivery)
        self.batches = Batches(self.sender, self.puts, self.delivery, timers=self._timers)
        context = HotStreamContext(
            self._events, self.event_source, self.requests, self.delivery, self._timers, timeout, silence
        )
        self.monitors = Monitors(context, self.past, shares_events=self._shares_events)
        self.recurring = RecurringSnapshots(context)
        self._session.on_status(self._on_status)

    def close(self, timeout: float) -> None:
        """Completes the hot streams, fails what is pending, leaves Kafka and ends the threads. To be called once.

        Args:
            timeout: Seconds that it may take at most.
        """
        deadline = time.monotonic() + timeout
        if self._shares_events:
            self.event_source.close(timeout)  # while there are routes: what this member receives, no other one will
        self.monitors.close()
        self.recurring.close()
        self.past.stop()
        self._pending.close(closed_before_reply())
        self.status.close()
        self.event_source.close(time_left(deadline))
        self.delivery.close(time_left(deadline))
        self._session.close(deadline)
        self.past.close(time_left(deadline))  # last: a broker that is away keeps its threads for a second
        self._own_timers.dispose()

    def _guarded(self, receiver: Receiver) -> Receiver:
        return SizeFilter(receiver, self._settings.max_message_bytes, self._discards)

    def _on_status(self, status: TransportStatus) -> None:
        self.status.update(status)
        self.sender.refuse(TransportError(status.reason) if status.refused else None)

    def _measure(self, transport: TransportStatus) -> Status:
        return Status(
            connection=transport.connection,
            reason=transport.reason,
            lag=self.event_source.lag(),
            dropped=self.delivery.dropped,
            discarded=self._discards.total,
            monitors=len(self.monitors),
            pending=len(self._pending),
        )

    def _is_welcome(self) -> bool:
        """Whether another batch of events is; asked on the event pump."""
        return self.delivery.valve.is_open()

    def _wake(self) -> None:
        self.event_source.wake()


def _decode(item: object) -> None:
    """Decodes an update on the subscriber's thread; what was dropped before never is."""
    if isinstance(item, PVUpdate):
        item.load()
