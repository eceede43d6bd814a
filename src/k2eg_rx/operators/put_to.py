"""Writes numbers of a stream to a PV, within limits and at a limited rate: `put_to`.

Thread safety: the lock of the stage protects all state. Reports are emitted on the thread of the source, of the
scheduler or of a put's reply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol, cast

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.arguments import flag, instance, one_of, period_of, timeout_of
from k2eg_rx.errors import ClientClosedError, K2EGError
from k2eg_rx.operators.put_inputs import PutInputs
from k2eg_rx.operators.stage import RESOLUTION, Stage, staged
from k2eg_rx.protocol import PVData
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)

DEFAULT_RATE = 1.0  # hertz: slow enough for an operator to follow

OnLimit = Literal["clamp", "refuse"]
"""What to do with a number outside the limits."""


class PutClient(Protocol):
    """The part of `k2eg_rx.Client` that `put_to` uses."""

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        """Returns a single-item Observable of the reply; each subscription sends the put."""
        ...


class PutOutcome(StrEnum):
    """What `put_to` did with a number.

    Attributes:
        WRITTEN: The gateway confirmed the put.
        CLAMPED: The gateway confirmed the put of a limit in place of the number.
        DRY_RUN: A dry run; the put was not sent.
        REFUSED: The number was invalid or outside the limits, or an input was missing; no put was sent.
        FAILED: The put failed. After an `OperationTimeout` the gateway may still write the value.
    """

    WRITTEN = "written"
    CLAMPED = "clamped"
    DRY_RUN = "dry_run"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PutReport:
    """Outcome of one number of the stream.

    Attributes:
        uri: URI of the PV.
        wanted: Item of the stream.
        value: Value of the put, also in a dry run; None if the number was refused.
        outcome: What was done with it.
        error: Why it was refused or failed; otherwise None.
        time: When the put was sent or the number refused: UTC, by the scheduler's clock.
        skipped: Earlier numbers that this one replaced while they waited.
    """

    uri: str
    wanted: Any
    value: float | None
    outcome: PutOutcome
    error: Exception | None
    time: datetime
    skipped: int


@dataclass(frozen=True, slots=True)
class Setpoint:
    """A number checked against the limits.

    Attributes:
        wanted: Item of the stream.
        value: Value to write; None if it is refused.
        clamped: Whether the value is a limit in place of the number.
        refusal: Reason of the refusal, or an empty string.
    """

    wanted: Any
    value: float | None
    clamped: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class SetpointLimits:
    """Range of values that may be written, both ends included."""

    low: float
    high: float
    on_limit: OnLimit

    @classmethod
    def checked(cls, limits: tuple[float, float], on_limit: OnLimit) -> SetpointLimits:
        """Returns the limits.

        Raises:
            ValueError: They are no ascending pair, or the policy is unknown.
        """
        try:
            low, high = map(_limit, limits)
            is_range = low <= high  # False with NaN
        except (TypeError, ValueError, OverflowError):
            is_range, low, high = False, 0.0, 0.0
        if not is_range:
            raise ValueError(f"limits must be a pair (lowest, highest) of numbers, got {shown(limits)}")
        one_of(on_limit, "on_limit", ("clamp", "refuse"))
        return cls(low, high, on_limit)

    def setpoint(self, wanted: Any) -> Setpoint:
        """Returns an item of the stream, checked."""
        number = wanted.item() if getattr(wanted, "shape", None) == () else wanted  # a numpy scalar
        if isinstance(number, PVData):
            return Setpoint(wanted, None, refusal="item is an update, not a number: put value() before put_to")
        if not isinstance(number, int | float):
            return Setpoint(wanted, None, refusal=f"item must be a number, got {type(number).__name__}")
        if not math.isfinite(number):
            return Setpoint(wanted, None, refusal=f"number must be finite, got {number}")
        if self.low <= number <= self.high:
            return Setpoint(wanted, number)
        if self.on_limit == "refuse":
            return Setpoint(wanted, None, refusal=f"{number} is outside {self.low} to {self.high}")
        return Setpoint(wanted, min(max(number, self.low), self.high), clamped=True)


def _limit(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError
    _ = float(number)  # not beyond the range of floats
    return cast("float", number)


class _Pending(NamedTuple):
    """A number whose outcome is not known yet."""

    setpoint: Setpoint
    time: datetime
    skipped: int


class _Writer(Stage[Any, PutReport]):
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


def put_to(
    client: PutClient,
    uri: str,
    *,
    limits: tuple[float, float],
    rate: float = DEFAULT_RATE,
    on_limit: OnLimit = "clamp",
    dry_run: bool = False,
    timeout: float | None = None,
    inputs: Observable[Any] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Any]], Observable[PutReport]]:
    """Writes the stream's numbers to a PV; emits a `PutReport` for each number written or refused.

    - A number outside `limits` is clamped or refused. NaN, infinity and items that are no numbers are always refused,
      together with a number that waits.
    - At most one put is in flight, and at most `rate` puts are sent a second. Of the numbers that arrive meanwhile only
      the newest is written; `PutReport.skipped` counts the others.
    - An error of the source, which includes exceptions in operators before this one, stops the writing for good and
      drops the waiting number. So does an exception of the subscriber. No value is written twice.
    - While one of the `inputs` is disconnected or stale, numbers are refused, together with one that waits.
    - A failed put is not repeated. Only a closed client ends the stream.
    - After `dispose` nothing is sent. When the source completes, the waiting number is still written.

    The logger ``k2eg_rx.operators.put_to`` gets puts and dry runs as INFO, and the first clamped, refused or failed
    number of a row as WARNING.

    Args:
        client: A `k2eg_rx.Client`.
        uri: URI of the PV to write.
        limits: Lowest and highest value to write, in the PV's units. ``(-math.inf, math.inf)`` sets no limits.
        rate: Puts a second at most, in hertz.
        on_limit: "clamp" writes the limit in place of a number outside it, "refuse" writes nothing.
        dry_run: If true, sends no put; reports say what it would have written.
        timeout: Seconds for each put; by default the client's timeout.
        inputs: The states of the PVs that the numbers are computed from: ``client.connection_stream(uris)``, or the
            stream of `stale`, or both merged. Its error ends the writing; after its end all numbers are refused. None:
            numbers are written whatever became of the PVs.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `PutReport`: when a number is refused, and when a put is confirmed or fails.

    Raises:
        ValueError: The URI, limits, rate or policy is invalid.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import put_to, value
        >>> from k2eg_rx.testing import update
        >>> from reactivex import operators as ops
        >>> from reactivex.subject import Subject
        >>> from reactivex.testing import TestScheduler
        >>> class Bench:  # in place of a k2eg_rx.Client
        ...     def put_stream(self, uri, value, timeout=None):
        ...         print(float(clock.clock), "put", uri, value)
        ...         return rx.of("done")
        >>> clock = TestScheduler()  # virtual time
        >>> orbit = Subject()
        >>> corrections = orbit.pipe(
        ...     value(),
        ...     ops.map(lambda position: -2.0 * position),
        ...     put_to(Bench(), "pva://demo:corrector", limits=(-5.0, 5.0), rate=1.0),
        ... )
        >>> def show(report):
        ...     print(f"{report.wanted}: {report.outcome} {report.value}, {report.skipped} skipped")
        >>> writing = corrections.subscribe(show, scheduler=clock)
        >>> for position in [0.5, 1.0, 4.0]:
        ...     orbit.on_next(update("demo:orbit", position))
        0.0 put pva://demo:corrector -1.0
        >>> clock.advance_to(5.0)
        -1.0: written -1.0, 0 skipped
        1.0 put pva://demo:corrector -5.0
        -8.0: clamped -5.0, 1 skipped
        >>> orbit.on_next(update("demo:orbit", float("nan")))
        nan: refused None, 0 skipped
        >>> writing.dispose()  # nothing is sent any more
    """
    address = PVAddress.parse(uri)
    allowed = SetpointLimits.checked(limits, on_limit)
    period = period_of(rate)
    flag(dry_run, "dry_run")
    seconds = None if timeout is None else timeout_of(timeout)
    if not callable(getattr(client, "put_stream", None)):
        raise ValueError(f"client must have the method put_stream, got {shown(client)}")
    if inputs is not None:
        instance(inputs, "inputs", Observable, "an Observable of ConnectionEvent or Staleness")

    def put(value: float) -> Observable[Any]:
        return client.put_stream(address.uri, value, seconds)

    send = None if dry_run else put

    def operator(source: Observable[Any]) -> Observable[PutReport]:
        def make(observer: abc.ObserverBase[PutReport], timing: abc.SchedulerBase) -> _Writer:
            return _Writer(observer, timing, uri=address.uri, limits=allowed, period=period, put=send, inputs=inputs)

        return staged(source, make, scheduler)

    return operator
