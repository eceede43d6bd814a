"""The stage of `put_to`.

Thread safety: the lock of the stage protects all state. Reports are emitted on the thread of the source, of the
scheduler or of a put's reply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.errors import ClientClosedError, K2EGError
from k2eg_rx.operators.put_loop import LoopChange, LoopConditions, LoopState, PermitItem, Standing, StopItem
from k2eg_rx.operators.put_reports import PutOutcome, PutReport
from k2eg_rx.operators.put_setpoints import Setpoint, SetpointLimits
from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVUpdate
from k2eg_rx.texts import get_logger, shown

_log = get_logger("k2eg_rx.operators.put_to")  # the name that users know


class _Pending(NamedTuple):
    """A number whose outcome is not known yet."""

    setpoint: Setpoint
    time: datetime
    skipped: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """The streams that open, close and trip a loop, and what is called with its state; see `put_to`."""

    inputs: Observable[ConnectionEvent | Staleness] | None = None
    permit: Observable[PermitItem] | None = None
    permit_when: Callable[[PVUpdate], bool] | None = None
    stop_on: Observable[StopItem] | None = None
    on_state: Callable[[LoopChange], None] | None = None


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
        conditions: Conditions,
    ) -> None:
        super().__init__(observer, scheduler)
        self._conditions = conditions
        self._loop = LoopConditions(needs_permit=conditions.permit is not None, permit_when=conditions.permit_when)
        self._shown: Standing | None = None
        self._is_running = False  # all states are known that are there at the subscription
        self._opened = 0  # how often the loop had been opened when the waiting number arrived
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
        loop, streams = self._loop, self._conditions
        # before the source: the first number may be one to refuse
        self._watch(streams.stop_on, loop.take_stop, loop.end_stop)
        self._watch(streams.permit, loop.take_permit, loop.end_permit)
        self._watch(streams.inputs, loop.take_input, loop.end_inputs)
        self.catching(self._begin)()
        check = self.catching(self._check)  # the source might continue after an exception of the subscriber
        self.hold(
            source.subscribe(
                lambda item: check(item, loop.standing),  # as the item arrives, not when the lock is free
                self.guarded(self.source_failed),
                self.guarded(self.source_completed),
                scheduler=subscribed,
            )
        )
        return Disposable(self.dispose)

    def _watch(self, stream: Observable[Any] | None, take: Callable[[object], None], end: Callable[[], None]) -> None:
        """Subscribes to a condition: what it says holds at once, even while the lock of the stage is held."""

        def on_item(item: object) -> None:
            try:
                take(item)
            except Exception as error:
                on_error(error)
            else:
                self.catching(self._follow)()

        def on_error(error: Exception) -> None:
            self._loop.trip(f"a condition has failed: {shown(error)}")
            self.catching(self.source_failed)(error)

        def on_completed() -> None:
            end()
            self.catching(self._follow)()

        if stream is not None:
            self.hold(stream.subscribe(on_item, on_error, on_completed, scheduler=self._subscribed))

    def _begin(self) -> None:
        self._is_running = True
        self._follow()

    def _follow(self) -> None:
        """Refuses the waiting number if the loop was opened, then shows a new state."""
        self._refuse_if_opened()
        now = self._loop.standing
        if self._is_running and self.is_open and (self._shown is None or now != self._shown):
            self._shown = now
            self._show(now.state, "" if now.state is LoopState.CLOSED else now.reason)
        self._complete_if_idle()

    def _refuse_if_opened(self) -> bool:
        waiting, now = self._waiting, self._loop.standing
        if waiting is None or now.opened == self._opened:
            return False
        self._waiting = None
        self._refuse(replace(waiting, value=None, clamped=False, refusal=now.reason))
        return True

    def _show(self, state: LoopState, reason: str) -> None:
        streams = self._conditions
        if any(stream is not None for stream in (streams.inputs, streams.permit, streams.stop_on)):
            level = logging.INFO if state is LoopState.CLOSED else logging.WARNING
            _log.log(level, "loop %s: uri=%s%s", state, self._uri, f" reason={reason}" if reason else "")
        if streams.on_state is not None:
            streams.on_state(LoopChange(self._uri, state, reason, self.scheduler.now))

    def _check(self, item: Any, arrived: Standing) -> None:
        setpoint = self._limits.setpoint(item)
        now = self._loop.standing
        if setpoint.value is not None and (arrived.state is not LoopState.CLOSED or now.opened != arrived.opened):
            setpoint = replace(setpoint, value=None, clamped=False, refusal=now.reason)
        if self._waiting is not None:
            self._skipped += 1
        if setpoint.value is not None:
            self._waiting, self._opened = setpoint, arrived.opened
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
        setpoint = self._taken()
        if setpoint is None or not self.is_open:
            self._complete_if_idle()
            return
        pending = self._pending(setpoint)
        self._next = now + self._period
        if self._put is None:
            self._report(pending, PutOutcome.DRY_RUN)
            self._complete_if_idle()
        elif setpoint.value is not None:
            self._is_writing = True
            self._write(pending, self._put, setpoint.value)

    def _taken(self) -> Setpoint | None:
        """Takes the waiting number, unless the loop was opened: the change may still wait for the lock."""
        if self._refuse_if_opened():
            return None  # the subscriber may have fed the source, which has sent what there is to send
        setpoint, self._waiting = self._waiting, None
        return setpoint

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

    def complete(self) -> None:
        """Completes the stream; the loop is open."""
        if self.is_open:
            self._end("the stream has ended")
            self._observer.on_completed()

    def fail(self, error: Exception) -> None:
        """Fails the stream; the loop is open."""
        if self.is_open:
            self._end(f"the stream has failed: {shown(error)}")
            self._observer.on_error(error)

    def _end(self, reason: str) -> None:
        self.dispose()  # first: `on_state` may feed the source
        try:
            self._show(LoopState.OPEN, reason)
        except Exception:
            _log.exception("on_state raised")
