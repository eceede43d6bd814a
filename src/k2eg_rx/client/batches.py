"""Many PVs read or written at once: one deadline for all of them, and a result for each.

In: addresses, and for puts their values. Out: to the subscriber's inlet a result per PV, in the order in which they
come and as many at once as came at once, then the end. All commands are sent without waiting for a reply, one object
asks for all of them, and one timer stands for all: a thousand PVs are no thousand streams. Results come from the
library's own threads, see `requests`.
"""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from k2eg_rx.client.correlation import CommandSender
from k2eg_rx.client.puts import LATE, Conversion, Puts, type_question
from k2eg_rx.client.reads import data_of, is_spurious
from k2eg_rx.client.requests import check_reply
from k2eg_rx.client.results import GetResult, PutResult
from k2eg_rx.delivery import Dispatcher, SubscriberInput
from k2eg_rx.errors import OperationTimeout
from k2eg_rx.protocol import Command, GetCommand, PutCommand, Reply
from k2eg_rx.pv import PVAddress

_NOTHING_SENT = "nothing was written: it did not tell its type in time"

_R = TypeVar("_R", GetResult, PutResult)


class _Run(ABC, Generic[_R]):
    """One subscription to a batch: who asks for all of its PVs.

    The tables belong to the lock; whoever takes a PV out of `_waiting` tells its result.

    Args:
        sender: Sends the commands.
        addresses: The PVs by their URIs.
        timeout: Seconds for all of them.
        inlet: Where the results go.
    """

    def __init__(
        self, sender: CommandSender, addresses: Mapping[str, PVAddress], timeout: float, inlet: SubscriberInput[_R]
    ) -> None:
        self._sender = sender
        self._addresses = addresses
        self._timeout = timeout
        self._inlet = inlet
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(addresses, True)
        self._untold = len(addresses)
        self._asked: dict[str, str] = {}  # the URI by reply id; nothing is taken out of it
        self._id = uuid.uuid4().hex
        self._timer = SingleAssignmentDisposable()

    @abstractmethod
    def _begin(self) -> None:
        """Asks for all PVs."""

    @abstractmethod
    def _answered(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Sees to replies, each to a command of its own."""

    @abstractmethod
    def _failed(self, uri: str, error: Exception) -> _R:
        """Returns the result of a PV that has none but an error."""

    @abstractmethod
    def _late(self, uri: str) -> OperationTimeout:
        """Returns the error of a PV that did not answer in time."""

    def start(self, timers: abc.SchedulerBase) -> None:
        """Sends all commands."""

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._tell([self._failed(uri, self._late(uri)) for uri in self._forget()], taken=True)

        self._timer.disposable = timers.schedule_relative(self._timeout, expire)
        self._begin()

    def _ask(self, commands: Mapping[str, Command]) -> None:
        """Sends a command for each of some PVs, if they still wait for their results."""
        with self._lock:
            number = len(self._asked)
            asked = {f"{self._id}-{number + place}": uri for place, uri in enumerate(commands) if uri in self._waiting}
            self._asked.update(asked)
        if asked:
            self._sender.send({reply_id: commands[uri] for reply_id, uri in asked.items()}, self)
            if not self._waiting:  # given up meanwhile, perhaps before the routes were open
                self._sender.unregister(asked)

    def handle(self, replies: Sequence[Reply]) -> None:
        """Takes replies; the first one to a command counts. See `ReplyHandler`."""
        first = {reply.reply_id: reply for reply in reversed(replies)}
        expected = self._sender.unregister(reply.reply_id for reply in replies)
        self._answered((self._asked[reply_id], first[reply_id]) for reply_id in expected)

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:
        """Takes an error. See `ReplyHandler`."""
        self._tell([self._failed(self._asked[reply_id], error) for reply_id in reply_ids])

    def _tell(self, results: Sequence[_R], *, taken: bool = False) -> None:
        """Offers the results of PVs that wait for theirs, or did until they were taken out for this.

        The end is told by whoever counts the last: it may have overtaken others on their way.
        """
        if not taken:
            with self._lock:
                results = [result for result in results if self._waiting.pop(result.uri, False)]
        if not results:
            return
        self._inlet.offer(results)
        with self._lock:
            self._untold -= len(results)
            complete = self._untold == 0
        if complete:
            self._timer.dispose()
            self._inlet.finish()

    def _forget(self) -> list[str]:
        """Gives up what is still waited for; returns the PVs."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            asked = list(self._asked)
        self._sender.unregister(asked)
        return list(waiting)

    def dispose(self) -> None:
        """Gives up: nothing more is sent or told."""
        self._timer.dispose()
        self._forget()


class _Gets(_Run[GetResult]):
    """One subscription to a batch of gets. What was repeated is known to the thread of the replies."""

    def __init__(
        self,
        sender: CommandSender,
        addresses: Mapping[str, PVAddress],
        timeout: float,
        inlet: SubscriberInput[GetResult],
    ) -> None:
        super().__init__(sender, addresses, timeout, inlet)
        self._repeated: set[str] = set()

    def _begin(self) -> None:
        self._ask({uri: GetCommand(uri) for uri in self._addresses})

    def _answered(self, replies: Iterable[tuple[str, Reply]]) -> None:
        results: list[GetResult] = []
        again: list[str] = []
        for uri, reply in replies:
            if is_spurious(reply) and uri not in self._repeated:
                again.append(uri)
                continue
            try:
                results.append(GetResult(uri, data_of(self._addresses[uri], reply)))
            except Exception as error:  # what is no answer of that PV's; the others may
                results.append(self._failed(uri, error))
        self._tell(results)
        if again:
            self._repeated.update(again)
            self._ask({uri: GetCommand(uri) for uri in again})

    def _failed(self, uri: str, error: Exception) -> GetResult:
        return GetResult(uri, error=error)

    def _late(self, uri: str) -> OperationTimeout:
        return OperationTimeout("get", uri, self._timeout)


class _Puts(_Run[PutResult]):
    """One subscription to a batch of puts.

    It knows what still has to learn a type, on one thread at a time: the subscriber's, then that of the replies; and of
    which PVs a put was sent, by the lock.
    """

    def __init__(
        self,
        sender: CommandSender,
        puts: Puts,
        values: Mapping[str, tuple[PVAddress, object]],
        timeout: float,
        inlet: SubscriberInput[PutResult],
        *,
        check: bool,
    ) -> None:
        super().__init__(sender, {uri: address for uri, (address, _) in values.items()}, timeout, inlet)
        self._puts = puts
        self._values = values
        self._check = check
        self._learning: dict[str, bytes | Conversion] = {}
        self._sent: set[str] = set()

    def _begin(self) -> None:
        ready: dict[str, bytes] = {}
        refused: list[PutResult] = []
        for uri, (address, value) in self._values.items():
            try:
                conversion = self._puts.conversion(address, value, check=self._check)
                fields = self._puts.known(address, conversion)
            except Exception as error:  # a value that cannot be sent; the others can
                refused.append(self._failed(uri, error))
                continue
            if fields is None:
                self._learning[uri] = conversion
            else:
                ready[uri] = fields
        questions = {uri: type_question(self._addresses[uri]) for uri in self._learning}
        self._tell(refused)
        self._put(ready)
        self._ask(questions)

    def _put(self, fields: Mapping[str, bytes]) -> None:
        with self._lock:
            puts = {uri: PutCommand(uri, sent) for uri, sent in fields.items() if uri in self._waiting}
            self._sent.update(puts)  # the others were told that nothing was sent
        self._ask(puts)

    def _answered(self, replies: Iterable[tuple[str, Reply]]) -> None:
        ready: dict[str, bytes] = {}
        results: list[PutResult] = []
        for uri, reply in replies:
            try:
                conversion = self._learning.pop(uri, None)
                if conversion is not None:
                    ready[uri] = self._puts.learn(self._addresses[uri], reply, conversion)
                else:
                    check_reply(reply, PutCommand.operation, uri)
                    results.append(PutResult(uri, reply))
            except Exception as error:  # a value that does not fit, of whatever type; the others may
                results.append(self._failed(uri, error))
        self._tell(results)
        self._put(ready)

    def _failed(self, uri: str, error: Exception) -> PutResult:
        if uri in self._sent:
            self._puts.forget(self._addresses[uri])
        return PutResult(uri, error=error)

    def _late(self, uri: str) -> OperationTimeout:
        return OperationTimeout("put", uri, self._timeout, LATE if uri in self._sent else _NOTHING_SENT)


class Batches:
    """Reads and writes many PVs at once, for one client.

    Args:
        sender: Sends the commands.
        puts: What knows the types of PVs.
        delivery: What hands over to subscribers.
        timers: The scheduler of the deadlines.
    """

    def __init__(self, sender: CommandSender, puts: Puts, delivery: Dispatcher, *, timers: abc.SchedulerBase) -> None:
        self._sender = sender
        self._puts = puts
        self._delivery = delivery
        self._timers = timers

    def get_many(self, addresses: Iterable[PVAddress], timeout: float) -> Observable[GetResult]:
        """Returns a result per PV, each PV once; each subscription sends all the commands.

        Args:
            addresses: The PVs.
            timeout: Seconds after which those without an answer have `OperationTimeout` as their result.
        """
        by_uri = {address.uri: address for address in addresses}

        def run(inlet: SubscriberInput[GetResult]) -> _Gets:
            return _Gets(self._sender, by_uri, timeout, inlet)

        return self._stream(run, f"get of {len(by_uri)} PVs", len(by_uri))

    def put_many(
        self, values: Iterable[tuple[PVAddress, object]], timeout: float, *, check: bool
    ) -> Observable[PutResult]:
        """Returns a result per PV; each subscription sends all the commands.

        Args:
            values: The PVs, and what to write to them.
            timeout: Seconds after which those without an answer have `OperationTimeout` as their result.
            check: Whether plain values are converted to the PV's type and checked first.
        """
        by_uri = {address.uri: (address, value) for address, value in values}

        def run(inlet: SubscriberInput[PutResult]) -> _Puts:
            return _Puts(self._sender, self._puts, by_uri, timeout, inlet, check=check)

        return self._stream(run, f"put of {len(by_uri)} PVs", len(by_uri))

    def _stream(self, run: Callable[[SubscriberInput[_R]], _Run[_R]], label: str, count: int) -> Observable[_R]:
        def attach(inlet: SubscriberInput[_R]) -> abc.DisposableBase:
            started = run(inlet)
            started.start(self._timers)
            return Disposable(started.dispose)

        # a mailbox that is never full: results do not hold back the events of monitors
        return self._delivery.stream(attach, label, capacity=count + 1)
