"""Requests as Observables or blocking calls: one command, its replies, a timeout.

Thread safety: any thread makes requests. Observers are called on the reply poll thread, the timer thread, or a thread
of the transport; `Dispatcher` hands over to subscribers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from k2eg_rx.client.correlation import CommandSender, new_reply_id, when_done
from k2eg_rx.client.put_progress import CLOSED, PutProgress, error_of_put
from k2eg_rx.concurrency import wait_interruptibly
from k2eg_rx.errors import ClientClosedError, OperationError, OperationTimeout, TransportError
from k2eg_rx.protocol import Command, GetCommand, PutCommand, Reply, silent_pv_seconds

_T = TypeVar("_T")


def closed_before_reply() -> ClientClosedError:
    """Returns the error of requests that are pending when the client is closed."""
    return ClientClosedError(CLOSED)


def closed_before_sending() -> ClientClosedError:
    """Returns the error of requests that are made while the client is being closed."""
    return ClientClosedError("the client was closed before the command was sent")


def check_reply(reply: Reply, operation: str, subject: str) -> None:
    """Raises OperationError if the reply is a failure, OperationTimeout if the PV did not answer in time."""
    if reply.error < 0:
        waited = silent_pv_seconds(reply.message) if operation == GetCommand.operation else None
        if waited is not None:
            raise OperationTimeout(operation, subject, waited, "the gateway is there, the PV does not answer")
        raise OperationError(reply.error, reply.message, operation, subject)


def _never(_: Reply) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Request(Generic[_T]):
    """A command with one reply.

    Attributes:
        command: The command.
        subject: The PV's URI or the snapshot's name, for error messages.
        timeout: Seconds until `OperationTimeout`.
        parse: Returns the result that the reply contains, or raises.
        is_spurious: Returns whether the reply says nothing, so that the command is sent once more; the timeout stays.
        after: Futures that must be done before the command is sent, besides the reply topic being read.
    """

    command: Command
    subject: str
    timeout: float
    parse: Callable[[Reply], _T]
    is_spurious: Callable[[Reply], bool] = _never
    after: Sequence[Future[None]] = ()


class SingleReply(Generic[_T]):
    """Handles the one reply to a request for an observer.

    Thread safety: the state belongs to the lock; of several threads that end the request, the first calls the observer.

    Args:
        sender: Sends the command.
        request: The request.
        observer: Gets the result or the error.
    """

    def __init__(self, sender: CommandSender, request: Request[_T], observer: abc.ObserverBase[_T]) -> None:
        self._sender = sender
        self._request = request
        self._observer = observer
        self._timer: SingleAssignmentDisposable | None = None
        self._lock = threading.Lock()
        self._reply_id = ""
        self._attempts = 0
        self._ended = False
        self._progress = PutProgress.UNSENT

    def start(self, timers: abc.SchedulerBase) -> None:
        """Sends the command and starts the timeout."""

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self.expire()

        timer = self._timer = SingleAssignmentDisposable()
        self.send()
        if not self._ended:
            timer.disposable = timers.schedule_relative(self._request.timeout, expire)

    def send(self) -> None:
        """Sends the command without a timeout; the caller has to call `expire`."""
        reply_id = new_reply_id()
        with self._lock:
            if self._ended:
                return
            self._reply_id = reply_id
            self._attempts += 1
        self._sender.send({reply_id: self._request.command}, self, self._request.after)
        if self._ended:  # disposed meanwhile, perhaps before the id was registered
            self._sender.unregister((reply_id,))

    def handle(self, replies: Sequence[Reply]) -> None:
        """Emits the result of the first reply."""
        reply = replies[0]
        if self._attempts == 1 and self._request.is_spurious(reply):
            self._sender.unregister((reply.reply_id,))
            self.send()
        elif self._end():
            try:
                result = self._request.parse(reply)
            except Exception as error:
                self._observer.on_error(error)
                return
            self._observer.on_next(result)
            self._observer.on_completed()

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:  # noqa: ARG002 - there is one
        """Emits the error."""
        if self._end():
            is_put = isinstance(self._request.command, PutCommand)
            self._observer.on_error(error_of_put(error, self._progress) if is_put else error)

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:  # noqa: ARG002 - there is one
        """Keeps what the error of a put says."""
        self._progress = progress

    def expire(self) -> None:
        """Emits the timeout unless the request has ended."""
        if self._end():
            request = self._request
            known = self._progress.value if isinstance(request.command, PutCommand) else ""
            hint = "; ".join(filter(None, (known, self._sender.why_no_reply())))
            error = OperationTimeout(request.command.operation, request.subject, request.timeout, hint)
            self._observer.on_error(error)

    def _end(self) -> bool:
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        if self._timer is not None:
            self._timer.dispose()
        self._sender.unregister((self._reply_id,))
        return True

    def dispose(self) -> None:
        """Gives up the request."""
        self._end()


class AllReplies:
    """Handles all replies to one command for an observer."""

    def __init__(self, observer: abc.ObserverBase[Reply]) -> None:
        self._observer = observer

    def handle(self, replies: Sequence[Reply]) -> None:
        """Emits the replies."""
        for reply in replies:
            self._observer.on_next(reply)

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:  # noqa: ARG002 - there is one
        """Emits the error."""
        self._observer.on_error(error)

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:
        """Does nothing: puts have one reply."""


class BlockingResult(abc.ObserverBase[_T]):
    """Keeps a request's result for a thread that blocks until it is there.

    Thread safety: written once, before the lock is released; read by the waiting thread after that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # released once; with a single waiter it takes no condition
        self._lock.acquire()
        self._values: list[_T] = []
        self._error: Exception | None = None

    def on_next(self, value: _T) -> None:
        """Sets the result."""
        self._values.append(value)
        self._lock.release()

    def on_error(self, error: Exception) -> None:
        """Sets the error."""
        self._error = error
        self._lock.release()

    def on_completed(self) -> None:
        """Does nothing: the result is set already."""

    def wait(self, timeout: float = math.inf) -> bool:
        """Blocks for at most `timeout` seconds; returns whether the request has ended. Call it until it returns True
        once, then no more."""
        return wait_interruptibly(lambda seconds: self._lock.acquire(timeout=seconds), timeout)

    def result(self) -> _T:
        """Returns the result, or raises the error."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # it may be shared, and each raise would extend its traceback
        return self._values[0]


class Requests:
    """Makes requests of one client.

    Args:
        sender: Sends the commands.
        timers: The scheduler of the timeouts.
    """

    def __init__(self, sender: CommandSender, timers: abc.SchedulerBase) -> None:
        self._sender = sender
        self._timers = timers

    @property
    def reply_topic_ready(self) -> Future[None]:
        """Done when the reply topic is being read; no command is sent before that."""
        return self._sender.ready

    def single(self, request: Request[_T]) -> Observable[_T]:
        """Returns the request's result as a single-item Observable; each subscription sends the command."""

        def subscribe(observer: abc.ObserverBase[_T], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            handler = SingleReply(self._sender, request, observer)
            handler.start(self._timers)
            return Disposable(handler.dispose)

        return Observable(subscribe)

    def wait(self, request: Request[_T], timeout: float | None = None) -> _T:
        """Sends the command, blocks, and returns the result or raises the error. Uses no timer thread.

        Args:
            request: The request.
            timeout: Seconds that replace the request's timeout if they are fewer.
        """
        if timeout is not None and timeout < request.timeout:
            request = replace(request, timeout=timeout)
        result = BlockingResult[_T]()
        handler = SingleReply(self._sender, request, result)
        try:
            handler.send()
            if not result.wait(request.timeout):
                handler.expire()  # has no effect if another thread is about to set the result
                result.wait()
        finally:
            handler.dispose()
        return result.result()

    def reply(
        self, command: Command, subject: str, timeout: float, *, after: Sequence[Future[None]] = ()
    ) -> Observable[Reply]:
        """Returns the reply to a command as a single-item Observable that fails with OperationError.

        For the arguments see `Request`.
        """

        def checked(reply: Reply) -> Reply:
            check_reply(reply, command.operation, subject)
            return reply

        return self.single(Request(command, subject, timeout, checked, after=after))

    def replies(self, command: Command) -> Observable[Reply]:
        """Returns all replies to a command, without a timeout; each subscription sends the command."""

        def subscribe(observer: abc.ObserverBase[Reply], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            reply_id = new_reply_id()
            self._sender.send({reply_id: command}, AllReplies(observer))

            def dispose() -> None:
                self._sender.unregister((reply_id,))

            return Disposable(dispose)

        return Observable(subscribe)

    def ready(self, timeout: float) -> Observable[None]:
        """Returns a single-item Observable that emits None when the reply topic is being read."""

        def subscribe(observer: abc.ObserverBase[None], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            def done(error: Exception | None) -> None:
                if error is not None:
                    observer.on_error(error)
                    return
                observer.on_next(None)
                observer.on_completed()

            when_done([self._sender.ready], done)
            return Disposable()

        def failed(error: TransportError | None) -> Observable[None]:
            return rx.never() if error is None else rx.throw(error)

        refused = self._sender.refusal.pipe(ops.flat_map(failed))
        return rx.amb(refused, Observable(subscribe)).pipe(
            self.within(timeout, "subscription", self._sender.reply_topic)
        )

    def why_no_reply(self) -> str:
        """Returns what is known about why a reply is missing; may be empty."""
        return self._sender.why_no_reply()

    def for_seconds(self, seconds: float) -> Callable[[Observable[_T]], Observable[_T]]:
        """Returns an operator that completes after some seconds."""
        return ops.take_until(rx.timer(seconds, scheduler=self._timers))

    def within(self, timeout: float, operation: str, subject: str) -> Callable[[Observable[_T]], Observable[_T]]:
        """Returns an operator that fails with `OperationTimeout` if `timeout` seconds pass without an item."""
        return ops.timeout(timeout, rx.throw(OperationTimeout(operation, subject, timeout)), scheduler=self._timers)
