"""Hot streams: what monitors and recurring snapshots have in common.

The first subscriber opens a stream: its topic is read and the gateway is asked to publish (the activation). A stream
that stays silent is activated again. The last subscriber, a failed activation, or the client's end closes it.

Thread safety: the table of streams belongs to `_lock`, their subscribers to the router's lock, which is taken second.
Activations end on the reply poll thread or the timer thread.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.subject import AsyncSubject

from k2eg_rx.client.requests import Requests, closed_before_reply
from k2eg_rx.client.router import EventRouter
from k2eg_rx.delivery import Dispatcher, SubscriberInput
from k2eg_rx.protocol import Reply
from k2eg_rx.transport import RecordSource, SourceClosedError

_log = logging.getLogger(__name__)


class HotStream(ABC):
    """One hot stream.

    Attributes:
        position: Done when all further records of the stream are certain to be received.
        activation: Emits the gateway's reply to the first activation.
        active: Whether the gateway has replied.
    """

    __slots__ = ("activation", "active", "position")

    def __init__(self) -> None:
        self.position: Future[None] = Future()
        self.activation: AsyncSubject[Reply] = AsyncSubject()
        self.active = False

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
    def subscribers(self) -> Sequence[SubscriberInput[Any]]:
        """The subscribers in this client."""

    @abstractmethod
    def take_heard(self) -> bool:
        """Returns whether a record has arrived since the last call."""


@dataclass(frozen=True, slots=True)
class HotStreamContext:
    """The parts of a client that its hot streams use.

    Attributes:
        router: Routes the streams' records.
        source: Reads the streams' topics.
        requests: Sends activations.
        dispatcher: Calls the subscribers.
        timers: The scheduler of timeouts and of the check for silent streams.
        timeout: Seconds that an activation may take.
        silence: Seconds without a record after which a stream is activated again: its gateway may have restarted.
    """

    router: EventRouter
    source: RecordSource
    requests: Requests
    dispatcher: Dispatcher
    timers: abc.SchedulerBase
    timeout: float
    silence: float


_S = TypeVar("_S", bound=HotStream)


class HotStreams(ABC, Generic[_S]):
    """The hot streams of one kind in one client."""

    _PER_COMMAND: ClassVar[int] = 1  # streams activated by one command

    def __init__(self, context: HotStreamContext) -> None:
        self._router = context.router
        self._source = context.source
        self._requests = context.requests
        self._dispatcher = context.dispatcher
        self._timers = context.timers
        self._timeout = context.timeout
        self._lock = threading.RLock()
        self._streams: dict[str, _S] = {}
        # two checks without a record between them: a stream is silent for one to two intervals
        self._checks = rx.interval(context.silence / 2, scheduler=context.timers).subscribe(
            lambda _: self._reactivate_silent()
        )

    def __len__(self) -> int:
        return len(self._streams)

    def close(self) -> None:
        """Completes all streams."""
        self._checks.dispose()
        self._end(list(self._streams.values()))

    @abstractmethod
    def _activate(self, streams: Sequence[_S], after: Sequence[Future[None]] = ()) -> Observable[Reply]:
        """Returns the reply to the one command that activates streams, sent at subscription; for `after` see
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
            checks: Subscribed to before the activation; its error fails the activation.
        """
        for chunk in self._chunks(streams):
            for stream in chunk:
                stream.position = self._source.read(stream.topics[0])
            activation = self._activate(chunk, [stream.position for stream in chunk])
            self._follow(chunk, activation if checks is None else rx.concat(checks, activation))

    def _follow(self, streams: Sequence[_S], activation: Observable[Reply]) -> None:
        def succeed(reply: Reply) -> None:
            for stream in streams:
                self._activated(stream, reply)
                stream.active = True
                stream.activation.on_next(reply)
                stream.activation.on_completed()

        def fail(error: Exception) -> None:
            if isinstance(error, SourceClosedError):  # `close` completes the streams
                error = closed_before_reply()
            else:
                self._end(streams, error)
            for stream in streams:
                stream.activation.on_error(error)

        activation.subscribe(succeed, fail)

    def _replies(self, streams: Sequence[_S], operation: str, subject: str, timeout: float) -> Observable[Reply]:
        """Returns the last reply to the first activations of streams as a single-item Observable."""
        activations = {stream.key: stream.activation for stream in streams}.values()
        last: Observable[Reply] = rx.merge(*activations).pipe(ops.last())
        return last.pipe(self._requests.within(timeout, operation, subject))

    def _reactivate_silent(self) -> None:
        with self._lock:
            silent = [stream for stream in self._streams.values() if stream.active and not stream.take_heard()]
        self._reactivate(silent)

    def _reactivate(self, streams: Sequence[_S]) -> None:
        """Activates streams again. A failure is only logged: the next check finds the stream silent again."""
        for chunk in self._chunks(streams):
            first = chunk[0].key
            self._activate(chunk).subscribe(
                on_error=lambda error, first=first: _log.info("reactivation failed: stream=%s error=%s", first, error)
            )

    def _chunks(self, streams: Sequence[_S]) -> Iterator[Sequence[_S]]:
        for start in range(0, len(streams), self._PER_COMMAND):
            yield streams[start : start + self._PER_COMMAND]

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
