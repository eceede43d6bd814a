"""Commands and their replies: the one place where the way out and the way in meet.

In: a `Command`. Out: an Observable of its `Reply`s. The order is always: open the route, wait until the reply topic is
being read, send. Replies are emitted on the thread of the reply pump, timeouts on the timer thread, refusals on that of
the transport's status; all are threads of the library, so what is subscribed here is the library's own code, and
`delivery` hands over to the subscriber's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar, cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from k2eg_rx.client.questions import AllReplies, BlockingResult, Request, SingleReply, check_reply, new_reply_id
from k2eg_rx.client.replies import ReplyHandler, ReplyRouter
from k2eg_rx.errors import ClientClosedError, OperationTimeout, TransportError
from k2eg_rx.protocol import Command, Reply, command_key, encode_command
from k2eg_rx.transport import RecordSink

_T = TypeVar("_T")


def closed_before_the_reply() -> ClientClosedError:
    """Returns what those are told who wait for a reply when the client is closed."""
    return ClientClosedError("the client was closed before the reply came")


def when_done(futures: Sequence[Future[None]], action: Callable[[Exception | None], None]) -> None:
    """Calls the action once when all futures are done, with None or the first error, on the last one's thread."""

    def tell() -> None:
        errors = [future.exception() for future in futures if not future.cancelled()]
        action(next((error for error in errors if isinstance(error, Exception)), None))

    if all(future.done() for future in futures):
        tell()
        return
    lock = threading.Lock()
    left = len(futures)

    def done(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            tell()

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
        self._is_ready = False
        when_done([ready], self._read)
        self._timers = timers
        self._refusal: TransportError | None = None
        self._refused: Subject[TransportError] = Subject()

    def _read(self, error: Exception | None) -> None:
        self._is_ready = error is None

    def refuse(self, error: TransportError | None) -> None:
        """Fails what waits for a reply, and what is asked from now on, with an error; None ends that."""
        self._refusal = error
        if error is not None:
            self._router.fail(error)
            self._refused.on_next(error)

    def ask(self, commands: Mapping[str, Command], asker: ReplyHandler, after: Sequence[Future[None]] = ()) -> None:
        """Opens routes for the replies to commands, then sends these, all in one go. Any thread.

        A command whose route is shut by the time that it could be sent is not sent.

        Args:
            commands: What is asked, by reply id; the ids are new.
            asker: Who gets to know what comes of it, perhaps before this returns.
            after: What has to be done before they are sent, besides the reply topic being read.
        """
        self._router.open(commands, asker)
        if self._refusal is not None:  # after the routes are open: one that comes now finds them
            self._router.cut(commands, asker, self._refusal)
            return

        def send(error: Exception | None) -> None:
            if error is not None:
                self._router.cut(commands, asker, error)
                return
            for reply_id, command in commands.items():
                if self._router.is_open(reply_id):
                    self._send(reply_id, command, asker)

        if self._is_ready and not after:  # the way of nearly every command
            send(None)
        else:
            when_done([self._ready, *after], send)

    def _send(self, reply_id: str, command: Command, asker: ReplyHandler) -> None:
        encoded, key = encode_command(command, self._reply_topic, reply_id), command_key(command)
        delivered = partial(self._delivered, reply_id, asker)
        try:
            self._sink.send(self._command_topic, encoded, key=key, on_delivery=delivered)
        except TransportError as failure:
            delivered(failure)

    def _delivered(self, reply_id: str, asker: ReplyHandler, error: TransportError | None) -> None:
        if error is not None:
            self._router.cut((reply_id,), asker, error)

    def drop(self, reply_ids: Iterable[str]) -> list[str]:
        """Closes the routes of replies that are not waited for any more; returns those that were open. Idempotent."""
        return self._router.shut(reply_ids)

    def replies(self, command: Command) -> Observable[Reply]:
        """Returns all replies to a command; each subscription sends it once."""

        def subscribe(observer: abc.ObserverBase[Reply], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            reply_id = new_reply_id()
            self.ask({reply_id: command}, AllReplies(observer))

            def dispose() -> None:
                self.drop((reply_id,))

            return Disposable(dispose)

        return Observable(subscribe)

    def single(
        self,
        command: Command,
        subject: str,
        timeout: float,
        *,
        after: Sequence[Future[None]] = (),
        hint: str = "",
    ) -> Observable[Reply]:
        """Returns the one reply to a command, or its failure as an error; each subscription sends it once.

        Args:
            command: What is asked.
            subject: The PV's URI or the snapshot's name, for the errors.
            timeout: Seconds until `OperationTimeout`.
            after: As for `ask`.
            hint: What to add to the text of the timeout.
        """

        def checked(reply: Reply) -> Reply:
            check_reply(reply, command.operation, subject)
            return reply

        return self.answer(Request(command, subject, timeout, checked, after=after, hint=hint))

    def answer(self, question: Request[_T]) -> Observable[_T]:
        """Returns a stream of one: what the reply to a question says; each subscription asks once."""

        def subscribe(observer: abc.ObserverBase[_T], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            single = SingleReply(self._router, self.ask, question, observer)
            single.start(self._timers)
            return Disposable(single.dispose)

        return Observable(subscribe)

    def wait(self, question: Request[_T]) -> _T:
        """Asks, and returns what the reply says. Blocks the calling thread, which sees to the timeout by itself.

        Raises:
            Exception: Why there is none, as of `answer`.
        """
        outcome = BlockingResult[_T]()
        single = SingleReply(self._router, self.ask, question, outcome)
        try:
            single.ask()
            if not outcome.wait(question.timeout):
                single.expire()  # if it ends just now, by somebody else, that one is about to tell
                outcome.wait()
        finally:
            single.dispose()
        return outcome.result()

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
