"""Hot streams: what monitors and recurring snapshots have in common.

The first subscriber opens a stream: its topic is read and the gateway is asked to publish (the activation). An
activation without a reply is repeated; a stream that has had a record is active, whatever became of the reply. A stream
that falls silent is activated again. The last subscriber, a refusal, or the client's end closes it.

Thread safety: the table of streams belongs to `_lock`, their subscribers to the router's lock, which is taken second.
Activations end on the reply poll thread or the timer thread.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.subject import AsyncSubject

from k2eg_rx.client.requests import Requests, closed_before_reply
from k2eg_rx.client.router import EventRouter
from k2eg_rx.delivery import Dispatcher, SubscriberInput
from k2eg_rx.errors import OperationTimeout
from k2eg_rx.protocol import Reply
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import RecordSource, SourceClosedError, TransientError, UnconfirmedError

_log = get_logger(__name__)

# The deployed gateway replies to the activation of many PVs when it has created all their topics, at up to 0.5 s each.
_LATE_REPLY = 300.0  # seconds that a reply to an activation is waited for; it counts even if the command was repeated
_LONGEST_DELAY = 60.0  # seconds between two activations of a stream: what waits in Kafka for a gateway stays little
_LEAST_PER_COMMAND = 10
# Seconds after a gateway's start in which streams show that another gateway publishes them, and over which the clients
# of a laboratory spread their commands.
_START_DELAY = 0.5
_START_SPREAD = 0.5


class HotStream(ABC):
    """One hot stream.

    Attributes:
        position: Done when all further records of the stream are certain to be received.
        activation: Emits the gateway's first reply to an activation.
        confirmed: Whether the gateway has replied.
        overdue: Whether an activation was repeated for lack of a reply.
        ending: Whether the stream was stopped, and is not activated again.
    """

    __slots__ = ("_active", "activation", "confirmed", "ending", "overdue", "position")

    def __init__(self) -> None:
        self.position: Future[None] = Future()
        self.activation: AsyncSubject[Reply] = AsyncSubject()
        self.confirmed = False
        self.overdue = False
        self.ending = False
        self._active = False

    def is_active(self) -> bool:
        """Returns whether the gateway publishes the stream, as its reply or a record shows."""
        self._active = self._active or self.confirmed or self.heard
        return self._active and not self.ending

    def is_waiting(self) -> bool:
        """Returns whether the stream waits for its activation."""
        return not (self.is_active() or self.ending)

    def confirm(self, reply: Reply) -> None:
        """Takes the gateway's reply to an activation."""
        self.confirmed = True
        self.set_heard(heard=True)  # not silent before the next check but one
        self.activation.on_next(reply)
        self.activation.on_completed()

    def take_heard(self) -> bool:
        """Returns whether a record has arrived since the last call."""
        self.is_active()  # a record makes it so
        heard = self.heard
        self.set_heard(heard=False)
        return heard

    @property
    @abstractmethod
    def key(self) -> str:
        """The stream's key in the table."""

    @property
    @abstractmethod
    def topics(self) -> Sequence[str]:
        """The topics that the stream reads."""

    @property
    @abstractmethod
    def heard(self) -> bool:
        """Whether a record has arrived since `set_heard`."""

    @abstractmethod
    def set_heard(self, *, heard: bool) -> None:
        """Sets `heard`."""

    @property
    @abstractmethod
    def subscribers(self) -> Sequence[SubscriberInput[Any]]:
        """The subscribers in this client."""


@dataclass(frozen=True, slots=True)
class HotStreamContext:
    """The parts of a client that its hot streams use.

    Attributes:
        router: Routes the streams' records.
        source: Reads the streams' topics.
        requests: Sends activations.
        dispatcher: Calls the subscribers.
        timers: The scheduler of timeouts and of the check for silent streams.
        timeout: Seconds after which an activation without a reply is repeated.
        silence: Seconds without a record after which a stream is activated again: its gateway may have restarted.
        on_reply: Called with each reply to an activation.
    """

    router: EventRouter
    source: RecordSource
    requests: Requests
    dispatcher: Dispatcher
    timers: abc.SchedulerBase
    timeout: float
    silence: float
    on_reply: Callable[[Reply], None] = lambda _: None


_S = TypeVar("_S", bound=HotStream)


class HotStreams(ABC, Generic[_S]):
    """The hot streams of one kind in one client."""

    _MAX_PER_COMMAND: ClassVar[int] = 1  # streams activated by one command

    def __init__(self, context: HotStreamContext) -> None:
        self._router = context.router
        self._source = context.source
        self._requests = context.requests
        self._dispatcher = context.dispatcher
        self._timers = context.timers
        self._timeout = context.timeout
        self._on_reply = context.on_reply
        self._per_command = self._MAX_PER_COMMAND
        self._lock = threading.RLock()
        self._streams: dict[str, _S] = {}
        # two checks without a record between them: a stream is silent for one to two intervals
        self._checks = rx.interval(context.silence / 2, scheduler=context.timers).subscribe(
            lambda _: self._reactivate_silent()
        )

    def __len__(self) -> int:
        return len(self._streams)

    def unconfirmed(self) -> int:
        """Returns the number of streams whose activation was repeated for lack of a reply, and still has none."""
        with self._lock:
            return sum(stream.overdue and stream.is_waiting() for stream in self._streams.values())

    def close(self) -> None:
        """Completes all streams."""
        self._checks.dispose()
        self._end(list(self._streams.values()))

    @abstractmethod
    def _activate(self, streams: Sequence[_S], timeout: float, after: Sequence[Future[None]] = ()) -> Observable[Reply]:
        """Returns the reply to the one command that activates streams, sent at subscription; for the arguments see
        `Request`."""

    @abstractmethod
    def _close_routes(self, stream: _S) -> None:
        """Removes a stream from the router."""

    def _activated(self, stream: _S, reply: Reply) -> None:
        """Called with the reply to a stream's first activation."""

    def _open(self, streams: Sequence[_S], checks: Observable[Reply] | None = None) -> None:
        """Reads the topics of new streams and activates them; `_lock` is held.

        Args:
            streams: The streams; they are in the table and the router.
            checks: Subscribed to before each activation; its error fails the activation.
        """
        for chunk in self._chunks(streams):
            for stream in chunk:
                stream.position = self._source.read(stream.topics[0])
            self._request(chunk, checks, [stream.position for stream in chunk])

    def _request(
        self, streams: Sequence[_S], checks: Observable[Reply] | None, after: Sequence[Future[None]], delay: float = 0.0
    ) -> None:
        """Activates streams by one command, and repeats it after a delay for those that are not active by then."""
        delay = min(2 * delay, max(_LONGEST_DELAY, self._timeout)) if delay else self._timeout
        request, timer = SingleAssignmentDisposable(), SerialDisposable()
        sent = self._timers.now

        def succeed(reply: Reply) -> None:
            timer.dispose()
            self._on_reply(reply)
            self._adapt(len(streams), (self._timers.now - sent).total_seconds())
            for stream in streams:
                self._activated(stream, reply)
                stream.confirm(reply)

        def fail(error: Exception) -> None:
            if not isinstance(
                error, OperationTimeout | TransientError | UnconfirmedError
            ):  # those are left to the timer
                timer.dispose()
                self._fail([stream for stream in streams if not stream.confirmed], error)

        def check(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            nonlocal sent
            with self._lock:
                open_ = [stream for stream in streams if self._streams.get(stream.key) is stream]
                waiting = [stream for stream in open_ if stream.is_waiting()]
                if waiting and all(future.done() for future in (*after, self._requests.reply_topic_ready)):
                    self._repeat(waiting, len(open_), checks, delay)
                elif waiting:  # nothing was sent yet
                    sent = self._timers.now
                    schedule()
            if all(stream.confirmed for stream in open_):
                request.dispose()

        def schedule() -> None:
            timer.disposable = self._timers.schedule_relative(delay, check)

        schedule()
        activation = self._activate(streams, _LATE_REPLY, after)
        activation = activation if checks is None else rx.concat(checks, activation)
        request.disposable = activation.subscribe(succeed, fail)

    def _repeat(self, streams: Sequence[_S], requested: int, checks: Observable[Reply] | None, delay: float) -> None:
        """Repeats the activation of those streams of a command that are not active yet; `_lock` is held."""
        if len(streams) < requested:  # a gateway that is slow, not one that is down
            self._adapt(requested - len(streams), delay)
        is_first = not all(stream.overdue for stream in streams)
        _log.log(
            logging.WARNING if is_first else logging.INFO,
            "activation has no reply, repeating it: streams=%d first=%s waited=%.0f s",
            len(streams),
            streams[0].key,
            delay,
        )
        for chunk in self._chunks(streams):
            for stream in chunk:
                stream.overdue = True
            self._request(chunk, checks, (), delay)

    def _adapt(self, activated: int, seconds: float) -> None:
        """Adapts the size of commands to a gateway that has activated a number of streams in a time."""
        most, wanted = self._MAX_PER_COMMAND, self._timeout / 4
        if seconds <= wanted:
            self._per_command = min(2 * self._per_command, most)
        else:
            self._per_command = min(max(int(activated * wanted / seconds), _LEAST_PER_COMMAND), most)

    def _fail(self, streams: Sequence[_S], error: Exception) -> None:
        """Ends streams whose activation was refused."""
        if isinstance(error, SourceClosedError):  # `close` completes the streams
            error = closed_before_reply()
        else:
            self._end(streams, error)
        for stream in streams:
            stream.activation.on_error(error)

    def _replies(self, streams: Sequence[_S], operation: str, subject: str, timeout: float) -> Observable[Reply]:
        """Returns the last reply to the first activations of streams as a single-item Observable."""
        activations = {stream.key: stream.activation for stream in streams}.values()
        last: Observable[Reply] = rx.merge(*activations).pipe(ops.last())
        return last.pipe(self._requests.within(timeout, operation, subject))

    def _reactivate_silent(self) -> None:
        with self._lock:
            silent = [stream for stream in self._streams.values() if stream.is_active() and not stream.take_heard()]
        self._reactivate(silent)

    def gateway_started(self) -> None:
        """Activates those streams again that have no record in the next moment: the gateway may have replaced theirs.

        Others are published by a gateway that runs beside the new one. Called on the reply poll thread.
        """

        def look(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            import random  # noqa: PLC0415 - 1 ms, which programs that monitor nothing save

            with self._lock:
                for stream in self._streams.values():
                    stream.take_heard()
            self._timers.schedule_relative(_START_DELAY + random.uniform(0.0, _START_SPREAD), activate)

        def activate(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            with self._lock:
                lost = [stream for stream in self._streams.values() if not (stream.heard or stream.ending)]
            self._reactivate(lost)

        self._timers.schedule_relative(0.0, look)

    def _reactivate(self, streams: Sequence[_S]) -> None:
        """Activates streams again. A failure is only logged: the next check finds the stream silent again."""

        def succeed(chunk: Sequence[_S], reply: Reply) -> None:
            self._on_reply(reply)
            for stream in chunk:
                if stream.is_waiting():
                    self._activated(stream, reply)
                    stream.confirm(reply)

        for chunk in self._chunks(streams):
            first = chunk[0].key
            self._activate(chunk, self._timeout).subscribe(
                partial(succeed, chunk),
                lambda error, first=first: _log.info("reactivation failed: stream=%s error=%s", first, error),
            )

    def _chunks(self, streams: Sequence[_S]) -> Iterator[Sequence[_S]]:
        size = self._per_command
        for start in range(0, len(streams), size):
            yield streams[start : start + size]

    def _end(self, streams: Sequence[_S], error: Exception | None = None) -> None:
        """Removes streams; completes their subscribers, or fails them with the error."""
        with self._lock:
            removed = [stream for stream in streams if self._remove(stream)]
        for stream in removed:
            for subscriber in stream.subscribers:
                subscriber.finish(error)

    def _remove(self, stream: _S) -> bool:
        """Removes a stream if it is still in the table; returns whether it was. `_lock` is held."""
        if self._streams.get(stream.key) is not stream:
            return False
        del self._streams[stream.key]
        self._close_routes(stream)
        for topic in stream.topics:
            if not self._router.reads(topic):
                self._source.release(topic)
        return True
