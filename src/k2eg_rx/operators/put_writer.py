"""The stage of `put_to` and `put_many_to`.

Thread safety: the lock of the stage protects all state. Reports are emitted on the thread of the source, of the
scheduler or of a put's reply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.errors import ClientClosedError, K2EGError, PutWithheldError
from k2eg_rx.operators.put_loop import LoopChange, LoopConditions, LoopState, PermitItem, Standing, StopItem
from k2eg_rx.operators.put_reports import PutOutcome
from k2eg_rx.operators.put_setpoints import Setpoint
from k2eg_rx.operators.put_steps import SetpointSteps
from k2eg_rx.operators.put_targets import PutTarget, ReportT
from k2eg_rx.operators.stage import RESOLUTION, Stage
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVData, PVUpdate
from k2eg_rx.texts import get_logger, shown

_log = get_logger("k2eg_rx.operators.put_to")  # the name that users know


class _Pending(NamedTuple):
    """An item whose outcome is not known yet."""

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


class PutWriter(Stage[Any, ReportT]):
    """At most one item waits, the newest, and at most one put, or step of several PVs, is in flight."""

    def __init__(
        self,
        observer: abc.ObserverBase[ReportT],
        scheduler: abc.SchedulerBase,
        *,
        target: PutTarget[ReportT],
        period: float,
        dry_run: bool,
        steps: SetpointSteps | None,
        conditions: Conditions,
    ) -> None:
        super().__init__(observer, scheduler)
        self._conditions = conditions
        self._connections = target.connections
        self._loop = LoopConditions(
            targets=() if self._connections is None else target.uris,
            needs_permit=conditions.permit is not None,
            permit_when=conditions.permit_when,
        )
        self._shown: tuple[Standing, str] | None = None
        self._is_running = False  # all states are known that are there at the subscription
        self._opened = 0  # how often the loop had been opened when the waiting number arrived
        self._target = target
        self._period = period
        self._dry_run = dry_run
        self._steps = steps
        self._large_step = ""  # of the item before
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
        self._watch(self._connections, loop.take_target, loop.end_targets)
        self._read_values()
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

    def _read_values(self) -> None:
        """Reads where the steps start; items wait until it is known."""
        steps = self._steps
        if steps is None:
            return

        def start(values: Mapping[str, PVData]) -> None:
            try:
                steps.start(values)
            except ValueError as error:
                fail(error)
            else:
                self._send()

        def fail(error: Exception) -> None:
            self._loop.trip(f"the value to start from is not known: {error}")
            if isinstance(error, ClientClosedError):
                self.fail(error)
            else:
                self._follow()

        try:
            values = self._target.read()
        except Exception as error:  # a client that raises instead of failing the stream
            self.catching(fail)(error)
            return
        on_error = self.catching(fail)
        self.hold(values.subscribe(self.catching(start), on_error, scheduler=self._subscribed))

    def _begin(self) -> None:
        self._is_running = True
        self._follow()

    def _follow(self) -> None:
        """Refuses the waiting number if the loop was opened, then shows a new state."""
        self._refuse_if_opened()
        now = self._loop.standing
        if self._is_running and self.is_open and (now, self._large_step) != self._shown:
            self._shown = (now, self._large_step)
            self._show(now.state, self._large_step if now.state is LoopState.CLOSED else now.reason)
        self._complete_if_idle()

    def _refuse_if_opened(self) -> bool:
        waiting, now = self._waiting, self._loop.standing
        if waiting is None or now.opened == self._opened:
            return False
        self._waiting = None
        self._refuse(waiting.refused(now.reason))
        return True

    def _show(self, state: LoopState, reason: str) -> None:
        streams = self._conditions
        watched = (streams.inputs, streams.permit, streams.stop_on, self._connections, self._steps)
        if any(each is not None for each in watched):
            level = logging.WARNING if reason else logging.INFO
            _log.log(level, "loop %s: uri=%s%s", state, self._target.name, f" reason={reason}" if reason else "")
        if streams.on_state is not None:
            count = 0 if self._steps is None else self._steps.count
            streams.on_state(LoopChange(self._target.name, state, reason, self.scheduler.now, count))

    def _check(self, item: Any, arrived: Standing) -> None:
        setpoint = self._target.checked(item)
        now = self._loop.standing
        if setpoint.values is not None and (arrived.state is not LoopState.CLOSED or now.opened != arrived.opened):
            setpoint = setpoint.refused(now.reason)
        if self._waiting is not None:
            self._skipped += 1
        if setpoint.values is not None:
            self._waiting, self._opened = setpoint, arrived.opened
            self._send()
            return
        self._waiting = None  # older than a number that is known to be wrong
        self._refuse(setpoint)

    def _refuse(self, setpoint: Setpoint) -> None:
        self._report(self._pending(setpoint), PutOutcome.REFUSED)

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
        if self._steps is not None and not self._steps.is_known:
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
        if self._steps is not None:
            setpoint = self._steps.limited(setpoint)
            self._large_step = setpoint.large_step
        if setpoint.values is None:
            self._refuse(setpoint)
        else:
            self._next = now + self._period
            self._begin_put(self._pending(setpoint), setpoint.values)
        self._follow()  # last: `on_state` may feed the source

    def _begin_put(self, pending: _Pending, values: Mapping[str, float]) -> None:
        if not self._dry_run:
            self._is_writing = True
            self._write(pending, values)
            return
        if self._steps is not None:
            self._steps.sent(values, {})
        self._report(pending, PutOutcome.DRY_RUN)

    def _taken(self) -> Setpoint | None:
        """Takes the waiting number, unless the loop was opened: the change may still wait for the lock."""
        if self._refuse_if_opened():
            return None  # the subscriber may have fed the source, which has sent what there is to send
        setpoint, self._waiting = self._waiting, None
        return setpoint

    def _write(self, pending: _Pending, values: Mapping[str, float]) -> None:
        in_flight = [pending]

        def done(errors: Mapping[str, Exception]) -> None:
            while in_flight:
                self._is_writing = False
                self._finish(in_flight.pop(), values, errors)

        def failed(error: Exception) -> None:
            done(dict.fromkeys(values, error))

        def on_completed() -> None:
            failed(K2EGError(f"put of {self._target.name} completed without a reply"))

        on_error = self.catching(failed)
        reply = SingleAssignmentDisposable()
        self._reply.disposable = reply  # before the subscription: a reply within it may start the next put
        try:
            reply.disposable = self._target.put(values).subscribe(
                self.catching(done), on_error, self.catching(on_completed), scheduler=self._subscribed
            )
        except Exception as error:  # a client that raises instead of failing the stream
            on_error(error)

    def _finish(self, pending: _Pending, values: Mapping[str, float], errors: Mapping[str, Exception]) -> None:
        is_withheld = any(isinstance(error, PutWithheldError) for error in errors.values())
        if self._steps is not None and not is_withheld:
            self._steps.sent(values, errors)
        if not errors:
            setpoint = pending.setpoint
            clamped = PutOutcome.CLAMPED if setpoint.is_clamped else PutOutcome.WRITTEN
            self._report(pending, PutOutcome.CLIPPED if setpoint.large_step else clamped)
        elif is_withheld:
            self._report(pending, PutOutcome.REFUSED, errors)
        else:
            self._report(pending, PutOutcome.FAILED if len(errors) == len(values) else PutOutcome.PARTIAL, errors)
        for error in errors.values():
            if isinstance(error, ClientClosedError):
                self.fail(error)
                return
        self._send()
        self._complete_if_idle()

    def _report(self, pending: _Pending, outcome: PutOutcome, errors: Mapping[str, Exception] | None = None) -> None:
        setpoint, failed = pending.setpoint, errors or {}
        is_first, self._last = outcome is not self._last, outcome
        level = logging.INFO
        if outcome not in (PutOutcome.WRITTEN, PutOutcome.DRY_RUN):
            level = logging.WARNING if is_first else logging.DEBUG  # the first in a row: there may be thousands
        reason = setpoint.refusal or "; ".join(dict.fromkeys(map(str, failed.values())))
        value, wanted = self._target.shown(setpoint)
        about = f" error={reason}" if reason else ""
        _log.log(level, "put %s: uri=%s value=%r wanted=%r%s", outcome, self._target.name, value, wanted, about)
        self.emit(self._target.report(setpoint, outcome, failed, pending.time, pending.skipped))

    def source_completed(self) -> None:
        self._is_ending = True
        self._complete_if_idle()

    def source_failed(self, error: Exception) -> None:
        _log.error("stream failed, no more puts: uri=%s error=%s", self._target.name, error)
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
