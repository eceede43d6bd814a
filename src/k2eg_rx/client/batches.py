"""Gets and puts of many PVs: all commands sent at once, one deadline, one result per PV.

One handler and one timer serve the whole batch, so that a thousand PVs are not a thousand Observables. Results are
offered in the order in which they arrive.

Thread safety: see `k2eg_rx.client.requests` for the threads on which results arrive.
"""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from k2eg_rx.client.correlation import CommandSender
from k2eg_rx.client.get_put import (
    BEHIND_HINT,
    Conversion,
    Puts,
    conversion_of,
    data_of,
    get_command,
    is_spurious,
    put_command,
)
from k2eg_rx.client.put_progress import PutProgress, error_of_put
from k2eg_rx.client.requests import check_reply
from k2eg_rx.delivery import Dispatcher, SubscriberInput
from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.protocol import Command, PutCommand, PVData, Reply
from k2eg_rx.pv import PVAddress

_NOT_SENT_HINT = "nothing was written: the PV's type did not arrive in time"


@dataclass(frozen=True, slots=True)
class GetResult:
    """The result for one PV of `Client.get_many_stream`: its data or an error.

    Attributes:
        uri: The PV.
        data: The PV's value; None if there is an error.
        error: `OperationTimeout` if no reply arrived in time, `OperationError` if the gateway could not read the PV,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    data: PVData | None = None
    _: KW_ONLY
    error: Exception | None = None

    def result(self) -> PVData:
        """Returns the data, or raises the error."""
        if self.data is None:
            raise self.error or ValueError(f"{self.uri}: the result has neither data nor an error")
        return self.data


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result for one PV of `Client.put_many_stream`: the gateway's reply or an error.

    Attributes:
        uri: The PV.
        reply: The gateway's reply; None if there is an error.
        error: ValueError if the value does not fit the PV, `OperationTimeout` if no reply arrived in time (its message
            says whether the put may still be carried out), `OperationError` if the gateway could not write the PV,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    reply: Reply | None = None
    _: KW_ONLY
    error: Exception | None = None

    def result(self) -> Reply:
        """Returns the reply, or raises the error."""
        if self.reply is None:
            raise self.error or ValueError(f"{self.uri}: the result has neither a reply nor an error")
        return self.reply


_R = TypeVar("_R", GetResult, PutResult)


def results_by_uri(uris: Iterable[str], results: Iterable[_R], kind: type[_R]) -> dict[str, _R]:
    """Returns the results of a batch by URI, in the order of the URIs.

    Args:
        uris: The PVs.
        results: Their results, in any order. Those that are missing have not been sent: the client was closed before.
        kind: `GetResult` or `PutResult`.
    """
    found = {result.uri: result for result in results}
    unsent = ClientClosedError("the client was closed before the command was sent")
    return {uri: found[uri] if uri in found else kind(uri, error=unsent) for uri in uris}


class _Batch(ABC, Generic[_R]):
    """One subscription to a batch; handles the replies to all of its commands.

    Thread safety: the tables belong to the lock; the thread that removes a PV from `_waiting` offers its result.

    Args:
        sender: Sends the commands.
        addresses: The PVs by their URIs.
        timeout: Seconds for the whole batch.
        subscriber: Gets the results.
    """

    def __init__(
        self, sender: CommandSender, addresses: Mapping[str, PVAddress], timeout: float, subscriber: SubscriberInput[_R]
    ) -> None:
        self._sender = sender
        self._addresses = addresses
        self._timeout = timeout
        self._subscriber = subscriber
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(addresses, True)
        self._not_offered = len(addresses)
        self._uris: dict[str, str] = {}  # by reply id, of all commands ever sent
        self._id = uuid.uuid4().hex
        self._timer = SingleAssignmentDisposable()

    @abstractmethod
    def _begin(self) -> None:
        """Sends the first command for each PV."""

    @abstractmethod
    def _handle(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Handles replies with their PVs' URIs, one per command."""

    @abstractmethod
    def _failed(self, uri: str, error: Exception) -> _R:
        """Returns the result of a PV that failed."""

    @abstractmethod
    def _timed_out(self, uri: str) -> OperationTimeout:
        """Returns the error of a PV without a reply in time."""

    def start(self, timers: abc.SchedulerBase) -> None:
        """Starts the timeout and sends the commands."""

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._offer([self._failed(uri, self._timed_out(uri)) for uri in self._give_up()])

        self._timer.disposable = timers.schedule_relative(self._timeout, expire)
        self._begin()

    def _send(self, commands: Mapping[str, Command]) -> None:
        """Sends commands by URI, for those PVs that still wait for a result."""
        with self._lock:
            number = len(self._uris)
            uris = {f"{self._id}-{number + place}": uri for place, uri in enumerate(commands) if uri in self._waiting}
            self._uris.update(uris)
        if uris:
            self._sender.send({reply_id: commands[uri] for reply_id, uri in uris.items()}, self)
            if not self._waiting:  # given up meanwhile, perhaps before the ids were registered
                self._sender.unregister(uris)

    def handle(self, replies: Sequence[Reply]) -> None:
        """Handles the first reply to each command; see `ReplyHandler.handle`."""
        first = {reply.reply_id: reply for reply in reversed(replies)}
        pending = self._sender.unregister(reply.reply_id for reply in replies)
        self._handle((self._uris[reply_id], first[reply_id]) for reply_id in pending)

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:
        """Makes the error the result of some PVs; see `ReplyHandler.fail`."""
        self._finish([self._failed(self._uris[reply_id], error) for reply_id in reply_ids])

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:
        """Records how far a put has come; see `ReplyHandler.on_progress`."""

    def _finish(self, results: Iterable[_R]) -> None:
        """Offers the results of PVs that still wait for one."""
        with self._lock:
            results = [result for result in results if self._waiting.pop(result.uri, False)]
        self._leave(result.uri for result in results)
        self._offer(results)

    def _leave(self, uris: Iterable[str]) -> None:
        """Called with PVs that wait for a result no more."""

    def _offer(self, results: Sequence[_R]) -> None:
        """Offers results; the thread that offers the last one completes the stream, as threads may overtake others."""
        if not results:
            return
        self._subscriber.offer(results)
        with self._lock:
            self._not_offered -= len(results)
            complete = self._not_offered == 0
        if complete:
            self._timer.dispose()
            self._subscriber.finish()

    def _give_up(self) -> list[str]:
        """Stops waiting; returns the PVs without a result."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            reply_ids = list(self._uris)
        self._sender.unregister(reply_ids)
        self._leave(waiting)
        return list(waiting)

    def dispose(self) -> None:
        """Stops without further commands or results."""
        self._timer.dispose()
        self._give_up()


class _GetBatch(_Batch[GetResult]):
    """One subscription to a batch of gets; `_repeated` belongs to the reply poll thread."""

    def __init__(
        self,
        sender: CommandSender,
        addresses: Mapping[str, PVAddress],
        timeout: float,
        subscriber: SubscriberInput[GetResult],
    ) -> None:
        super().__init__(sender, addresses, timeout, subscriber)
        self._repeated: set[str] = set()

    def _begin(self) -> None:
        self._send({uri: get_command(address, self._timeout) for uri, address in self._addresses.items()})

    def _handle(self, replies: Iterable[tuple[str, Reply]]) -> None:
        results: list[GetResult] = []
        spurious: list[str] = []
        for uri, reply in replies:
            if is_spurious(reply) and uri not in self._repeated:
                spurious.append(uri)
                continue
            try:
                results.append(GetResult(uri, data_of(self._addresses[uri], reply)))
            except Exception as error:  # of this PV only
                results.append(self._failed(uri, error))
        self._finish(results)
        if spurious:
            self._repeated.update(spurious)
            self._send({uri: get_command(self._addresses[uri], self._timeout) for uri in spurious})

    def _failed(self, uri: str, error: Exception) -> GetResult:
        return GetResult(uri, error=error)

    def _timed_out(self, uri: str) -> OperationTimeout:
        return OperationTimeout("get", uri, self._timeout, self._sender.why_no_reply())


class _PutBatch(_Batch[PutResult]):
    """One subscription to a batch of puts.

    Thread safety: `_conversions` is used by one thread at a time, the subscribing one, then the reply poll thread;
    `_progress` has an entry for each put that was passed on to be sent, written by one thread at a time. `_turns` does
    not change; puts are sent on the threads that `put_order` names.
    """

    def __init__(
        self,
        sender: CommandSender,
        puts: Puts,
        values: Mapping[str, tuple[PVAddress, object]],
        timeout: float,
        subscriber: SubscriberInput[PutResult],
        *,
        wait: bool,
        check: bool,
    ) -> None:
        super().__init__(sender, {uri: address for uri, (address, _) in values.items()}, timeout, subscriber)
        self._puts = puts
        self._values = values
        self._wait = wait
        self._check = check
        self._conversions: dict[str, bytes | Conversion] = {}  # of PVs whose type was requested
        self._progress: dict[str, PutProgress] = {}
        self._turns = {
            uri: puts.order.enter(address, partial(self._abandon, uri)) for uri, (address, _) in values.items()
        }

    def _begin(self) -> None:
        ready: dict[str, bytes] = {}
        rejected: list[PutResult] = []
        for uri, (address, value) in self._values.items():
            try:
                conversion = conversion_of(address, value, check=self._check)
                fields = self._puts.known_fields(address, conversion)
            except Exception as error:  # of this value only
                rejected.append(self._failed(uri, error))
                continue
            if fields is None:
                self._conversions[uri] = conversion
            else:
                ready[uri] = fields
        type_commands = {
            uri: get_command(self._addresses[uri], self._timeout, describe=True) for uri in self._conversions
        }
        self._finish(rejected)
        self._put(ready)
        self._send(type_commands)

    def _put(self, fields: Mapping[str, bytes]) -> None:
        for uri, packed in fields.items():
            self._turns[uri].send(partial(self._send_put, uri, packed))

    def _send_put(self, uri: str, fields: bytes) -> None:
        with self._lock:
            if uri not in self._waiting:
                return  # the result says that it was not sent
            self._progress[uri] = PutProgress.UNSENT
        self._send({uri: put_command(self._addresses[uri], fields, self._timeout, wait=self._wait)})

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:
        """Keeps what the error of a put says."""
        self._progress[self._uris[reply_id]] = progress

    def _abandon(self, uri: str, error: Exception) -> None:
        self._finish([PutResult(uri, error=error)])

    def _leave(self, uris: Iterable[str]) -> None:
        for uri in uris:
            self._turns[uri].leave()

    def _handle(self, replies: Iterable[tuple[str, Reply]]) -> None:
        ready: dict[str, bytes] = {}
        results: list[PutResult] = []
        for uri, reply in replies:
            try:
                conversion = self._conversions.pop(uri, None)
                if conversion is not None:
                    ready[uri] = self._puts.learn(self._addresses[uri], reply, conversion)
                else:
                    check_reply(reply, PutCommand.operation, uri)
                    results.append(PutResult(uri, reply))
            except Exception as error:  # of this value only, whatever a value's own methods raise
                results.append(self._failed(uri, error))
        self._finish(results)
        self._put(ready)

    def _failed(self, uri: str, error: Exception) -> PutResult:
        progress = self._progress.get(uri)
        if progress is not None:
            self._puts.forget(self._addresses[uri])
            error = error_of_put(error, progress)
        return PutResult(uri, error=error)

    def _timed_out(self, uri: str) -> OperationTimeout:
        progress = self._progress.get(uri)
        not_sent = _NOT_SENT_HINT if uri in self._conversions else BEHIND_HINT
        known = not_sent if progress is None else progress.value
        hint = "; ".join(filter(None, (known, self._sender.why_no_reply())))
        return OperationTimeout("put", uri, self._timeout, hint)


class Batches:
    """Gets and puts of many PVs for one client.

    Args:
        sender: Sends the commands.
        puts: Caches the types of PVs.
        dispatcher: Calls the subscribers.
        timers: The scheduler of the timeouts.
    """

    def __init__(self, sender: CommandSender, puts: Puts, dispatcher: Dispatcher, *, timers: abc.SchedulerBase) -> None:
        self._sender = sender
        self._puts = puts
        self._dispatcher = dispatcher
        self._timers = timers

    def get_many(self, addresses: Iterable[PVAddress], timeout: float) -> Observable[GetResult]:
        """Returns one result per distinct PV; each subscription sends the commands."""
        by_uri = {address.uri: address for address in addresses}

        def batch(subscriber: SubscriberInput[GetResult]) -> _GetBatch:
            return _GetBatch(self._sender, by_uri, timeout, subscriber)

        return self._stream(batch, "get", len(by_uri))

    def put_many(
        self, values: Iterable[tuple[PVAddress, object]], timeout: float, *, wait: bool = False, check: bool
    ) -> Observable[PutResult]:
        """Returns one result per PV; each subscription sends the commands.

        For `wait` see `put_command`, for `check` see `conversion_of`.
        """
        by_uri = {address.uri: (address, value) for address, value in values}

        def batch(subscriber: SubscriberInput[PutResult]) -> _PutBatch:
            return _PutBatch(self._sender, self._puts, by_uri, timeout, subscriber, wait=wait, check=check)

        return self._stream(batch, "put", len(by_uri))

    def _stream(self, make: Callable[[SubscriberInput[_R]], _Batch[_R]], operation: str, count: int) -> Observable[_R]:
        def attach(subscriber: SubscriberInput[_R]) -> abc.DisposableBase:
            batch = make(subscriber)
            try:
                batch.start(self._timers)
            except BaseException:
                batch.dispose()
                raise
            return Disposable(batch.dispose)

        # a queue that never fills: results must not hold back the events of monitors
        return self._dispatcher.stream(attach, f"{operation} of {count} PVs", capacity=count + 1)
