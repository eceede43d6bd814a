"""PVAccess for the gateway, over p4p.

In: gets, puts and subscriptions, on any thread. Out: futures and callbacks. They come on p4p's worker thread (one for a
provider), so what is done in a callback delays all that this provider reads; deadlines expire, and what might wait for
the worker is done, on the thread ``k2eg-pva``.
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
from k2eg_rx.errors import OperationError
from k2eg_rx.gateway.epics.native_threads import keep_thread_state
from k2eg_rx.gateway.epics.provider import PUT_COMPLETION, ProviderError, ProviderTimeout, PVReading, Subscription
from k2eg_rx.gateway.epics.pva_puts import fill
from k2eg_rx.gateway.epics.pva_subscription import PVASubscription
from k2eg_rx.gateway.epics.pva_values import ValueReaderCache, types_of
from k2eg_rx.protocol import Structure, select_field
from k2eg_rx.pv import PVAddress

_raw: Any = p4p_raw

_IDLE_SECONDS = 300.0  # an open channel costs little; to find it anew costs a search and about 15 ms
_SWEEP_SECONDS = 60.0
_DISPOSE_SECONDS = 0.05  # in one go, which wakes the thread less often
_MOST_CHANNELS = 10_000  # kept open though nobody uses them just now
_QUEUE_SIZE = 100  # updates of one PV on their way: 0.1 s of one at 1 kHz. p4p's own 4 lose a third at 5 kHz

_CLOSED = "the PVAccess provider is closed"

Result = TypeVar("Result")


def _channel_name(address: PVAddress) -> str:
    """A record's field is a channel of its own; a path in the structure is selected from the whole."""
    return address.name if address.is_record_field else address.base


def _nested(path: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the fields of a whole PV that put ``value`` into the field at a path of it."""
    if "value" not in fields:
        return {}
    nested: Any = fields["value"]
    for step in reversed(path.split(".")):
        nested = {step: nested}
    return nested


def _settle(future: Future[Any], outcome: object) -> None:
    with contextlib.suppress(InvalidStateError):  # it is done already, or its owner has cancelled it
        if isinstance(outcome, ProviderTimeout):
            future.set_exception(outcome)
        elif isinstance(outcome, Exception):  # p4p wraps that of a put's builder in another one
            future.set_exception(ProviderError(str(outcome) or type(outcome).__name__))
        else:
            future.set_result(outcome)


class PVAccessProvider:
    """A `Provider` for PVAccess.

    A PV's channel stays open for minutes after its last use, so that all but the first get take about the PV's own
    latency.
    """

    def __init__(self, conf: Mapping[str, str] | None = None, *, completion: float = PUT_COMPLETION) -> None:
        """
        Args:
            conf: The EPICS_PVA_* variables to use, instead of those in the process environment.
            completion: Seconds that a put waits, once it is sent, for the record to be processed to its end, as a motor
                at its target; a refusal comes in that time. After it the put counts as done.
        """
        useenv = conf is None
        self._context: Any = _raw.Context("pva", conf=dict(conf or {}), useenv=useenv, nt=False)
        self._completion = completion
        self._put_request = _raw.Context.makeRequest("field()record[process=passive,block=true]")
        self._monitor_request = _raw.Context.makeRequest(f"field()record[queueSize={_QUEUE_SIZE}]")
        self._timers = TimerScheduler("k2eg-pva")
        self._lock = threading.Lock()
        self._closed = False
        self._pending: set[Future[Any]] = set()
        self._subscriptions: set[PVASubscription] = set()
        # p4p keeps a channel open while an operation on it, even a finished one, is not closed.
        self._channels: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._spent: list[Any] = []
        self._types = ValueReaderCache()  # belongs to the worker thread
        self._sweep()

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """Reads a PV (or the field the address names), within `timeout` seconds."""
        name = _channel_name(address)
        return self._begin(
            name,
            timeout,
            lambda done: self._context.get(name, done),
            partial(self._read, address),
            lambda: f"{address.name}: no answer within {timeout:g} s",
        )

    def _read(self, address: PVAddress, value: Any) -> PVReading:
        """What a get has read. On the worker thread."""
        structure, types, spec = self._types.read(value)
        if not address.field or address.is_record_field:
            return PVReading(structure, types)
        try:
            selected = select_field(structure, address.field, address.uri)
        except OperationError as error:
            raise ProviderError(error.message) from None
        return PVReading(selected, types_of(spec, address.field))

    def put(self, address: PVAddress, fields: Mapping[str, Any], timeout: float) -> Future[None]:
        """Writes fields of a PV, checking their types first: nothing is written that would not read back as given."""
        name = _channel_name(address)
        if address.field and not address.is_record_field:
            fields = _nested(address.field, fields)
        sent = threading.Event()
        begun: Future[Future[None]] = Future()

        def build(value: Any) -> None:
            fill(value, fields, address.name)
            sent.set()
            begun.add_done_callback(taken)

        def taken(put: Future[Future[None]]) -> None:
            self._timers.call_later(self._completion, lambda: _settle(put.result(), None))

        def late() -> str:
            what = "it was sent, and may still be carried out" if sent.is_set() else "nothing was written"
            return f"{address.name}: no answer within {timeout:g} s; {what}"

        def start(done: Callable[[object], None]) -> Any:
            # get: the checks need what is there, such as an enum's labels.
            return self._context.put(name, done, builder=build, request=self._put_request, get=True)

        put = self._begin(name, timeout, start, lambda _: None, late)
        begun.set_result(put)
        return put

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
    ) -> Subscription:
        """Subscribes to a PV: its value now, then each update; reconnects for as long as it is open."""

        def monitor(signal: Callable[[], None]) -> Any:
            return self._context.monitor(_channel_name(address), signal, request=self._monitor_request)

        subscription = PVASubscription(
            address, on_update, on_connection, monitor=monitor, timers=self._timers, forget=self._forget
        )
        with self._lock:
            if self._closed:
                raise ProviderError(_CLOSED)
            self._subscriptions.add(subscription)
        subscription.open()
        return subscription

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent; not to be called in a callback."""
        with self._lock:
            closed, self._closed = self._closed, True
            pending, subscriptions = list(self._pending), list(self._subscriptions)
        if closed:
            return
        for future in pending:
            _settle(future, ProviderError(_CLOSED))
        for subscription in subscriptions:
            subscription.close()
        self._timers.drain()
        self._spent += [operation for _, operation in self._channels.values()]
        self._channels.clear()
        self._dispose()
        self._context.close()

    def _begin(
        self,
        name: str,
        timeout: float,
        start: Callable[[Callable[[object], None]], Any],
        finish: Callable[[Any], Result],
        late: Callable[[], str],
    ) -> Future[Result]:
        """Starts an operation and returns its future.

        Args:
            name: The channel.
            timeout: In seconds.
            start: Starts p4p's operation and returns it; it calls what it is given on the worker thread.
            finish: Makes the result of what p4p gave.
            late: What to say if it is not done in time.
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
                outcome = result if isinstance(result, Exception) else finish(result)
            except Exception as error:
                outcome = error
            _settle(future, outcome)

        try:
            operation = start(done)
        except Exception as error:  # p4p does not take it, whatever it is: the future says so
            _settle(future, error)
            operation = None
        deadline = self._timers.call_later(timeout, lambda: _settle(future, ProviderTimeout(late())))
        future.add_done_callback(lambda future: self._ended(future, name, operation, deadline))
        return future

    def _ended(self, future: Future[Any], name: str, operation: Any, deadline: DisposableBase) -> None:
        deadline.dispose()
        first = False
        with self._lock:
            self._pending.discard(future)
            if not self._closed and not future.cancelled() and future.exception() is None:
                _, previous = self._channels.pop(name, (0.0, None))
                self._channels[name] = (time.monotonic(), operation)
                operation = previous
            if operation is not None:
                self._spent.append(operation)
                first = len(self._spent) == 1
        if first:
            self._timers.call_later(_DISPOSE_SECONDS, self._dispose)

    def _dispose(self) -> None:
        """Closes the operations that are done. Not on the worker thread, where p4p's C++ part complains of it."""
        with self._lock:
            spent, self._spent = self._spent, []
        for operation in spent:
            operation.close()

    def _sweep(self) -> None:
        """Lets go of the channels that nobody has used for long."""
        oldest = time.monotonic() - _IDLE_SECONDS
        while True:
            with self._lock:
                used, operation = next(iter(self._channels.values()), (oldest, None))
                if operation is None or (used > oldest and len(self._channels) <= _MOST_CHANNELS):
                    break
                self._channels.popitem(last=False)
            operation.close()
        self._timers.call_later(_SWEEP_SECONDS, self._sweep)

    def _forget(self, subscription: PVASubscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)
