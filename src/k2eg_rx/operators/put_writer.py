"""The stage of `put_to`.

Thread safety: the lock of the stage protects all state. Reports are emitted on the thread of the source, of the
scheduler or of a put's reply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.errors import ClientClosedError, K2EGError
from k2eg_rx.operators.put_inputs import PutInputs
from k2eg_rx.operators.put_reports import PutOutcome, PutReport
from k2eg_rx.operators.put_setpoints import Setpoint, SetpointLimits
from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.texts import get_logger

_log = get_logger("k2eg_rx.operators.put_to")  # the name that users know


class _Pending(NamedTuple):
    """A number whose outcome is not known yet."""

    setpoint: Setpoint
    time: datetime
    skipped: int


class PutWriter(Stage[Any, PutReport]):
    """At most one number waits, the newest, and at most one put is in flight."""

    def __init__(
        self,
        observer: abc.ObserverBase[PutReport],
        scheduler: abc.SchedulerBase,
        *,
        uri: str,
        limits: SetpointLimits,
        period: float,
        put: Callable[[float], Observable[Any]] | None,
        inputs: Observable[Any] | None,
    ) -> None:
        super().__init__(observer, scheduler)
        self._states = inputs
        self._inputs = PutInputs()
        self._uri = uri
        self._limits = limits
        self._period = period
        self._put = put
        self._subscribed: abc.SchedulerBase | None = None
        self._waiting: Setpoint | None = None
        self._skipped = 0  # numbers that the waiting one replaced
        self._next = -math.inf  # when the next put may be sent
        self._is_timed = False
        self._is_writing = False
        self._is_ending = False
        self._last: PutOutcome | None = None
        self._reply = SerialDisposable()
        self.hold(self._reply)

    def run(self, source: Observable[Any], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the inputs and the source; puts use the same scheduler."""
        self._subscribed = subscribed
        if self._states is not None:  # before the source: the first number may be one to refuse
            self.hold(
                self._states.subscribe(
                    self.catching(self._take_input),
                    self.guarded(self.source_failed),
                    self.guarded(self._end_inputs),
                    scheduler=subscribed,
                )
            )
        return super().run(source, subscribed)

    def take(self, item: Any) -> None:
        # an exception of the subscriber ends the writing here: the source might continue after it
        self.catching(self._check)(item)

    def _take_input(self, item: object) -> None:
        self._inputs.take(item)
        self._refuse_waiting()

    def _end_inputs(self) -> None:
        self._inputs.end()
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """Refuses the waiting number if an input is missing now."""
        waiting, refusal = self._waiting, self._inputs.refusal
        if waiting is not None and refusal:
            self._waiting = None
            self._refuse(replace(waiting, value=None, clamped=False, refusal=refusal))
            self._complete_if_idle()

    def _check(self, item: Any) -> None:
        setpoint = self._limits.setpoint(item)
        if setpoint.value is not None and self._inputs.refusal:
            setpoint = replace(setpoint, value=None, clamped=False, refusal=self._inputs.refusal)
        if self._waiting is not None:
            self._skipped += 1
        if setpoint.value is not None:
            self._waiting = setpoint
            self._send()
            return
        self._waiting = None  # older than a number that is known to be wrong
        self._refuse(setpoint)

    def _refuse(self, setpoint: Setpoint) -> None:
        self._report(self._pending(setpoint), PutOutcome.REFUSED, ValueError(f"{self._uri}: {setpoint.refusal}"))

    def _pending(self, setpoint: Setpoint) -> _Pending:
        skipped, self._skipped = self._skipped, 0
        return _Pending(setpoint, self.scheduler.now, skipped)

    def tick(self) -> None:
        self._is_timed = False
        self._send()

    def _send(self) -> None:
        # the subscriber may have disposed while it received the report before
        if self._waiting is None or self._is_writing or self._is_timed or not self.is_open:
            return
        now = self.now()
        if self._next - now > RESOLUTION:
            self._is_timed = True
            self.tick_in(self._next - now)
            return
        setpoint, self._waiting = self._waiting, None
        pending = self._pending(setpoint)
        self._next = now + self._period
        if self._put is None:
            self._report(pending, PutOutcome.DRY_RUN)
            self._complete_if_idle()
        elif setpoint.value is not None:
            self._is_writing = True
            self._write(pending, self._put, setpoint.value)

    def _write(self, pending: _Pending, put: Callable[[float], Observable[Any]], value: float) -> None:
        in_flight = [pending]

        def done(error: Exception | None) -> None:
            while in_flight:
                self._is_writing = False
                self._finish(in_flight.pop(), error)

        def on_reply(_reply: Any) -> None:
            done(None)

        def on_completed() -> None:
            done(K2EGError(f"put of {self._uri} completed without a reply"))

        on_error = self.catching(done)
        reply = SingleAssignmentDisposable()
        self._reply.disposable = reply  # before the subscription: a reply within it may start the next put
        try:
            reply.disposable = put(value).subscribe(
                self.catching(on_reply), on_error, self.catching(on_completed), scheduler=self._subscribed
            )
        except Exception as error:  # a client that raises instead of failing the stream
            on_error(error)

    def _finish(self, pending: _Pending, error: Exception | None) -> None:
        if error is None:
            self._report(pending, PutOutcome.CLAMPED if pending.setpoint.clamped else PutOutcome.WRITTEN)
        else:
            self._report(pending, PutOutcome.FAILED, error)
        if isinstance(error, ClientClosedError):
            self.fail(error)
            return
        self._send()
        self._complete_if_idle()

    def _report(self, pending: _Pending, outcome: PutOutcome, error: Exception | None = None) -> None:
        setpoint = pending.setpoint
        is_first, self._last = outcome is not self._last, outcome
        level = logging.INFO
        if outcome not in (PutOutcome.WRITTEN, PutOutcome.DRY_RUN):
            level = logging.WARNING if is_first else logging.DEBUG  # the first in a row: there may be thousands
        reason = f" error={setpoint.refusal or error}" if error is not None else ""
        _log.log(
            level, "put %s: uri=%s value=%r wanted=%r%s", outcome, self._uri, setpoint.value, setpoint.wanted, reason
        )
        self.emit(PutReport(self._uri, setpoint.wanted, setpoint.value, outcome, error, pending.time, pending.skipped))

    def source_completed(self) -> None:
        self._is_ending = True
        self._complete_if_idle()

    def source_failed(self, error: Exception) -> None:
        _log.error("stream failed, no more puts: uri=%s error=%s", self._uri, error)
        self.fail(error)

    def _complete_if_idle(self) -> None:
        if self._is_ending and self._waiting is None and not self._is_writing:
            self.complete()
