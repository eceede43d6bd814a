"""PVAccess for the gateway, over p4p.

Monitors have a client of their own, with a connection per server and a worker thread. Updates that come faster than
they are handled wait in the connection, for seconds; gets and puts do not wait behind them.

Thread safety: methods are callable on any thread. Callbacks run on p4p's worker threads, one for monitors and one for
gets and puts, so a slow callback delays everything of its kind. Timeouts, and what could wait for a worker thread, run
on the thread ``k2eg-pva``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, TypeVar

from p4p.client import raw as p4p_raw
from reactivex.abc import DisposableBase

from k2eg_rx.concurrency import TimerScheduler
from k2eg_rx.gateway.epics.native_threads import keep_thread_state
from k2eg_rx.gateway.epics.provider import (
    NotSentError,
    ProviderError,
    ProviderTimeout,
    PVReading,
    Subscription,
    channel_name,
    no_answer,
    selected_field,
)
from k2eg_rx.gateway.epics.pva_puts import fill
from k2eg_rx.gateway.epics.pva_subscription import PVASubscription
from k2eg_rx.gateway.epics.pva_values import ValueReaderCache, types_of
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress

_raw: Any = p4p_raw

_IDLE_SECONDS = 300.0  # until an unused channel is closed; it costs little, reopening takes a search and about 15 ms
_SWEEP_SECONDS = 60.0
_DISPOSE_SECONDS = 0.05  # completed operations are closed in batches, which wakes the thread less often
_MAX_IDLE_CHANNELS = 10_000
_QUEUE_SIZE = 100  # updates per subscription: 0.1 s of a PV at 1 kHz; p4p's default of 4 loses a third at 5 kHz

_CLOSED = "the PVAccess provider is closed"

Result = TypeVar("Result")


def _nested(path: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the fields of the whole PV for a put of ``value`` to the structure field at `path`."""
    if "value" not in fields:
        return {}
    nested: Any = fields["value"]
    for step in reversed(path.split(".")):
        nested = {step: nested}
    return nested


def _complete(future: Future[Any], outcome: object) -> None:
    """Completes a future with a result or an exception, unless it is done or cancelled."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, ProviderTimeout):
            future.set_exception(outcome)
        elif isinstance(outcome, Exception):  # p4p wraps an exception of a put's builder in another one
            future.set_exception(ProviderError(str(outcome) or type(outcome).__name__))
        else:
            future.set_result(outcome)


class PVAccessProvider:
    """A `Provider` for PVAccess.

    A PV's channel stays open for minutes after its last use, so only the first get needs a search.

    Args:
        conf: The EPICS_PVA_* variables to use instead of those in the environment.
    """

    def __init__(self, conf: Mapping[str, str] | None = None) -> None:
        useenv = conf is None
        self._operations, self._monitors = (
            _raw.Context("pva", conf=dict(conf or {}), useenv=useenv, nt=False) for _ in range(2)
        )
        self._put_request = _raw.Context.makeRequest("field()record[process=passive]")
        self._waiting_put_request = _raw.Context.makeRequest("field()record[process=passive,block=true]")
        self._monitor_request = _raw.Context.makeRequest(f"field()record[queueSize={_QUEUE_SIZE}]")
        self._timers = TimerScheduler("k2eg-pva")
        self._lock = threading.Lock()
        self._closed = False
        self._pending: set[Future[Any]] = set()
        self._subscriptions: set[PVASubscription] = set()
        # time of last use and an operation by channel: p4p keeps a channel open until its operations are closed,
        # even if they have completed
        self._channels: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._to_dispose: list[Any] = []
        self._readers = ValueReaderCache()  # belongs to the worker thread of gets and puts
        self._sweep()

    def problem(self) -> str:
        """Returns why nothing can be read; empty if something can."""
        return _CLOSED if self._closed else ""

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """See `Provider.get`."""
        name = channel_name(address)
        return self._start(
            name,
            timeout,
            lambda done: self._operations.get(name, done),
            partial(self._read, address),
            lambda: no_answer(address.name, timeout),
        )

    def _read(self, address: PVAddress, value: Any) -> PVReading:
        """Returns the result of a get. Called on the worker thread."""
        structure, types, spec = self._readers.read(value)
        if not address.field or address.is_record_field:
            return PVReading(structure, types)
        return PVReading(selected_field(structure, address), types_of(spec, address.field))

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """See `Provider.put`."""
        name = channel_name(address)
        if address.field and not address.is_record_field:
            fields = _nested(address.field, fields)
        sent = threading.Event()
        request = self._waiting_put_request if wait else self._put_request

        def build(value: Any) -> None:
            fill(value, fields, address.name)
            if not may_send():
                raise NotSentError
            sent.set()
            if wait:
                on_written()  # a later put goes through the same connection, after this one

        def start(done: Callable[[object], None]) -> Any:
            # get=True: the checks need the current value, such as the labels of an enum
            return self._operations.put(name, done, builder=build, request=request, get=True)

        return self._start(
            name, timeout, start, lambda _: None, lambda: no_answer(address.name, timeout, sent, wait=wait)
        )

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> Subscription:
        """See `Provider.subscribe`."""

        def monitor(on_signal: Callable[[], None]) -> Any:
            return self._monitors.monitor(channel_name(address), on_signal, request=self._monitor_request)

        subscription = PVASubscription(
            address,
            on_update,
            on_connection,
            on_unreadable,
            monitor=monitor,
            timers=self._timers,
            on_close=self._remove,
        )
        with self._lock:
            if self._closed:
                raise ProviderError(_CLOSED)
            self._subscriptions.add(subscription)
        try:
            subscription.open()
        except BaseException:  # p4p refuses the PV's name, for example
            self._remove(subscription)
            raise
        return subscription

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent; not callable in a callback."""
        with self._lock:
            closed, self._closed = self._closed, True
            pending, subscriptions = list(self._pending), list(self._subscriptions)
        if closed:
            return
        for future in pending:
            _complete(future, ProviderError(_CLOSED))
        for subscription in subscriptions:
            subscription.close()
        self._timers.drain()
        self._to_dispose += [operation for _, operation in self._channels.values()]
        self._channels.clear()
        self._dispose()
        self._operations.close()
        self._monitors.close()

    def _start(
        self,
        name: str,
        timeout: float,
        start: Callable[[Callable[[object], None]], Any],
        convert: Callable[[Any], Result],
        timeout_error: Callable[[], ProviderTimeout],
    ) -> Future[Result]:
        """Starts an operation and returns its future.

        Args:
            name: The channel name.
            timeout: In seconds.
            start: Starts and returns p4p's operation, given the callback for its result on the worker thread.
            convert: Converts p4p's result.
            timeout_error: Returns the error for a timeout.
        """
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(ProviderError(_CLOSED))
                return future
            self._pending.add(future)

        def done(result: object) -> None:
            keep_thread_state()
            try:
                outcome = result if isinstance(result, Exception) else convert(result)
            except Exception as error:
                outcome = error
            _complete(future, outcome)

        try:
            operation = start(done)
        except Exception as error:  # p4p refuses the operation, for example because of the PV name
            _complete(future, error)
            operation = None
        timer = self._timers.call_later(timeout, lambda: _complete(future, timeout_error()))
        future.add_done_callback(lambda future: self._on_done(future, name, operation, timer))
        return future

    def _on_done(self, future: Future[Any], name: str, operation: Any, timer: DisposableBase) -> None:
        timer.dispose()
        first = False
        with self._lock:
            self._pending.discard(future)
            if not self._closed and not future.cancelled() and future.exception() is None:
                _, previous = self._channels.pop(name, (0.0, None))
                self._channels[name] = (time.monotonic(), operation)
                operation = previous
            if operation is not None:
                self._to_dispose.append(operation)
                first = len(self._to_dispose) == 1
        if first:
            self._timers.call_later(_DISPOSE_SECONDS, self._dispose)

    def _dispose(self) -> None:
        """Closes completed operations. Not on the worker thread, where p4p's native code warns about it."""
        with self._lock:
            operations, self._to_dispose = self._to_dispose, []
        for operation in operations:
            operation.close()

    def _sweep(self) -> None:
        """Closes channels that have not been used for long."""
        oldest = time.monotonic() - _IDLE_SECONDS
        while True:
            with self._lock:
                used, operation = next(iter(self._channels.values()), (oldest, None))
                if operation is None or (used > oldest and len(self._channels) <= _MAX_IDLE_CHANNELS):
                    break
                self._channels.popitem(last=False)
            operation.close()
        self._timers.call_later(_SWEEP_SECONDS, self._sweep)

    def _remove(self, subscription: PVASubscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)
