"""Commands and their replies: the one place where the way out and the way in meet.

In: a `Command`. Out: an Observable of its `Reply`s. The order is always: open the route, wait until the reply topic is
being read, send. Replies are emitted on the thread of the reply pump, timeouts on the timer thread, refusals on that of
the transport's status; all are threads of the library, so what is subscribed here is the library's own code, and
`delivery` hands over to the subscriber's.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from k2eg_rx.discards import Discards
from k2eg_rx.errors import ClientClosedError, K2EGError, OperationError, OperationTimeout, TransportError, WireError
from k2eg_rx.transport import Record, RecordSink
from k2eg_rx.wire.commands import Command, command_key, encode_command
from k2eg_rx.wire.messages import Reply
from k2eg_rx.wire.replies import decode_reply

_T = TypeVar("_T")


def closed_before_the_reply() -> ClientClosedError:
    """Returns what those are told who wait for a reply when the client is closed."""
    return ClientClosedError("the client was closed before the reply came")


class ReplyRouter:
    """The open routes by reply id; the receiver of the reply topic's records.

    The dict is changed by subscribers' threads and read by the pump; each access is one atomic operation.
    """

    def __init__(self, discards: Discards) -> None:
        self._routes: dict[str, abc.ObserverBase[Reply]] = {}
        self._discards = discards
        self._closed: K2EGError | None = None

    def open(self, reply_id: str, observer: abc.ObserverBase[Reply]) -> None:
        """Opens a route.

        Raises:
            ClientClosedError: The router was closed.
        """
        self._routes[reply_id] = observer
        if self._closed is not None:
            self.shut(reply_id)
            raise self._closed

    def shut(self, reply_id: str) -> None:
        """Closes a route. Idempotent."""
        self._routes.pop(reply_id, None)

    def __len__(self) -> int:
        return len(self._routes)

    def ready(self) -> bool:
        """Always: replies wait for nobody."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Routes replies. Those of unknown id are other instances', or too late."""
        for record in records:
            try:
                reply = decode_reply(record)
            except WireError as error:
                self._discards.add(error, record.topic)
                continue
            observer = self._routes.get(reply.reply_id)
            if observer is not None:
                observer.on_next(reply)

    def close(self, error: K2EGError) -> None:
        """Fails all open routes, and those to come."""
        self._closed = error
        self.fail(error)

    def fail(self, error: K2EGError) -> None:
        """Fails all open routes."""
        for reply_id in list(self._routes):
            observer = self._routes.pop(reply_id, None)
            if observer is not None:
                observer.on_error(error)


def when_done(futures: Sequence[Future[None]], action: Callable[[Exception | None], None]) -> None:
    """Calls the action once when all futures are done, with None or the first error, on the last one's thread."""
    if not futures:
        action(None)
        return
    lock = threading.Lock()
    left = len(futures)

    def done(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            errors = [future.exception() for future in futures if not future.cancelled()]
            failed = next((error for error in errors if isinstance(error, Exception)), None)
            action(failed)

    for future in futures:
        future.add_done_callback(done)


class Requests:
    """Sends commands and yields their replies.

    Args:
        router: The receiver of the reply topic.
        sink: The way out.
        command_topic: Where the gateway listens.
        reply_topic: Where it is to answer.
        ready: Done when the reply topic is being read.
        timers: The scheduler for all timeouts.
    """

    def __init__(
        self,
        router: ReplyRouter,
        sink: RecordSink,
        *,
        command_topic: str,
        reply_topic: str,
        ready: Future[None],
        timers: abc.SchedulerBase,
    ) -> None:
        self._router = router
        self._sink = sink
        self._command_topic = command_topic
        self._reply_topic = reply_topic
        self._ready = ready
        self._timers = timers
        self._refusal: TransportError | None = None
        self._refused: Subject[TransportError] = Subject()

    def refuse(self, error: TransportError | None) -> None:
        """Fails what waits for a reply, and what is asked from now on, with an error; None ends that."""
        self._refusal = error
        if error is not None:
            self._router.fail(error)
            self._refused.on_next(error)

    def replies(self, command: Command, after: Sequence[Future[None]] = ()) -> Observable[Reply]:
        """Returns all replies to a command; each subscription sends it once.

        Args:
            command: What is asked.
            after: What has to be done before it is sent, besides the reply topic being read.
        """

        def subscribe(observer: abc.ObserverBase[Reply], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            reply_id = str(uuid.uuid4())
            disposed = threading.Event()
            self._router.open(reply_id, observer)
            if self._refusal is not None:  # after the route is open: one that comes now finds the route
                self._router.shut(reply_id)
                observer.on_error(self._refusal)
                return Disposable()

            def delivered(error: TransportError | None) -> None:
                if error is not None:
                    observer.on_error(error)

            def send(error: Exception | None) -> None:
                if disposed.is_set():
                    return
                if error is not None:
                    observer.on_error(error)
                    return
                encoded, key = encode_command(command, self._reply_topic, reply_id), command_key(command)
                try:
                    self._sink.send(self._command_topic, encoded, key=key, on_delivery=delivered)
                except TransportError as failure:
                    observer.on_error(failure)

            def dispose() -> None:
                disposed.set()
                self._router.shut(reply_id)

            when_done([self._ready, *after], send)
            return Disposable(dispose)

        return Observable(subscribe)

    def single(
        self,
        command: Command,
        subject: str,
        timeout: float | None,
        *,
        after: Sequence[Future[None]] = (),
        hint: str = "",
    ) -> Observable[Reply]:
        """Returns the one reply to a command, or its failure as an error.

        Args:
            command: What is asked.
            subject: The PV's URI or the snapshot's name, for the errors.
            timeout: Seconds until `OperationTimeout`; None leaves that to the caller.
            after: As for `replies`.
            hint: What to add to the text of the timeout.
        """
        operation = command.operation

        def checked(reply: Reply) -> Reply:
            if reply.error < 0:
                raise OperationError(reply.error, reply.message, operation, subject)
            return reply

        reply = self.replies(command, after).pipe(ops.take(1), ops.map(checked))
        return reply if timeout is None else reply.pipe(self.within(timeout, operation, subject, hint))

    def assembled(
        self, command: Command, assembler: Callable[[], Callable[[Reply], _T | None]], subject: str, timeout: float
    ) -> Observable[_T]:
        """Returns what several replies to one command amount to.

        Args:
            command: What is asked.
            assembler: Makes, for each subscription, a function that takes replies and returns the result once it is
                complete.
            subject: For the error.
            timeout: Seconds for the whole.
        """

        def start(_: object = None) -> Observable[_T]:
            results: Observable[_T | None] = self.replies(command).pipe(ops.map(assembler()))
            return results.pipe(
                ops.filter(lambda result: result is not None),
                ops.map(lambda result: cast("_T", result)),
                ops.take(1),
                self.within(timeout, command.operation, subject),
            )

        return rx.defer(start)

    def ready(self, timeout: float) -> Observable[None]:
        """Returns a stream of one: nothing, when the reply topic is being read."""

        def subscribe(observer: abc.ObserverBase[None], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            def done(error: Exception | None) -> None:
                if error is not None:
                    observer.on_error(error)
                    return
                observer.on_next(None)
                observer.on_completed()

            when_done([self._ready], done)
            return Disposable()

        def refused(error: TransportError) -> Observable[None]:
            return rx.throw(error)

        ready: Observable[None] = Observable(subscribe)
        refusals = rx.defer(lambda _: self._refused.pipe(ops.start_with(*filter(None, [self._refusal]))))
        return rx.amb(refusals.pipe(ops.flat_map(refused)), ready).pipe(
            self.within(timeout, "subscription", self._reply_topic)
        )

    def within(
        self, timeout: float, operation: str, subject: str, hint: str = ""
    ) -> Callable[[Observable[_T]], Observable[_T]]:
        """Returns an operator that fails with `OperationTimeout` when nothing comes for so many seconds."""
        error = OperationTimeout(operation, subject, timeout, hint)
        return ops.timeout(timeout, rx.throw(error), scheduler=self._timers)

    def close(self) -> None:
        """Fails what waits for a reply."""
        self._router.close(closed_before_the_reply())
