"""Gets and puts: one reply each, within the gateway's own timeout, in the order in which a PV's commands came.

A put is begun when the put to the same PV before it has ended, and a get when the puts before it have, so that it reads
what they wrote. But a put may last as long as a motor moves: what comes behind it waits for half a second at most, for
by then the server has it. Fields are PVs of their own: a put to `X.STOP` does not wait for one to `X`.

In: orders. Out: replies. Belongs to the gateway's thread; a provider's futures come back through it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import provider_of
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.put_ordering import KeyedQueue, Ticket
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.epics.provider import Provider, ProviderError, ProviderTimeout, PVReading
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.protocol import GetCommand, PutCommand, PutError, encode_value, parse_fields
from k2eg_rx.pv import Protocol, PVAddress

_log = logging.getLogger(__name__)

_SWEEP = 0.25  # seconds between looks for operations whose time is over: how late such an answer may be
_PATIENCE = 0.5  # seconds that a put may hold up what comes behind it: a record that takes longer waits for a device
_GRACE = 1.0  # seconds that a provider may take beyond its time before it is not waited for any more

MALFORMED = "PV name malformed"
TIMEOUT = "Timeout operation"
_SUCCESS = "Successfull operation"  # sic, as all of these: the deployed gateway's words


class _Operation:
    """A get or a put under way."""

    def __init__(
        self, request: CommandRequest[Any], lane: str, due: datetime, observer: abc.ObserverBase[OutgoingRecord]
    ) -> None:
        self.request = request
        self.lane = lane
        self.due = due
        self.observer = observer
        self.turn: Ticket | None = None
        self.patience = SerialDisposable()

    @property
    def begun(self) -> bool:
        """Whether it is in the hands of the provider."""
        return self.turn is not None and self.turn.begun


class GetPutHandler:
    """The gets and puts of a gateway.

    Args:
        providers: EPICS, by protocol.
        context: The gateway's thread, options and numbers.
        capacity_available: Called when an operation has ended.
    """

    def __init__(
        self,
        providers: Mapping[Protocol, Provider],
        context: GatewayContext,
        capacity_available: Callable[[], None] = lambda: None,
    ) -> None:
        self._providers = providers
        self._options = context.options
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._clock = context.clock
        self._capacity_available = capacity_available
        self._lanes = KeyedQueue()
        self._sweeping = False
        self._pending: dict[_Operation, None] = {}  # in the order of their `due`, for all have the same time

    @property
    def pending(self) -> int:
        """How many are under way or wait for their turn. Any thread."""
        return len(self._pending)

    def get(self, request: CommandRequest[GetCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a get: EPICS is asked, whether the PV is monitored or not."""
        try:
            address = PVAddress.parse(request.command.pv_name)
        except ValueError:
            # a get is answered without an id too
            self._metrics.refused += 1
            return reactivex.of(reply(request.reply_to, request.command.pv_name, -1, MALFORMED))

        def ask(timeout: float) -> Future[Any]:
            return provider_of(self._providers, address).get(address, timeout)

        return self._operation(request, address, ask, self._options.max_get_age, holds=False)

    def put(self, request: CommandRequest[PutCommand]) -> Observable[OutgoingRecord]:
        """Returns the reply to a put, of nothing if none is wanted. It is carried out when it is subscribed to."""
        command = request.command
        try:
            fields = parse_fields(command.fields)
            address = PVAddress.parse(command.pv_name)
        except PutError as error:
            return refusal_stream(self._metrics, request.reply_to, command.pv_name, error.error, str(error))
        except ValueError:
            return refusal_stream(self._metrics, request.reply_to, command.pv_name, -4, MALFORMED)

        def ask(timeout: float) -> Future[Any]:
            return provider_of(self._providers, address).put(address, fields, timeout)

        return self._operation(request, address, ask, self._options.max_put_age, holds=True)

    def _operation(
        self,
        request: CommandRequest[Any],
        address: PVAddress,
        ask: Callable[[float], Future[Any]],
        max_age: float,
        *,
        holds: bool,
    ) -> Observable[OutgoingRecord]:
        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            due = self._scheduler.now + timedelta(seconds=self._options.operation_timeout)
            operation = _Operation(request, address.uri, due, observer)
            operation.turn = Ticket(partial(self._start, operation, address, ask, max_age), holds=holds)
            self._pending[operation] = None
            if not self._sweeping:
                self._sweep_later()
            self._lanes.enter(operation.lane, operation.turn)
            return Disposable(lambda: self._end(operation))

        return reactivex.create(subscribe)

    def _start(
        self, operation: _Operation, address: PVAddress, ask: Callable[[float], Future[Any]], max_age: float
    ) -> None:
        age = operation.request.age(self._clock())
        if age > max_age:
            what = operation.request.command.operation
            text = f"the {what} waited {age:.1f} s, longer than the {max_age:g} s after which it is not carried out"
            self._metrics.refused += 1
            self._answer(operation, -3, text)
            return
        remaining = (operation.due - self._scheduler.now).total_seconds()
        if remaining <= 0:
            self._answer(operation, -3, TIMEOUT)
            return
        try:
            future = ask(remaining)
        except Exception as error:
            self._failed(operation, error)
            return
        if operation.turn is not None and operation.turn.holds:
            operation.patience.disposable = self._scheduler.schedule_relative(_PATIENCE, partial(self._pass, operation))
        # the callback comes on one of the provider's threads
        future.add_done_callback(
            lambda done: call_soon(self._scheduler, partial(self._settled, operation, address, done))
        )

    def _pass(self, operation: _Operation, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        """Lets the next command of the PV begin, though this one has not ended."""
        if operation.turn is not None:
            self._lanes.leave(operation.lane, operation.turn)

    def _settled(self, operation: _Operation, address: PVAddress, done: Future[Any]) -> None:
        if operation not in self._pending:
            return
        try:
            result = done.result()
            if isinstance(result, PVReading):
                self._end(operation, self._value(operation, address, result))
            else:
                self._answer(operation, 0, _SUCCESS)
        except Exception as error:
            self._failed(operation, error)

    def _value(self, operation: _Operation, address: PVAddress, reading: PVReading) -> OutgoingRecord:
        command: GetCommand = operation.request.command
        reply_to = operation.request.reply_to
        fragment = PVValue(address.name, reading.structure).fragment(reply_to.serialization)
        types = reading.types if command.describe else None
        body = encode_value(reply_to.serialization, reply_to.reply_id, address.name, fragment, types)
        return OutgoingRecord(reply_to.topic, command.pv_name.encode(), body, reply_to.serialization)

    def _failed(self, operation: _Operation, error: Exception) -> None:
        match error:
            case ProviderTimeout():
                self._answer(operation, -3, TIMEOUT)
            case ProviderError():
                self._answer(operation, -2, str(error))
            case WireError():
                self._metrics.unencodable += 1
                self._answer(operation, -2, str(error))
            case CancelledError():
                self._answer(operation, -2, "Operaton cancelled")
            case _:
                _log.error("%s of %s failed", operation.request.command.operation, operation.lane, exc_info=error)
                self._metrics.failures += 1
                self._answer(operation, -2, f"{type(error).__name__}: {error}")

    def _answer(self, operation: _Operation, error: int, message: str) -> None:
        request = operation.request
        answered = request.reply_to.complete or isinstance(request.command, GetCommand)
        self._end(operation, reply(request.reply_to, request.command.pv_name, error, message) if answered else None)

    def _end(self, operation: _Operation, outgoing: OutgoingRecord | None = None) -> None:
        """Takes an operation off the books, emits its reply if it has one, and lets the next of its PV begin."""
        if operation not in self._pending:
            return
        del self._pending[operation]
        if outgoing is not None:
            operation.observer.on_next(outgoing)
        operation.observer.on_completed()
        operation.patience.dispose()
        if operation.turn is not None:
            self._lanes.leave(operation.lane, operation.turn)
        self._capacity_available()

    def _sweep_later(self) -> None:
        def sweep(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._sweeping = False
            self._sweep(self._scheduler.now)
            if self._pending and not self._sweeping:
                self._sweep_later()

        self._sweeping = True
        self._scheduler.schedule_relative(_SWEEP, sweep)

    def _sweep(self, now: datetime) -> None:
        """Answers what has waited in its lane for all its time, and what its provider has forgotten."""
        for operation in list(takewhile(lambda operation: operation.due <= now, self._pending)):
            if not operation.begun or operation.due + timedelta(seconds=_GRACE) <= now:
                self._answer(operation, -3, TIMEOUT)

    def abandon(self) -> None:
        """Answers all that is under way or waits with a failure, for the gateway is stopping."""
        for operation in reversed(list(self._pending)):  # from the last on, so that none of them begins now
            what = operation.request.command.operation
            fate = "may still be carried out" if operation.begun else "was not carried out"
            self._answer(operation, -2, f"the gateway is stopping: the {what} {fate}")
