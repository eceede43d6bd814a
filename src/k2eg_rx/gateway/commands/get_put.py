"""Gets and puts: one reply each, within the gateway's timeout, in the order of each PV's commands.

Each application, that is reply topic, has a bounded number of gets and puts under way; see `FairShares`. A get or put
beyond that waits until another one of its application ends, so that many PVs that do not answer delay only the
application that asks for them. A put waits no longer than its timeout, since later puts to its PV wait for it.

A put starts when the previous put to the same PV has been written, and a get when the puts before it have, so that it
reads what they wrote; a slow server holds later commands back for 0.5 s at most. A put to a PV that is not connected
holds later ones back until it is, since EPICS would carry them out in any order then.

A put that waits for its record may take as long as a motor moves: later commands are carried out meanwhile, and a
second one that waits is refused, because EPICS would write it after puts that came later. Record fields are PVs of
their own: a put to `X.STOP` does not wait for one to `X`.

Thread safety: belongs to the event loop thread; the callbacks of providers' futures are moved to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.audit import Audit
from k2eg_rx.gateway.commands.channels import provider_of
from k2eg_rx.gateway.commands.claims import LOST, UNCONFIRMED, ClaimState
from k2eg_rx.gateway.commands.expiries import Expiries
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, FairShares
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply, value_record
from k2eg_rx.gateway.commands.operations import Operation, copied_to, queue_key
from k2eg_rx.gateway.commands.put_ordering import KeyedQueue, Ticket
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.epics.provider import Provider, ProviderError, ProviderTimeout, PVReading, real_address
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning, Result
from k2eg_rx.protocol import GetCommand, PutCommand, PutError, encode_value, parse_fields, silent_pv_text
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_SWEEP_PERIOD = 0.25  # seconds between checks for expired operations, and so the delay of a timeout reply
_MAX_BLOCKING = 0.5  # seconds that a put that was sent may block later commands of its PV; a slower server hangs
_MAX_READING = 1.0  # seconds that a put may wait for the value before it, if there is an audit topic
_LONGEST_WAIT = 3600.0  # seconds that a put may wait for its record: long scans take minutes
_SWEEP_BATCH = 250  # timeout replies per turn of the event loop, about 10 ms of work

# Reply texts of the deployed gateway, including their spelling.
MALFORMED = "PV name malformed"
TIMEOUT = "Timeout operation"
_BEHIND = "nothing was written, it waited behind others of its application ([gateway] max_pending_per_application)"
_SUCCESS = "Successfull operation"

_NOT_SENT = "nothing was written, and nothing will be"
_SENT = "the value was sent, and may have been written"

_STILL_RUNNING = (
    "nothing was written: an earlier put to this PV still waits for its record; put without waiting to write now"
)


class GetPutHandler:
    """Carries out gets and puts.

    Args:
        providers: The EPICS clients, by protocol.
        context: Scheduler, metrics, options and clock.
        capacity_available: Called when an operation has ended.
        confirm: Confirms open claims; calls its argument on the event loop thread after the attempt.

    Attributes:
        audit: Writes a record of each put that was carried out; None for no records.
    """

    def __init__(
        self,
        providers: Mapping[Protocol, Provider],
        context: GatewayContext,
        capacity_available: Callable[[], None] = lambda: None,
        confirm: Callable[[Callable[[], None]], None] = lambda done: done(),
    ) -> None:
        self._providers = providers
        self._options = context.options
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._clock = context.clock
        self._capacity_available = capacity_available
        self._confirm = confirm
        self.audit: Audit | None = None
        self._queues = KeyedQueue()
        self._shares = FairShares(context.options, partial(call_soon, context.scheduler))
        self._confirming = False
        self._too_late = RateLimitedWarning(_log, "{} commands refused because of their age")
        self._unconfirmed: dict[Operation, Callable[[], None]] = {}  # puts to begin once their claims are confirmed
        self._sweep_scheduled = False
        self._pending: dict[Operation, None] = {}
        self._expiries = Expiries[Operation](_SWEEP_PERIOD)  # of all that are pending
        self._awaited: dict[str, Operation] = {}  # started puts that wait for their record, by PV

    @property
    def pending(self) -> int:
        """The number of operations that wait or run. Readable on any thread."""
        return len(self._pending)

    def get(self, request: CommandRequest[GetCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a get, which always reads from EPICS."""
        try:
            address = PVAddress.parse(request.command.pv_name)
        except ValueError:
            # not refusal_stream: the deployed gateway answers a get even without a reply id
            self._metrics.refused += 1
            self._metrics.count_result(request.command.operation, Result.REFUSED)
            return reactivex.of(reply(request.reply_to, request.command.pv_name, -1, MALFORMED))

        def call(_: Operation, timeout: float) -> Future[Any]:
            return provider_of(self._providers, address).get(address, timeout)

        return self._operation(request, address, call, self._options.max_get_age, blocking=False)

    def put(self, request: CommandRequest[PutCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a put; an empty stream if the command asks for none. Subscribing carries it out."""
        command = request.command
        try:
            fields = parse_fields(command.fields)
            address = PVAddress.parse(command.pv_name)
        except PutError as error:
            return refusal_stream(self._metrics, request.reply_to, command.pv_name, error.error, str(error))
        except ValueError:
            return refusal_stream(self._metrics, request.reply_to, command.pv_name, -4, MALFORMED)

        def call(operation: Operation, timeout: float) -> Future[Any]:
            provider = provider_of(self._providers, address)
            may_send = partial(self._may_send, operation)
            if not command.wait:
                return provider.put(address, fields, timeout, may_send=may_send)
            if self._awaited.get(operation.key, operation) is not operation:
                raise ProviderError(_STILL_RUNNING)
            self._awaited[operation.key] = operation
            on_written = partial(call_soon, self._scheduler, partial(self._unblock, operation))
            return provider.put(address, fields, timeout, wait=True, on_written=on_written, may_send=may_send)

        def audited(operation: Operation, timeout: float) -> Future[Any]:
            operation.new = fields
            return self._after_reading(operation, address, timeout, call)

        start = call if self.audit is None else audited
        return self._operation(request, address, start, self._options.max_put_age, blocking=True)

    def _after_reading(
        self,
        operation: Operation,
        address: PVAddress,
        timeout: float,
        call: Callable[[Operation, float], Future[Any]],
    ) -> Future[Any]:
        """Reads what a put is about to overwrite, for the audit topic, then puts."""
        result: Future[Any] = Future()

        def proceed(reading: Future[PVReading]) -> None:
            if reading.exception() is None:
                structure = reading.result().structure
                operation.old = {name: structure[name] for name in operation.new if name in structure}
            remaining = (operation.deadline - self._scheduler.now).total_seconds()
            if operation not in self._pending or remaining <= 0:
                result.set_exception(ProviderTimeout(_NOT_SENT))
            else:
                copied_to(result, partial(call, operation, remaining))

        reading = provider_of(self._providers, address).get(address, min(timeout, _MAX_READING))
        reading.add_done_callback(lambda done: call_soon(self._scheduler, partial(proceed, done)))
        return result

    def _operation(
        self,
        request: CommandRequest[Any],
        address: PVAddress,
        call: Callable[[Operation, float], Future[Any]],
        max_age: float,
        *,
        blocking: bool,
    ) -> Observable[OutgoingRecord]:
        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            now = self._scheduler.now
            deadline = now + timedelta(seconds=self._timeout_of(request.command))
            start_by = now + timedelta(seconds=self._options.operation_timeout)
            key = queue_key(real_address(self._providers.get(address.protocol), address))
            operation = Operation(request, key, deadline, start_by, observer)
            start = partial(self._start_guarded, operation, partial(self._start, operation, address, call, max_age))
            operation.ticket = Ticket(partial(self._enter, operation, start), blocking=blocking)
            if operation.is_put:
                request.claim.open()
            self._pending[operation] = None
            self._expiries.set(operation, operation.expires_at)
            if not self._sweep_scheduled:
                self._schedule_sweep()
            refusal = self._shares.refusal(request.reply_to.topic)
            if refusal:
                self._metrics.refused += 1
                self._reply(operation, OVER_LIMIT, refusal)
            else:
                self._queues.enter(operation.key, operation.ticket)
            return Disposable(lambda: self._end(operation))

        return reactivex.create(subscribe)

    def _timeout_of(self, command: GetCommand | PutCommand) -> float:
        if isinstance(command, PutCommand) and command.wait_timeout_msec:
            return min(command.wait_timeout_msec, _LONGEST_WAIT * 1000) / 1000  # it may be beyond any float
        if isinstance(command, GetCommand) and command.timeout_msec:
            return min(command.timeout_msec, self._options.operation_timeout * 1000) / 1000
        return self._options.operation_timeout

    def _enter(self, operation: Operation, start: Callable[[], None]) -> None:
        """Starts an operation when its application may have one more under way."""
        slot = self._shares.enter(operation.request.reply_to.topic, start)
        operation.slot = slot
        if operation not in self._pending:  # ended while starting
            self._shares.release(slot)
        self._set_expiry(operation)

    def _start_guarded(self, operation: Operation, start: Callable[[], None]) -> None:
        if operation not in self._pending:
            return
        if operation.slot is not None and isinstance(operation.request.command, GetCommand):  # it has waited
            operation.deadline = self._scheduler.now + timedelta(seconds=self._timeout_of(operation.request.command))
        try:
            start()
        except Exception as error:
            self._fail(operation, error)
        self._set_expiry(operation)

    def _set_expiry(self, operation: Operation) -> None:
        if operation in self._pending:
            self._expiries.set(operation, operation.expires_at)

    def _start(
        self,
        operation: Operation,
        address: PVAddress,
        call: Callable[[Operation, float], Future[Any]],
        max_age: float,
    ) -> None:
        text = operation.request.too_late(self._clock(), max_age, operation.request.command.operation)
        if text:
            self._metrics.refused += 1
            self._too_late.count(f"pv={operation.key} reason={text}")
            self._reply(operation, -3, text)
            return
        remaining = (operation.deadline - self._scheduler.now).total_seconds()
        if remaining <= 0:
            self._time_out(operation)
            return
        start = partial(self._start, operation, address, call, max_age)
        if not self._is_owned(operation, start):
            return
        try:
            future = call(operation, remaining)
        except Exception as error:
            self._fail(operation, error)
            return
        finish = partial(self._finish, operation, address, start)
        future.add_done_callback(lambda done: call_soon(self._scheduler, partial(finish, done)))

    def _is_owned(self, operation: Operation, start: Callable[[], None]) -> bool:
        """Whether a put may be carried out by this gateway; if that is not certain, `start` is called when it is."""
        state = operation.request.claim.state
        if not operation.is_put or state is ClaimState.OPEN:
            return True
        if state is ClaimState.CONFIRM:
            self._unconfirmed[operation] = start
            operation.is_unconfirmed = True
            self._request_confirmation()
        else:
            self._refuse(operation, LOST)
        return False

    def _may_send(self, operation: Operation) -> bool:
        """Takes the claim to a put. Called by its provider, on any thread, right before the value is sent."""
        if operation.request.claim.begin():
            call_soon(self._scheduler, partial(self._on_sent, operation))
            return True
        operation.is_denied = True
        return False

    def _on_sent(self, operation: Operation) -> None:
        if operation in self._pending:
            operation.unblock_timer.disposable = self._scheduler.schedule_relative(
                _MAX_BLOCKING, lambda _scheduler, _state: self._unblock(operation)
            )

    def _request_confirmation(self) -> None:
        if not self._confirming:
            self._confirming = True
            self._confirm(self._retry_unconfirmed)

    def _retry_unconfirmed(self) -> None:
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        try:
            for operation, start in unconfirmed.items():
                if operation in self._pending:
                    operation.is_unconfirmed = False
                    start()
                    self._set_expiry(operation)
        finally:
            self._confirming = False  # the next attempt is made by the sweep

    def end_revoked(self) -> None:
        """Ends the puts that have not begun and went to another gateway, or have to be refused."""
        for operation in list(self._pending):
            if operation.is_put and operation.request.claim.state in (ClaimState.LOST, ClaimState.HANDED_OVER):
                self._refuse(operation, LOST)

    def _time_out(self, operation: Operation, reason: str = "") -> None:
        """Replies that an operation timed out; a put that was not sent by now is not sent later."""
        if operation.is_put:
            operation.request.claim.answer()
            if operation.request.claim.is_begun:
                reason = reason or _SENT
            elif reason != _BEHIND:
                reason = _NOT_SENT
        elif operation.started and self._timeout_of(operation.request.command) < self._options.operation_timeout:
            reason = silent_pv_text(self._timeout_of(operation.request.command))
        self._reply(operation, -3, f"{TIMEOUT}: {reason}" if reason else TIMEOUT, Result.TIMEOUT)

    def _refuse(self, operation: Operation, text: str) -> None:
        self._metrics.refused += 1
        self._reply(operation, -3, f"the {operation.request.command.operation} was {text}")

    def _unblock(self, operation: Operation) -> None:
        """Lets the next command of the PV start while this one is still running."""
        if operation.ticket is not None:
            self._queues.release(operation.key, operation.ticket)

    def _finish(self, operation: Operation, address: PVAddress, start: Callable[[], None], done: Future[Any]) -> None:
        if operation not in self._pending:
            return
        if operation.is_denied:  # nothing was sent
            operation.is_denied = False
            start()
            self._set_expiry(operation)
            return
        try:
            result = done.result()
            if isinstance(result, PVReading):
                self._end(operation, self._value_reply(operation, address, result), Result.OK)
            else:
                self._reply(operation, 0, _SUCCESS, Result.OK, completed=operation.waits)
        except Exception as error:
            self._fail(operation, error)

    def _value_reply(self, operation: Operation, address: PVAddress, reading: PVReading) -> OutgoingRecord:
        command: GetCommand = operation.request.command
        reply_to = operation.request.reply_to
        fragment = PVValue(address.name, reading.structure).fragment(reply_to.serialization)
        types = reading.types if command.describe else None
        body = encode_value(reply_to.serialization, reply_to.reply_id, address.key, fragment, types)
        return value_record(reply_to, command.pv_name, address.uri, body)

    def _fail(self, operation: Operation, error: Exception) -> None:
        match error:
            case ProviderTimeout():
                self._time_out(operation, str(error) if operation.waits else "")
            case ProviderError():
                self._reply(operation, -2, str(error), Result.FAILED)
            case WireError():
                self._metrics.unencodable += 1
                self._reply(operation, -2, str(error), Result.FAILED)
            case CancelledError():
                self._reply(operation, -2, "Operaton cancelled", Result.FAILED)
            case _:
                what = operation.request.command.operation
                _log.error("operation failed: command=%s pv=%s", what, operation.key, exc_info=error)
                self._metrics.failures += 1
                self._reply(operation, -2, f"{type(error).__name__}: {error}", Result.FAILED)

    def _reply(
        self,
        operation: Operation,
        error: int,
        message: str,
        result: Result = Result.REFUSED,
        *,
        completed: bool = False,
    ) -> None:
        request = operation.request
        outgoing = None
        answerable = request.reply_to.complete or isinstance(request.command, GetCommand)
        if operation.is_put and not request.claim.answer():
            answerable, result = False, Result.HANDED_OVER  # another gateway carries it out and answers
        if self.audit is not None and operation.is_put and request.claim.is_begun:
            self.audit.record(request, operation.old, operation.new, result, message)
        if answerable:
            outgoing = reply(request.reply_to, request.command.pv_name, error, message, completed=completed)
        self._end(operation, outgoing, result)

    def _end(self, operation: Operation, outgoing: OutgoingRecord | None = None, result: Result | None = None) -> None:
        """Removes an operation, emits its reply if any, and lets the next command of the PV start. Idempotent."""
        if operation not in self._pending:
            return
        if result is not None:
            self._metrics.count_result(operation.request.command.operation, result)
        del self._pending[operation]
        self._expiries.discard(operation)
        if self._awaited.get(operation.key) is operation:
            del self._awaited[operation.key]
        self._unconfirmed.pop(operation, None)
        try:
            if outgoing is not None:
                operation.observer.on_next(outgoing)
            operation.observer.on_completed()
        finally:
            operation.unblock_timer.dispose()
            if operation.slot is not None:
                self._shares.release(operation.slot)
            if operation.ticket is not None:
                self._queues.release(operation.key, operation.ticket)
            self._capacity_available()

    def _schedule_sweep(self, period: float = _SWEEP_PERIOD) -> None:
        def sweep(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._sweep_scheduled = False
            more = self._sweep(self._scheduler.now)
            if self._unconfirmed:
                self._request_confirmation()
            if self._pending and not self._sweep_scheduled:
                self._schedule_sweep(0.0 if more else _SWEEP_PERIOD)

        self._sweep_scheduled = True
        self._scheduler.schedule_relative(period, sweep)

    def _sweep(self, now: datetime) -> bool:
        """Times out operations that still wait in their queue, and those whose provider never answered.

        Returns:
            Whether there may be more of them.
        """
        expired = self._expiries.due(now, _SWEEP_BATCH)
        for operation in expired:
            if operation not in self._pending:
                continue
            if operation.is_unconfirmed:
                self._refuse(operation, UNCONFIRMED)
            else:
                self._time_out(operation, _BEHIND if operation.waits_for_its_application else "")
        return len(expired) == _SWEEP_BATCH

    def abandon(self) -> None:
        """Fails all waiting and running operations, because the gateway is stopping."""
        for operation in reversed(list(self._pending)):  # last first, so that no waiting one starts now
            what = operation.request.command.operation
            operation.request.claim.answer()  # from now on it is not sent
            begun = operation.request.claim.is_begun if operation.is_put else operation.started
            state = "may still be carried out" if begun else "was not carried out"
            self._reply(operation, -2, f"the gateway is stopping: the {what} {state}", Result.FAILED)
