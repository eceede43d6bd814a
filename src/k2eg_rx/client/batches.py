"""Gets and puts of many PVs: all commands sent at once, one deadline, one result per PV.

One handler and one timer serve the whole batch, so that a thousand PVs are not a thousand Observables. Results are
offered in the order in which they arrive.

Thread safety: see `k2eg_rx.client.requests` for the threads on which results arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.client.batch import Batch, GetResult, PutResult
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
from k2eg_rx.errors import OperationTimeout, PutWithheldError
from k2eg_rx.protocol import PutCommand, Reply
from k2eg_rx.pv import PVAddress

_NOT_SENT_HINT = "nothing was written: the PV's type did not arrive in time"

_R = TypeVar("_R", GetResult, PutResult)


class _GetBatch(Batch[GetResult]):
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


class _PutBatch(Batch[PutResult]):
    """One subscription to a batch of puts.

    A batch of all or none sends its puts when all types are there and all values fit: an error before that is the end
    of all PVs, and after it `dispose` stops nothing, since a part may have been sent.

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
        all_or_none: bool,
    ) -> None:
        super().__init__(sender, {uri: address for uri, (address, _) in values.items()}, timeout, subscriber)
        self._puts = puts
        self._values = values
        self._wait = wait
        self._check = check
        self._all_or_none = all_or_none
        self._is_committed = False  # its puts are being sent, or were; belongs to the lock, as the next one
        self._is_abandoned = False
        self._ready: dict[str, bytes] = {}  # of all or none, until it is committed; used like `_conversions`
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
        if self._all_or_none:
            self._ready.update(fields)
            if len(self._ready) < len(self._values) or not self._commit():
                return
            fields = self._ready
        for uri, packed in fields.items():
            self._turns[uri].send(partial(self._send_put, uri, packed))

    def _commit(self) -> bool:
        """Returns whether the puts are to be sent; from then on each PV has a result of its own."""
        with self._lock:
            if self._is_abandoned or len(self._waiting) < len(self._values):
                return False
            self._is_committed = True
            return True

    def _with_others(self, results: list[PutResult]) -> list[PutResult]:
        if not self._all_or_none or self._is_committed or not results:
            return results
        cause = results[0]
        error = PutWithheldError(cause.uri, str(cause.error))
        named = {result.uri for result in results}
        return results + [PutResult(uri, error=error) for uri in self._waiting if uri not in named]

    def dispose(self) -> None:
        """Stops without further commands or results, unless a part may have been sent of all or none."""
        with self._lock:
            if self._all_or_none and self._is_committed:
                return  # it ends with its last reply, or its timeout
            self._is_abandoned = True
        super().dispose()

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
        self,
        values: Iterable[tuple[PVAddress, object]],
        timeout: float,
        *,
        wait: bool = False,
        check: bool,
        all_or_none: bool = False,
    ) -> Observable[PutResult]:
        """Returns one result per PV; each subscription sends the commands.

        For `wait` see `put_command`, for `check` see `conversion_of`, for `all_or_none` see `_PutBatch`.
        """
        by_uri = {address.uri: (address, value) for address, value in values}

        def batch(subscriber: SubscriberInput[PutResult]) -> _PutBatch:
            return _PutBatch(
                self._sender,
                self._puts,
                by_uri,
                timeout,
                subscriber,
                wait=wait,
                check=check,
                all_or_none=all_or_none,
            )

        return self._stream(batch, "put", len(by_uri))

    def _stream(self, make: Callable[[SubscriberInput[_R]], Batch[_R]], operation: str, count: int) -> Observable[_R]:
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
