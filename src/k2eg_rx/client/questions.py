"""Who asks for one observer: for the one reply to a command, and what it says, or for all replies.

In: replies and failures, from the router. Out: what the observer is told, on the threads of the replies, of the timers,
and of the transport's status.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable

from k2eg_rx.client.replies import ReplyHandler, ReplyRouter
from k2eg_rx.errors import OperationError, OperationTimeout
from k2eg_rx.protocol import Command, Reply

_T = TypeVar("_T")

Ask = Callable[[Mapping[str, Command], ReplyHandler, Sequence[Future[None]]], None]


class AllReplies:
    """Asks for an observer of all replies to one command."""

    def __init__(self, observer: abc.ObserverBase[Reply]) -> None:
        self._observer = observer

    def take(self, replies: Sequence[Reply]) -> None:
        """Emits them."""
        for reply in replies:
            self._observer.on_next(reply)

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:  # noqa: ARG002 - there is one
        """Emits the error."""
        self._observer.on_error(error)


def new_reply_id() -> str:
    """Returns an id that nobody else has: as random as a UUID, made in a fifth of its time."""
    return os.urandom(16).hex()


def _never(_: Reply) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Request(Generic[_T]):
    """A command, and what is to become of its one reply.

    Attributes:
        command: What is asked.
        subject: The PV's URI or the snapshot's name, for the errors.
        timeout: Seconds until `OperationTimeout`.
        read: Returns what the reply says, or raises.
        again: Whether a reply says nothing, so that it is asked once more, with no more time.
        after: What has to be done before it is sent, besides the reply topic being read.
        hint: What to add to the text of the timeout.
    """

    command: Command
    subject: str
    timeout: float
    read: Callable[[Reply], _T]
    again: Callable[[Reply], bool] = _never
    after: Sequence[Future[None]] = ()
    hint: str = ""


class BlockingResult(abc.ObserverBase[_T]):
    """Observes a question for a thread that waits for its end. The state belongs to the one who tells the end, and from
    the lock's release on to the one who waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # released once, by whom the end is told: no condition, as there is one to wake
        self._lock.acquire()
        self._values: list[_T] = []
        self._error: Exception | None = None

    def on_next(self, value: _T) -> None:
        """Takes what the reply says; that is the end."""
        self._values.append(value)
        self._lock.release()

    def on_error(self, error: Exception) -> None:
        """Takes why there will be none."""
        self._error = error
        self._lock.release()

    def on_completed(self) -> None:
        """Does nothing: the end was told."""

    def wait(self, timeout: float = threading.TIMEOUT_MAX) -> bool:
        """Waits, for at most `timeout` seconds; returns whether the end was told. Not to be called again after that."""
        return self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def result(self) -> _T:
        """Returns what the reply says, or raises the error."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # it may be shared, and would grow by each raise
        return self._values[0]


class SingleReply(Generic[_T]):
    """Asks a question for an observer. All state belongs to the lock; who ends it tells the end.

    Args:
        router: Where the route is.
        ask: Sends commands, after routes for their replies were opened.
        question: What is asked.
        observer: Gets to know what the reply says.
    """

    def __init__(self, router: ReplyRouter, ask: Ask, question: Request[_T], observer: abc.ObserverBase[_T]) -> None:
        self._router = router
        self._send = ask
        self._question = question
        self._observer = observer
        self._timer: SingleAssignmentDisposable | None = None
        self._lock = threading.Lock()
        self._reply_id = ""
        self._asked = 0
        self._ended = False

    def start(self, timers: abc.SchedulerBase) -> None:
        """Asks, and sees to the timeout."""
        timer = self._timer = SingleAssignmentDisposable()
        self.ask()
        if not self._ended:
            timer.disposable = timers.schedule_relative(self._question.timeout, self._due)

    def ask(self) -> None:
        """Asks. Who does no more than that sees to the timeout himself."""
        reply_id = new_reply_id()
        with self._lock:
            if self._ended:
                return
            self._reply_id = reply_id
            self._asked += 1
        self._send({reply_id: self._question.command}, self, self._question.after)
        if self._ended:  # meanwhile, perhaps before the route was open
            self._router.shut((reply_id,))

    def take(self, replies: Sequence[Reply]) -> None:
        """Emits what the first one says, and ends."""
        reply = replies[0]
        if self._asked == 1 and self._question.again(reply):
            self._router.shut((reply.reply_id,))
            self.ask()
        elif self._end():
            try:
                answer = self._question.read(reply)
            except Exception as error:
                self._observer.on_error(error)
                return
            self._observer.on_next(answer)
            self._observer.on_completed()

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:  # noqa: ARG002 - there is one
        """Emits the error."""
        if self._end():
            self._observer.on_error(error)

    def _due(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        self.expire()

    def expire(self) -> None:
        """Emits that it took too long, unless it has ended."""
        if self._end():
            asked = self._question
            self._observer.on_error(OperationTimeout(asked.command.operation, asked.subject, asked.timeout, asked.hint))

    def _end(self) -> bool:
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        if self._timer is not None:
            self._timer.dispose()
        self._router.shut((self._reply_id,))
        return True

    def dispose(self) -> None:
        """Gives it up."""
        self._end()


def check_reply(reply: Reply, operation: str, subject: str) -> None:
    """Does nothing for a reply that is no failure.

    Raises:
        OperationError: It is one.
    """
    if reply.error < 0:
        raise OperationError(reply.error, reply.message, operation, subject)
