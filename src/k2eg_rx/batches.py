"""Many PVs read or written at once: one deadline for all of them, and a result for each.

In: addresses, and for puts their values. Out: to the subscriber's inlet a result per PV, in the order in which they
come, then the end. All commands are sent without waiting for a reply, over the one reply route of the client, and one
timer stands for all; results come from the library's own threads, see `requests`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from k2eg_rx.delivery import Delivery
from k2eg_rx.errors import OperationTimeout
from k2eg_rx.mailbox import Inlet
from k2eg_rx.puts import LATE, Puts
from k2eg_rx.pv import PvAddress
from k2eg_rx.reads import Reads
from k2eg_rx.wire.messages import PVData, Reply

_A = TypeVar("_A")
_R = TypeVar("_R")

_NOTHING_SENT = "nothing was written: it did not tell its type in time"


@dataclass(frozen=True, slots=True)
class GetResult:
    """What became of one PV of `get_many_stream`: its data, or why there are none.

    Attributes:
        uri: The PV.
        data: Its value; None if there is an error.
        error: `OperationTimeout` if it did not answer in time, `OperationError` if the gateway could not read it,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    data: PVData | None = None
    error: Exception | None = None

    def result(self) -> PVData:
        """Returns the data, or raises the error."""
        if self.data is None:
            raise self.error or ValueError(f"{self.uri}: neither data nor an error")
        return self.data


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of one PV of `put_many_stream`: the gateway's reply, or why there is none.

    Attributes:
        uri: The PV.
        reply: The gateway's; None if there is an error.
        error: ValueError if the value does not fit the PV, `OperationTimeout` if it did not answer in time (the text
            says whether the put may still be carried out), `OperationError` if the gateway could not write it,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    reply: Reply | None = None
    error: Exception | None = None

    def result(self) -> Reply:
        """Returns the reply, or raises the error."""
        if self.reply is None:
            raise self.error or ValueError(f"{self.uri}: neither a reply nor an error")
        return self.reply


class _Run(ABC, Generic[_A, _R]):
    """One subscription to a batch.

    If the client is closed while commands are being sent, the stream ends, and those that were not sent have no result.

    The tables belong to the lock; whoever takes a PV out of `_waiting` tells its result.

    Args:
        uris: The PVs.
        timeout: Seconds for all of them.
        inlet: Where the results go.
    """

    def __init__(self, uris: Iterable[str], timeout: float, inlet: Inlet[_R]) -> None:
        self._timeout = timeout
        self._inlet = inlet
        self._lock = threading.Lock()
        self._waiting = {uri: SingleAssignmentDisposable() for uri in uris}
        self._untold = len(self._waiting)
        self._timer = SingleAssignmentDisposable()

    @abstractmethod
    def _request(self, uri: str) -> Observable[_A]:
        """Returns what asks for a PV; may raise for a value that cannot be sent."""

    @abstractmethod
    def _result(self, uri: str, answer: _A | None, error: Exception | None) -> _R:
        """Returns a PV's result."""

    @abstractmethod
    def _late(self, uri: str) -> OperationTimeout:
        """Returns the error of a PV that did not answer in time."""

    def start(self, timers: abc.SchedulerBase) -> None:
        """Sends all commands."""

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._expire()

        self._timer.disposable = timers.schedule_relative(self._timeout, expire)
        for uri, subscription in list(self._waiting.items()):
            if uri in self._waiting:  # else it is too late already, or nobody is interested any more
                subscription.disposable = self._ask(uri)

    def _ask(self, uri: str) -> abc.DisposableBase:
        def answered(answer: _A) -> None:
            self._settle(uri, answer, None)

        def failed(error: Exception) -> None:
            self._settle(uri, None, error)

        try:
            return self._request(uri).subscribe(answered, failed)
        except Exception as error:  # a value that cannot be sent; the others can
            failed(error)
            return Disposable()

    def _settle(self, uri: str, answer: _A | None, error: Exception | None) -> None:
        with self._lock:
            if self._waiting.pop(uri, None) is None:
                return
        self._tell([self._result(uri, answer, error)])

    def _expire(self) -> None:
        late = self._forget()
        if late:
            self._tell([self._result(uri, None, self._late(uri)) for uri in late])

    def _tell(self, results: list[_R]) -> None:
        """Offers results. The end is told by whoever counts the last: it may have overtaken others on their way."""
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
        for subscription in waiting.values():
            subscription.dispose()
        return list(waiting)

    def dispose(self) -> None:
        """Gives up: nothing more is sent or told."""
        self._timer.dispose()
        self._forget()


class _Gets(_Run[PVData, GetResult]):
    """One subscription to a batch of gets."""

    def __init__(
        self, reads: Reads, addresses: Mapping[str, PvAddress], timeout: float, inlet: Inlet[GetResult]
    ) -> None:
        super().__init__(addresses, timeout, inlet)
        self._reads = reads
        self._addresses = addresses

    def _request(self, uri: str) -> Observable[PVData]:
        return self._reads.get(self._addresses[uri], None)

    def _result(self, uri: str, answer: PVData | None, error: Exception | None) -> GetResult:
        return GetResult(uri, answer, error)

    def _late(self, uri: str) -> OperationTimeout:
        return OperationTimeout("get", uri, self._timeout)


class _Puts(_Run[Reply, PutResult]):
    """One subscription to a batch of puts. Knows of which PVs a put was sent, by the lock."""

    def __init__(
        self,
        puts: Puts,
        values: Mapping[str, tuple[PvAddress, object]],
        timeout: float,
        inlet: Inlet[PutResult],
        *,
        check: bool,
    ) -> None:
        super().__init__(values, timeout, inlet)
        self._puts = puts
        self._values = values
        self._check = check
        self._sent: set[str] = set()

    def _request(self, uri: str) -> Observable[Reply]:
        address, value = self._values[uri]

        def send(fields: bytes) -> Observable[Reply]:
            with self._lock:
                if uri not in self._waiting:
                    return rx.never()  # it was told that nothing was sent
                self._sent.add(uri)
            return self._puts.send(address, fields, None)

        return self._puts.fields(address, value, None, check=self._check).pipe(ops.flat_map(send))

    def _result(self, uri: str, answer: Reply | None, error: Exception | None) -> PutResult:
        return PutResult(uri, answer, error)

    def _late(self, uri: str) -> OperationTimeout:
        return OperationTimeout("put", uri, self._timeout, LATE if uri in self._sent else _NOTHING_SENT)


class Batches:
    """Reads and writes many PVs at once, for one client.

    Args:
        reads: What reads one.
        puts: What writes one.
        delivery: What hands over to subscribers.
        timers: The scheduler of the deadlines.
    """

    def __init__(self, reads: Reads, puts: Puts, delivery: Delivery, *, timers: abc.SchedulerBase) -> None:
        self._reads = reads
        self._puts = puts
        self._delivery = delivery
        self._timers = timers

    def get_many(self, addresses: Iterable[PvAddress], timeout: float) -> Observable[GetResult]:
        """Returns a result per PV, each PV once; each subscription sends all the commands.

        Args:
            addresses: The PVs.
            timeout: Seconds after which those without an answer have `OperationTimeout` as their result.
        """
        by_uri = {address.uri: address for address in addresses}

        def run(inlet: Inlet[GetResult]) -> _Gets:
            return _Gets(self._reads, by_uri, timeout, inlet)

        return self._stream(run, f"get of {len(by_uri)} PVs", len(by_uri))

    def put_many(
        self, values: Iterable[tuple[PvAddress, object]], timeout: float, *, check: bool
    ) -> Observable[PutResult]:
        """Returns a result per PV; each subscription sends all the commands.

        Args:
            values: The PVs, and what to write to them.
            timeout: Seconds after which those without an answer have `OperationTimeout` as their result.
            check: Whether plain values are converted to the PV's type and checked first.
        """
        by_uri = {address.uri: (address, value) for address, value in values}

        def run(inlet: Inlet[PutResult]) -> _Puts:
            return _Puts(self._puts, by_uri, timeout, inlet, check=check)

        return self._stream(run, f"put of {len(by_uri)} PVs", len(by_uri))

    def _stream(self, run: Callable[[Inlet[_R]], _Run[_A, _R]], label: str, count: int) -> Observable[_R]:
        def attach(inlet: Inlet[_R]) -> abc.DisposableBase:
            started = run(inlet)
            started.start(self._timers)
            return Disposable(started.dispose)

        # a mailbox that is never full: results do not hold back the events of monitors
        return self._delivery.stream(attach, label, capacity=count + 1)
