"""A K2EG gateway: commands in, replies and events out.

In: records of the command topic, and EPICS through providers. Out: records to Kafka. Everything between belongs to one
thread, `k2eg-gateway`; the threads of EPICS, of the pump and of the sink only hand over.

    commands -> answer_each(answer) -> outlet

Each command is answered by an Observable: a get's has one record, a monitor's the reply and then events for as long as
it lives. They are merged, and the merged stream has one subscriber, which is the way to Kafka.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import reactivex
from reactivex import Observable, abc

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.dispatch import answer_each
from k2eg_rx.gateway.commands.get_put import Operations
from k2eg_rx.gateway.commands.messages import Outgoing, reply
from k2eg_rx.gateway.commands.monitors import Monitors
from k2eg_rx.gateway.commands.one_shot_snapshots import Snapshots
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.commands.recurring_snapshots import RecurringSnapshots
from k2eg_rx.gateway.commands.requests import CommandRequest, refused
from k2eg_rx.gateway.commands.source import CommandSource
from k2eg_rx.gateway.commands.topics import TopicAdmin, Topics
from k2eg_rx.gateway.commands.update_queue import UpdateQueue
from k2eg_rx.gateway.epics.provider import Provider
from k2eg_rx.gateway.runtime.context import Context
from k2eg_rx.gateway.runtime.event_loop import EventLoop, post
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.protocol import (
    PARSE_ERROR_KEY,
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
from k2eg_rx.transport import Record, RecordSource, Transport, TransportStatus

_log = logging.getLogger(__name__)

_MAX_CENSUS = 60.0  # seconds between two looks at who listens, at most
_WAIT_FOR_OPERATIONS = 1.0  # seconds that a stopping gateway gives to gets and puts under way


class CommandHandler:
    """What a gateway does, without its ways to Kafka and without threads: commands in, `Outgoing` records out.

    Args:
        providers: EPICS, by protocol.
        context: The gateway's thread, options and numbers.
        admin: Kafka's administration; None where there is none to be used.
        relieved: Called when a get or a put has ended.
    """

    def __init__(
        self,
        providers: Mapping[Protocol, Provider],
        context: Context,
        admin: TopicAdmin | None = None,
        relieved: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._unanswerable: set[str] = set()
        self.topics = Topics(admin, context.scheduler, create=context.options.create_topics)
        self.channels = Channels(providers, UpdateQueue(context), context.counters)
        self.operations = Operations(providers, context, relieved)
        self.monitors = Monitors(self.channels, self.topics, context.counters)
        self.snapshots = Snapshots(self.channels, context)
        self.recurring = RecurringSnapshots(self.channels, self.topics, context)
        self._handlers: Mapping[type, Callable[[CommandRequest[Any]], Observable[Outgoing]]] = {
            GetCommand: self.operations.get,
            PutCommand: self.operations.put,
            MonitorCommand: self.monitors.monitor,
            MultiMonitorCommand: self.monitors.multi_monitor,
            SnapshotCommand: self.snapshots.snapshot,
            RepeatingSnapshotCommand: self.recurring.start,
            RepeatingSnapshotTriggerCommand: self.recurring.trigger,
            RepeatingSnapshotStopCommand: self.recurring.stop,
        }

    def answer(self, record: Record) -> Observable[Outgoing]:
        """Returns what is said to a record of the command topic."""
        counters = self._context.counters
        counters.commands += 1
        parsed = self._parse(record)
        if isinstance(parsed, Unanswerable):
            counters.poison += 1
            if parsed.reason not in self._unanswerable:
                self._unanswerable.add(parsed.reason)
                _log.warning("a command is %s: nobody can be told; more of the kind are only counted", parsed.reason)
            return reactivex.empty()
        if isinstance(parsed, Refusal):
            return refused(counters, parsed.reply_to, parsed.key, parsed.error, parsed.message)
        order = CommandRequest(parsed.command, parsed.reply_to, record.timestamp_ms)
        return self._handlers[type(parsed.command)](order)

    def _parse(self, record: Record) -> Parsed:
        if len(record.value or b"") > self._context.options.max_command_bytes:
            return Unanswerable("too large")
        return parse_command(record.value)

    def topic_missing(self, topic: str) -> None:
        """Has a topic made once more that Kafka does not know any more, and its PVs' present values sent to it."""
        self.topics.missing(topic, lambda: self.monitors.restore(topic))

    def failed(self, record: Record, error: Exception, emit: Callable[[Outgoing], None]) -> None:
        """Accounts for an answer that failed by no fault of the command's, and tells who asked if that is possible."""
        _log.error("a command could not be carried out", exc_info=error)
        self._context.counters.failures += 1
        parsed = self._parse(record)
        if not isinstance(parsed, Unanswerable) and parsed.reply_to.complete:
            emit(reply(parsed.reply_to, PARSE_ERROR_KEY, -2, f"the gateway failed: {type(error).__name__}: {error}"))


class Gateway:
    """A running gateway; a context manager.

    Args:
        transport: The way to Kafka. It is the caller's to close.
        providers: EPICS, by protocol. They are the caller's to close.
        options: How it behaves.
        command_topic: Where its commands come from.
        admin: Kafka's administration, for topics; the gateway closes it.
    """

    def __init__(
        self,
        transport: Transport,
        providers: Mapping[Protocol, Provider],
        options: GatewayOptions,
        command_topic: str,
        admin: TopicAdmin | None = None,
    ) -> None:
        self.counters = Metrics()
        self._options = options
        self._transport = transport
        self._command_topic = command_topic
        self._owner = EventLoop(self._count_failure)
        context = Context(self._owner, self.counters, options)
        self._intake = CommandSource(self._owner, self._room)
        self._answers = CommandHandler(providers, context, admin, self._intake.relieved)
        self._outlet = Publisher(transport.sink(), context, self._answers.topic_missing)
        self._source: RecordSource | None = None
        self._subscription: abc.DisposableBase | None = None
        self._lifetime = threading.Lock()
        self._closed = False

    def _count_failure(self) -> None:
        self.counters.failures += 1

    def _room(self) -> int:
        return self._options.max_pending - self._answers.operations.pending

    def start(self, timeout: float = 30.0) -> None:
        """Begins; when it returns, every command that is sent from then on is carried out.

        Raises:
            TransportError: Kafka cannot be reached, or the command topic not be read, within `timeout` seconds.
        """
        emit = self._outlet.send
        answers = answer_each(self._answers.answer, lambda record, error: self._answers.failed(record, error, emit))
        self._subscription = self._intake.commands().pipe(answers).subscribe(emit)
        started: Future[None] = Future()
        self._transport.on_status(lambda status: _heed(status, started))
        self._source = self._transport.events(self._intake, self._options.group)
        self._intake.wake = self._source.wake
        _follow(self._source.read(self._command_topic), started)
        try:
            started.result(timeout)
        except TimeoutError:
            raise TransportError(f"the command topic {self._command_topic!r} cannot be read: no answer") from None
        if self._options.monitor_expiration:
            period = min(_MAX_CENSUS, self._options.monitor_expiration / 4)
            self._owner.schedule_periodic(period, self._look_who_listens)
        _log.info("the gateway takes commands from %s", self._command_topic)

    def _look_who_listens(self, _state: object = None) -> None:
        monitors = self._answers.monitors
        if len(monitors):
            expiration = self._options.monitor_expiration
            self._answers.topics.listeners(lambda heard: monitors.heard(heard, self._owner.now, expiration))

    def close(self, timeout: float = 5.0) -> None:
        """Ends it: no further commands, what is under way gets a moment and then a negative reply. Idempotent."""
        with self._lifetime:
            if self._closed:
                return
            self._closed = True
        if self._source is not None:
            self._source.close(timeout / 4)
        self._drain(min(_WAIT_FOR_OPERATIONS, timeout / 4))
        self._on_owner(self._stop, timeout / 4)
        self._outlet.close(timeout / 4)
        self._answers.topics.close(0.0)
        self._owner.close(timeout / 4)

    def _drain(self, timeout: float) -> None:
        """Waits until no get or put is under way."""
        idle = threading.Event()

        def look(_state: object = None) -> None:
            if not self._answers.operations.pending:
                idle.set()

        look()
        if not idle.is_set():
            looking = self._owner.schedule_periodic(0.01, look)
            idle.wait(timeout)
            looking.dispose()

    def _stop(self) -> None:
        self._answers.operations.abandon()
        if self._subscription is not None:
            self._subscription.dispose()

    def _on_owner(self, action: Callable[[], None], timeout: float) -> None:
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        post(self._owner, act)
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


def _heed(status: TransportStatus, started: Future[None]) -> None:
    """Logs a state; one in which there is no use in waiting ends the start."""
    level = logging.WARNING if status.reason else logging.INFO
    _log.log(level, "Kafka is %s%s", status.connection.value, f": {status.reason}" if status.reason else "")
    if status.refused:
        with suppress(InvalidStateError):
            started.set_exception(TransportError(status.reason))


def _follow(source: Future[None], target: Future[None]) -> None:
    """Has a future be done as another one is, unless it is done before."""

    def settle(done: Future[None]) -> None:
        with suppress(InvalidStateError):
            error = done.exception()
            target.set_result(None) if error is None else target.set_exception(error)

    source.add_done_callback(settle)
