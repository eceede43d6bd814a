"""The gateway: carries out commands from Kafka on EPICS and publishes replies and events.

    records -> CommandSource -> CommandHandler -> one stream per command -> Publisher

Each command is answered by an Observable: that of a get emits one record, that of a monitor the reply and then events
for as long as the monitor is active. `handle_each` merges these streams; the merged stream feeds the `Publisher`.

Thread safety: all state belongs to the event loop thread, `k2eg-gateway`. EPICS threads, the poll thread and the
producer's thread only enqueue.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from datetime import timedelta
from typing import Any

import reactivex
from reactivex import Observable, abc

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.access_rules import AccessRules
from k2eg_rx.gateway.commands.audit import Audit
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.dispatch import handle_each
from k2eg_rx.gateway.commands.get_put import GetPutHandler
from k2eg_rx.gateway.commands.limits import Usage
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.monitors import Monitors
from k2eg_rx.gateway.commands.one_shot_snapshots import OneShotSnapshots
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.commands.recurring_snapshots import RecurringSnapshots
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.commands.source import CommandSource, ReceivedCommand
from k2eg_rx.gateway.commands.starts import StartPublisher
from k2eg_rx.gateway.commands.status import StatusHandler
from k2eg_rx.gateway.commands.topic_rules import TopicRules
from k2eg_rx.gateway.commands.topics import TopicAdmin, Topics
from k2eg_rx.gateway.commands.update_queue import UpdateQueue
from k2eg_rx.gateway.epics.provider import Provider, problem_of
from k2eg_rx.gateway.fleet.fleet import Fleet
from k2eg_rx.gateway.fleet.handlers import FleetHandlers
from k2eg_rx.gateway.fleet.state_log import KafkaStateLog
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import EventLoop, call_soon
from k2eg_rx.gateway.runtime.metrics import UNREADABLE, GatewayState, Metrics, RateLimitedWarning, Result
from k2eg_rx.gateway.runtime.options import ANONYMOUS, GatewayOptions
from k2eg_rx.protocol import (
    PARSE_ERROR_KEY,
    GatewayStatusCommand,
    GetCommand,
    MonitorCommand,
    MultiMonitorCommand,
    Parsed,
    PutCommand,
    Refusal,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    SnapshotCommand,
    Unanswerable,
    parse_command,
)
from k2eg_rx.pv import Protocol
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import ConnectionLog, ConnectionState, Record, RecordSource, Transport, TransportStatus

_log = get_logger(__name__)

_MAX_LISTENER_CHECK_PERIOD = 60.0  # seconds
# Commands that may wait between the poll thread and the event loop. Gets and puts that wait for EPICS do not count: the
# commands of other applications are behind them in the same topic.
_MAX_UNHANDLED = 10_000
# Seconds that a message of a recurring snapshot may wait for others. Without, librdkafka spins while requests of a few
# messages are in flight, for a third of the gateway's processor time. Replies and events of monitors do not wait.
_SNAPSHOT_LINGER = 0.005
# Between readings of the updates from EPICS. Each one wakes the event loop, which then competes with the EPICS threads
# for Python's interpreter lock; at 14,000 updates a second, a wake for each took a sixth of the processor time. An
# update that comes later than this after the last reading is read at once.
_UPDATE_PACE = timedelta(milliseconds=2)
_STOP_CHECK = 0.5  # seconds between checks whether a start is to be given up
_HEARTBEAT = 1.0  # seconds between the event loop's signs of life
_DRAIN_TIMEOUT = 1.0  # seconds that closing waits for running gets and puts


class CommandHandler:
    """Turns each command into a stream of `OutgoingRecord`s, without Kafka and without threads of its own.

    Thread safety: methods are called on the event loop thread.

    Args:
        providers: The EPICS clients, by protocol.
        context: Scheduler, metrics, options and clock.
        admin: Creates Kafka topics and counts their listeners; None where neither is possible.
        capacity_available: Called when a get or a put has ended.
        confirm: Confirms open claims; calls its argument on the event loop thread after the attempt.
    """

    def __init__(
        self,
        providers: Mapping[Protocol, Provider],
        context: GatewayContext,
        admin: TopicAdmin | None = None,
        capacity_available: Callable[[], None] = lambda: None,
        confirm: Callable[[Callable[[], None]], None] = lambda done: done(),
    ) -> None:
        self._context = context
        self._logged_reasons: set[str] = set()
        self._refused_replies = RateLimitedWarning(_log, "{} commands dropped: their reply topics are refused")
        self.access = AccessRules(context)
        providers = self.access.applied_to(providers)
        self.topics = Topics(admin, context.scheduler, create=context.options.create_topics)
        self.channels = Channels(providers, UpdateQueue(context), context)
        self.get_put = GetPutHandler(providers, context, capacity_available, confirm)
        usage, self.rules = Usage(context.options), TopicRules(context)
        self.monitors = Monitors(self.channels, self.topics, context, usage, self.rules)
        self.snapshots = OneShotSnapshots(self.channels, context, usage)
        self.recurring = RecurringSnapshots(self.channels, self.topics, context, usage, self.rules)
        self.status = StatusHandler(self.monitors, context)
        self._handlers: dict[type, Callable[[CommandRequest[Any]], Observable[OutgoingRecord]]] = {
            GetCommand: self.get_put.get,
            PutCommand: self.get_put.put,
            MonitorCommand: self.monitors.monitor,
            MultiMonitorCommand: self.monitors.monitor,
            SnapshotCommand: self.snapshots.snapshot,
            RepeatingSnapshotCommand: self.recurring.start,
            RepeatingSnapshotTriggerCommand: self.recurring.trigger,
            RepeatingSnapshotStopCommand: self.recurring.stop,
            GatewayStatusCommand: self.status.status,
        }

    def share(self, handlers: FleetHandlers) -> None:
        """Handles the commands of monitors and recurring snapshots for a fleet of gateways from now on."""
        self._handlers |= {
            MonitorCommand: handlers.monitor,
            MultiMonitorCommand: handlers.monitor,
            RepeatingSnapshotCommand: handlers.start,
            RepeatingSnapshotTriggerCommand: handlers.trigger,
            RepeatingSnapshotStopCommand: handlers.stop,
            GatewayStatusCommand: handlers.status,
        }

    def handle(self, received: ReceivedCommand) -> Observable[OutgoingRecord]:
        """Returns the replies and events for a command."""
        record = received.record
        metrics = self._context.metrics
        metrics.commands += 1
        parsed = self._parse(record)
        if not isinstance(parsed, Unanswerable) and parsed.reply_to.topic:
            refusal = self.rules.reply_topic(parsed.reply_to.topic)
            if refusal:
                self._refused_replies.count(refusal)
                parsed = Unanswerable("reply topic refused")
        metrics.count_received(UNREADABLE if isinstance(parsed, Unanswerable) else parsed.reply_to.command)
        if isinstance(parsed, Unanswerable):
            metrics.poison += 1
            if parsed.reason not in self._logged_reasons:
                self._logged_reasons.add(parsed.reason)
                _log.warning("command dropped, no reply possible: reason=%s (further ones count only)", parsed.reason)
            return reactivex.empty()
        if isinstance(parsed, Refusal):
            return refusal_stream(metrics, parsed.reply_to, parsed.key, parsed.error, parsed.message)
        principal = self._context.options.principals.get(record.topic, ANONYMOUS)
        request = CommandRequest(
            parsed.command, parsed.reply_to, received.claim, received.written, principal, record.topic
        )
        return self.access.admit(request, self._handlers[type(parsed.command)])

    def _parse(self, record: Record) -> Parsed:
        if len(record.value or b"") > self._context.options.max_command_bytes:
            return Unanswerable("too large")
        return parse_command(record.value)

    def topic_missing(self, topic: str) -> None:
        """Recreates a topic that no longer exists, and publishes the current values of its PVs to it."""
        self.topics.recreate(topic, lambda: self.monitors.republish(topic))

    def expire(self, listeners: Mapping[str, int] | None) -> None:
        """Ends monitors and recurring snapshots whose topics have had no consumers for `monitor_expiration`.

        Args:
            listeners: The number of consumers per topic; None if unknown, which ends nothing.
        """
        now, expiration = self._context.scheduler.now, self._context.options.monitor_expiration
        self.monitors.expire(listeners, now, expiration)
        self.recurring.expire(listeners, now, expiration)

    def on_failure(self, received: ReceivedCommand, error: Exception, emit: Callable[[OutgoingRecord], None]) -> None:
        """Logs and counts an unexpected exception, and emits a negative reply if the command allows one."""
        _log.error("command failed", exc_info=error)
        self._context.metrics.failures += 1
        parsed = self._parse(received.record)
        if isinstance(parsed, Unanswerable):
            return
        self._context.metrics.count_result(parsed.reply_to.command, Result.FAILED)
        if parsed.reply_to.complete:
            emit(reply(parsed.reply_to, PARSE_ERROR_KEY, -2, f"the gateway failed: {type(error).__name__}: {error}"))


class Gateway:
    """A running gateway; a context manager.

    Thread safety: `start` and `close` may be called on any thread but the gateway's own.

    Args:
        transport: The connection to Kafka. The caller closes it.
        providers: The EPICS clients, by protocol. The caller closes them.
        options: Timeouts, limits and the consumer group.
        command_topic: The topic that commands are read from.
        admin: Creates Kafka topics and counts their listeners. The gateway closes it.
        state_log: What this gateway shares with others of its group, and remembers. The gateway closes it. None: it is
            alone, and forgets what it publishes when it ends.

    Raises:
        ValueError: A file that the options name cannot be used.

    Attributes:
        metrics: Counts of commands, records, losses and failures.
        options: See above.
    """

    def __init__(
        self,
        transport: Transport,
        providers: Mapping[Protocol, Provider],
        options: GatewayOptions,
        command_topic: str,
        admin: TopicAdmin | None = None,
        *,
        state_log: KafkaStateLog | None = None,
    ) -> None:
        self.metrics = Metrics()
        self.options = options
        self._providers = providers
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._heartbeat = time.monotonic()
        self._transport = transport
        self._loop = EventLoop(self._count_failure)
        context = GatewayContext(
            self._loop, self.metrics, options, command_topic=command_topic, update_pace=_UPDATE_PACE
        )
        self._commands = CommandSource(self._loop, self._capacity, context.clock)
        try:
            self._handler = CommandHandler(
                providers, context, admin, self._commands.capacity_available, self._commands.confirm
            )
        except ValueError:  # its files cannot be used
            self._loop.close(0.0)
            raise
        self._handler.status.state = self.state
        self._commands.on_claims_ended = self._handler.get_put.end_revoked
        self._publisher = Publisher(
            transport.sink(),
            context,
            self._handler.topic_missing,
            self._handler.monitors.republish,
            lambda: transport.sink(linger=_SNAPSHOT_LINGER),
        )
        self._handler.monitors.purge.unsettled = self._publisher.unsettled
        self._fleet = None
        if state_log is not None:
            self._fleet = Fleet(state_log, transport, self._handler, self._publisher, context)
        self._topics = context.command_topics
        self._starts = [StartPublisher(transport.sink, self._handler.topics, context, topic) for topic in self._topics]
        if options.audit_topic:
            self._handler.get_put.audit = Audit(transport.sink(), context)
        self._connection_log = ConnectionLog(_log, self._loop, self.metrics.losses)
        self._source: RecordSource | None = None
        self._subscription: abc.DisposableBase | None = None
        self._close_lock = threading.Lock()
        self._closed = False

    def _count_failure(self) -> None:
        self.metrics.failures += 1

    def _capacity(self) -> int:
        return _MAX_UNHANDLED

    def start(self, timeout: float | None = 30.0, stop: threading.Event | None = None) -> None:
        """Starts reading commands. Every command that is sent after this method returns is carried out.

        Args:
            timeout: Seconds to wait for Kafka; None: without limit.
            stop: Setting this event ends the wait.

        Raises:
            TransportError: Kafka refuses the connection, or the command topic cannot be read within `timeout`.
        """
        emit = self._publisher.send
        handler = self._handler
        handled = handle_each(handler.handle, lambda received, error: handler.on_failure(received, error, emit))
        self._subscription = self._commands.commands().pipe(handled).subscribe(emit)
        started: Future[None] = Future()
        self._loop.schedule_periodic(_HEARTBEAT, self._beat)
        call_soon(self._loop, handler.status.start)
        self._transport.on_status(self._connection_log.on_status)
        self._transport.on_status(self._set_status)
        self._transport.on_status(lambda status: _fail_if_refused(status, started))
        self._source = self._transport.events(self._commands, self.options.group)
        self._commands.attach(self._source)
        self._read_commands(self._source, started)
        self._await_start(started, timeout, stop or threading.Event())
        if self.options.monitor_expiration:
            period = min(_MAX_LISTENER_CHECK_PERIOD, self.options.monitor_expiration / 4)
            self._loop.schedule_periodic(period, self._look_for_consumers)
        for start in self._starts:
            call_soon(self._loop, start.publish)
        _log.info("gateway started: command_topic=%s group=%s", ",".join(self._topics), self.options.group)

    def _read_commands(self, source: RecordSource, started: Future[None]) -> None:
        """Reads commands; with a fleet, once it is known what that publishes, or that it cannot be known."""
        fleet = self._fleet

        def read(known: Future[None]) -> None:
            if fleet is not None and known.exception() is None:
                self._handler.share(fleet.handlers)
                self._publisher.in_session = fleet.may_publish
            _chain_futures([source.read(topic) for topic in self._topics], started)

        if fleet is None:
            _chain_futures([source.read(topic) for topic in self._topics], started)
        else:
            fleet.log.started.add_done_callback(read)
            fleet.start()

    def _beat(self, _state: object = None) -> None:
        self._heartbeat = time.monotonic()
        self._handler.channels.queue.check()

    def _set_status(self, status: TransportStatus) -> None:
        self._status = status

    def state(self) -> GatewayState:
        """Returns the gateway's present state, without waiting for its thread. Any thread."""
        assignment = None if self._source is None else self._source.assignment()
        handler, publisher, updates = self._handler, self._publisher, self._handler.channels.queue
        return GatewayState(
            self._status.connection,
            self._status.reason,
            partitions=None if assignment is None else assignment.partitions,
            rebalances=0 if assignment is None else assignment.number,
            heartbeat_age=time.monotonic() - self._heartbeat,
            providers={name: problem_of(provider) for name, provider in self._providers.items()},
            monitors=len(handler.monitors),
            snapshots=len(handler.recurring),
            operations=handler.get_put.pending,
            updates_waiting=updates.waiting,
            update_bytes=updates.waiting_bytes,
            records_waiting=publisher.waiting,
            record_bytes=publisher.waiting_bytes,
            records_in_flight=publisher.in_flight,
            fleet=None if self._fleet is None else self._fleet.state(),
        )

    def _await_start(self, started: Future[None], timeout: float | None, stop: threading.Event) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not started.done() and not stop.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                started.exception(min(_STOP_CHECK, deadline - time.monotonic()))
        if started.done():
            started.result()
        elif stop.is_set():
            raise TransportError("stopped while waiting for Kafka")
        else:
            topics = ", ".join(map(repr, self._topics))
            raise TransportError(f"the command topic {topics} must be readable within {timeout:g} s, got no answer")

    def run_soon(self, action: Callable[[], None]) -> None:
        """Calls a function on the gateway's event loop thread, which shows that it is not stuck. Any thread."""
        call_soon(self._loop, action)

    def _look_for_consumers(self, _state: object = None) -> None:
        handler = self._handler
        if len(handler.monitors) or len(handler.recurring) or len(handler.monitors.purge):
            handler.topics.listeners(handler.expire)

    def close(self, timeout: float = 5.0) -> None:
        """Stops reading commands, waits up to 1 s for running gets and puts, and fails the rest. Idempotent.

        Args:
            timeout: Seconds that publishing the rest may take, and that all else may take in total; apart from some
                that other gateways of the group take to go on with what this one has published.
        """
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._connection_log.close()
        if self._source is not None:
            self._source.close(timeout / 4)
        if self._fleet is not None:
            self._fleet.leave()
        self._drain(min(_DRAIN_TIMEOUT, timeout / 4))
        self._run_on_loop(self._stop, timeout / 4)
        for start in self._starts:
            start.close()
        self._publisher.close(timeout)
        if self._handler.get_put.audit is not None:
            self._handler.get_put.audit.close(timeout / 4)
        if self._fleet is not None:
            self._fleet.close(timeout / 4)
        self._handler.topics.close(0.0)
        self._loop.close(timeout / 4)

    def _drain(self, timeout: float) -> None:
        """Waits until no get or put is running."""
        idle = threading.Event()

        def check(_state: object = None) -> None:
            if not self._handler.get_put.pending:
                idle.set()

        check()
        if not idle.is_set():
            checking = self._loop.schedule_periodic(0.01, check)
            idle.wait(timeout)
            checking.dispose()

    def _stop(self) -> None:
        self._handler.get_put.abandon()
        if self._subscription is not None:
            self._subscription.dispose()
        self._publisher.stop()

    def _run_on_loop(self, action: Callable[[], None], timeout: float) -> None:
        done = threading.Event()

        def run() -> None:
            try:
                action()
            finally:
                done.set()

        call_soon(self._loop, run)
        done.wait(timeout)

    def __enter__(self) -> Gateway:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _fail_if_refused(status: TransportStatus, started: Future[None]) -> None:
    """Fails the start at once if the broker refuses the connection."""
    if status.refused:
        with suppress(InvalidStateError):
            started.set_exception(TransportError(status.reason))


def _chain_futures(sources: Sequence[Future[None]], target: Future[None]) -> None:
    """Completes `target` when all sources have completed, or one has failed, unless it is done already."""
    missing, lock = len(sources), threading.Lock()

    def complete(done: Future[None]) -> None:
        nonlocal missing
        error = done.exception()
        with lock:
            missing -= 1
            is_last = missing == 0
        with suppress(InvalidStateError):
            if error is not None:
                target.set_exception(error)
            elif is_last:
                target.set_result(None)

    for source in sources:
        source.add_done_callback(complete)
