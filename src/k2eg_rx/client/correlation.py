"""Sends commands and matches the reply topic's records with them by reply id.

Thread safety: commands are sent on any thread. Replies arrive on the reply poll thread, delivery failures on the sink's
thread, refusals on the transport's status thread.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from reactivex.subject import BehaviorSubject

from k2eg_rx.client.put_progress import PutProgress
from k2eg_rx.errors import K2EGError, TransportError, WireError
from k2eg_rx.protocol import (
    START_KEY,
    Command,
    PutCommand,
    Reply,
    command_key,
    decode_reply,
    encode_command,
    is_answered_at_once,
)
from k2eg_rx.transport import DecodeErrorCounter, Receiver, Record, RecordSink, UnconfirmedError


def new_reply_id() -> str:
    """Returns a unique reply id: as random as a UUID, in a fifth of the time."""
    return os.urandom(16).hex()


def _error_of(done: Future[None]) -> Exception | None:
    error = None if done.cancelled() else done.exception()
    return error if isinstance(error, Exception) else None


def when_done(futures: Sequence[Future[None]], action: Callable[[Exception | None], None]) -> None:
    """Calls the action once when all futures are done, with the first error or None, on the last one's thread."""

    def finish() -> None:
        action(next(filter(None, map(_error_of, futures)), None))

    if all(future.done() for future in futures):
        finish()
        return
    lock = threading.Lock()
    left = len(futures)

    def done(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            finish()

    for future in futures:
        future.add_done_callback(done)


class ReplyHandler(Protocol):
    """Handles the replies to one or more commands, on threads of the library; must neither raise nor block.

    `handle` is called on one thread; `fail` and `on_progress` may be called at the same time on other ones.
    """

    def handle(self, replies: Sequence[Reply]) -> None:
        """Handles replies in order. Their ids stay registered; some may have been unregistered a moment ago."""
        ...

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:
        """Handles the error of requests that will get no reply; their ids have been unregistered."""
        ...

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:
        """Records how far a put has come. What is unregistered before it is ``SENT`` is not sent."""
        ...


class PendingRequests(Receiver):
    """The reply handlers by reply id; receives the reply topic's records.

    Thread safety: each access to the dict is one atomic operation. Each id is removed once, so that of several threads
    that end a request at the same time one succeeds.

    Args:
        decode_errors: Counts undecodable records.
        on_traffic: Called when requests are registered and when replies arrive.
        on_reply: Called when replies to this client's commands have arrived; must not block.
        on_start: Called when a gateway has started; must not block.
    """

    def __init__(
        self,
        decode_errors: DecodeErrorCounter,
        on_traffic: Callable[[], None] = lambda: None,
        *,
        on_reply: Callable[[], None] = lambda: None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._decode_errors = decode_errors
        self._on_traffic = on_traffic
        self._on_reply = on_reply
        self._on_start = on_start
        self._handlers: dict[str, ReplyHandler] = {}
        self._closed: K2EGError | None = None
        self.has_received = False  # a reply, of whichever request

    def register(self, reply_ids: Iterable[str], handler: ReplyHandler) -> None:
        """Registers new ids; after `close` they fail at once."""
        self._on_traffic()
        handlers = dict.fromkeys(reply_ids, handler)
        self._handlers.update(handlers)
        if self._closed is not None:
            self.fail(handlers, self._closed)

    def unregister(self, reply_ids: Iterable[str]) -> list[str]:
        """Removes ids; returns those that were registered. Idempotent."""
        return [reply_id for reply_id in reply_ids if self._handlers.pop(reply_id, None) is not None]

    def fail(self, reply_ids: Iterable[str], error: Exception) -> None:
        """Removes ids; passes the error to the handlers of those that were registered."""
        failed: dict[ReplyHandler, list[str]] = {}
        for reply_id in reply_ids:
            handler = self._handlers.pop(reply_id, None)
            if handler is not None:
                failed.setdefault(handler, []).append(reply_id)
        for handler, ids in failed.items():
            handler.fail(ids, error)

    def fail_all(self, error: Exception) -> None:
        """Fails all pending requests."""
        self.fail(list(self._handlers), error)

    def __contains__(self, reply_id: str) -> bool:
        return reply_id in self._handlers

    def __len__(self) -> int:
        return len(self._handlers)

    def ready(self) -> bool:
        """Returns True: replies are never held back."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Passes replies to their handlers. Unknown ids belong to other instances, or are late."""
        self._on_traffic()
        received: dict[ReplyHandler, list[Reply]] = {}
        for record in records:
            if record.key == START_KEY:
                self._on_start()
                continue
            try:
                reply = decode_reply(record)
            except WireError as error:
                self._decode_errors.add(error, record.topic)
                continue
            handler = self._handlers.get(reply.reply_id)
            if handler is not None:
                self.has_received = True
                received.setdefault(handler, []).append(reply)
        if received:
            self._on_reply()
        for handler, replies in received.items():
            handler.handle(replies)

    def close(self, error: K2EGError, later: K2EGError) -> None:
        """Fails all pending requests with one error, those registered later with the other: they are not sent."""
        self._closed = later
        self.fail_all(error)


class CommandSender:
    """Sends commands: registers the handler, waits until the reply topic is being read, then sends.

    Commands are sent in the order of the calls, except those that wait for futures of their own.

    Thread safety: the backlog belongs to the lock. The thread that completes `ready` sends it, and what other threads
    add meanwhile; from then on each thread sends its own commands.

    Args:
        pending: The receiver of the reply topic.
        sink: Sends the records.
        command_topic: The gateway's command topic.
        reply_topic: The topic the gateway replies to.
        ready: Done when the reply topic is being read.
        on_sent: Called when Kafka has a command that a gateway answers at once; must not block.

    Attributes:
        refusal: The error of a broker that refuses this client; None while it does not.
        unsent: Commands that did not reach Kafka; written on the sink's thread.
        connection_fault: Returns what is wrong with the connection; empty while nothing is.
    """

    def __init__(
        self,
        pending: PendingRequests,
        sink: RecordSink,
        *,
        command_topic: str,
        reply_topic: str,
        ready: Future[None],
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        self._pending = pending
        self._sink = sink
        self._command_topic = command_topic
        self.reply_topic = reply_topic
        self.ready = ready
        self._on_sent = on_sent
        self.refusal: BehaviorSubject[TransportError | None] = BehaviorSubject(None)
        self.unsent = 0
        self.connection_fault: Callable[[], str] = lambda: ""
        self._lock = threading.Lock()
        self._backlog: deque[Callable[[Exception | None], None]] = deque()
        self._has_backlog = True
        ready.add_done_callback(self._send_backlog)

    def why_no_reply(self) -> str:
        """Returns what is known about the cause of a missing reply; may be empty."""
        if fault := self.connection_fault():
            return fault
        if not self.ready.done():
            return f"the reply topic {self.reply_topic!r} cannot be read yet"
        if self._pending.has_received:
            return ""
        return (
            "no gateway has replied to this client yet: check that one reads the command topic"
            f" {self._command_topic!r}, and that the PV exists"
        )

    def refuse(self, error: TransportError | None) -> None:
        """Fails pending requests and, until called with None, all later ones."""
        self.refusal.on_next(error)
        if error is not None:
            self._pending.fail_all(error)

    def send(self, commands: Mapping[str, Command], handler: ReplyHandler, after: Sequence[Future[None]] = ()) -> None:
        """Registers the handler, then sends commands. An id that is unregistered meanwhile is not sent.

        Args:
            commands: The commands by their new reply ids.
            handler: Handles the replies; may be called before this method returns.
            after: Futures that must be done before the commands are sent, besides `ready`.
        """
        self._pending.register(commands, handler)
        if self.refusal.value is not None:  # checked after registering: a later refusal fails what is registered
            self._pending.fail(commands, self.refusal.value)
            return

        def send(error: Exception | None) -> None:
            if error is not None:
                self._pending.fail(commands, error)
                return
            for reply_id, command in commands.items():
                if reply_id in self._pending:
                    self._send(reply_id, command, handler)

        if after:
            when_done([self.ready, *after], send)
            return
        with self._lock:
            if self._has_backlog:
                self._backlog.append(send)
                return
        send(_error_of(self.ready))  # it is done, as the backlog has been sent

    def _send_backlog(self, ready: Future[None]) -> None:
        while True:
            with self._lock:
                if not self._backlog:
                    self._has_backlog = False
                    return
                send = self._backlog.popleft()
            try:
                send(_error_of(ready))
            except BaseException:
                self._send_backlog(ready)  # the others do not wait for the failed one
                raise

    def _send(self, reply_id: str, command: Command, handler: ReplyHandler) -> None:
        is_put = isinstance(command, PutCommand)

        def still_wanted() -> bool:
            # a put that its caller has given up, for example in an outage, is not to be written later
            handler.on_progress(reply_id, PutProgress.SENT)  # before the check, so that who gives it up later knows
            return reply_id in self._pending

        def delivered(error: TransportError | None) -> None:
            if is_put and not isinstance(error, UnconfirmedError):
                handler.on_progress(reply_id, PutProgress.STORED if error is None else PutProgress.UNSENT)
            self._delivered(reply_id, command, error)

        try:
            body, key = encode_command(command, self.reply_topic, reply_id), command_key(command)
            self._sink.send(
                self._command_topic, body, key=key, on_delivery=delivered, still_wanted=still_wanted if is_put else None
            )
        except Exception as error:  # of this command only, also if it cannot be encoded
            self._pending.fail((reply_id,), error)

    def _delivered(self, reply_id: str, command: Command, error: TransportError | None) -> None:
        if error is None and is_answered_at_once(command):
            self._on_sent()
        if isinstance(error, UnconfirmedError):
            error = UnconfirmedError(f"the {command.operation} may have been carried out, or may still be: {error}")
        if error is not None:
            self.unsent += 1
            self._pending.fail((reply_id,), error)

    def unregister(self, reply_ids: Iterable[str]) -> list[str]:
        """Gives up waiting for replies; returns the ids that were still pending. Idempotent."""
        return self._pending.unregister(reply_ids)
