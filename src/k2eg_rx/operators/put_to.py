"""`put_to`: a stream's numbers written to a PV, within limits, not too often, and with a log.

In: numbers, on the thread of the source. Out: puts, one at a time, and a `Written` for each decision, on the thread of
the source, of the scheduler, or of the put's reply. The one number that waits belongs to the lock of the stage.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.arguments import positive
from k2eg_rx.errors import ClientClosedError, K2EGError
from k2eg_rx.operators.put_to_limits import Limits, OnLimit, Setpoint
from k2eg_rx.operators.stage import RESOLUTION, Stage, staged
from k2eg_rx.pv import PVAddress

_log = logging.getLogger(__name__)

DEFAULT_RATE = 1.0  # Hz: what a person could still follow; who needs it faster says so


class Putter(Protocol):
    """What `put_to` needs of a client; a `k2eg_rx.Client` has it."""

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        """Returns a stream of one: the reply to a put, which each subscription sends."""
        ...


class Outcome(StrEnum):
    """What became of a number.

    WRITTEN: the gateway has confirmed it. CLAMPED: the same, of a limit in its place. DRY_RUN: it would have been sent.
    REFUSED: it was not sent. FAILED: it was sent or about to be, and there was an error; after an `OperationTimeout` it
    may still be written.
    """

    WRITTEN = "written"
    CLAMPED = "clamped"
    DRY_RUN = "dry_run"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Written:
    """An entry in the log of what was written to a PV.

    Attributes:
        uri: The PV.
        wanted: What the stream emitted.
        value: What was sent, or would have been in a dry run; None of what was refused.
        outcome: What became of it.
        error: Of what was refused or failed, why.
        time: When it was decided to send it or not, UTC, by the scheduler's clock.
        skipped: How many numbers were passed over in favour of this one: they waited for their turn when it came.
    """

    uri: str
    wanted: Any
    value: float | None
    outcome: Outcome
    error: Exception | None
    time: datetime
    skipped: int


class _Entry(NamedTuple):
    """What is known of an entry before its outcome is."""

    setpoint: Setpoint
    decided: datetime
    skipped: int


class _Writer(Stage[Any, Written]):
    """At most one number waits, the newest, and at most one put is under way."""

    def __init__(
        self,
        observer: abc.ObserverBase[Written],
        scheduler: abc.SchedulerBase,
        *,
        uri: str,
        limits: Limits,
        period: float,
        put: Callable[[float], Observable[Any]] | None,
    ) -> None:
        super().__init__(observer, scheduler)
        self._uri = uri
        self._limits = limits
        self._period = period
        self._put = put
        self._subscribed: abc.SchedulerBase | None = None
        self._waiting: Setpoint | None = None
        self._skipped = 0  # in favour of what waits
        self._next = -math.inf  # when the next put may be sent
        self._timed = False
        self._writing = False
        self._ending = False
        self._last: Outcome | None = None
        self._reply = SerialDisposable()
        self.hold(self._reply)

    def run(self, source: Observable[Any], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the source; puts are subscribed to on the same scheduler."""
        self._subscribed = subscribed
        return super().run(source, subscribed)

    def take(self, item: Any) -> None:
        # not left to the source, which might go on after an exception of the subscriber's: then so would the writing
        self.alone(self._decide)(item)

    def _decide(self, item: Any) -> None:
        setpoint = self._limits.setpoint(item)
        if self._waiting is not None:
            self._skipped += 1
        if setpoint.value is not None:
            self._waiting = setpoint
            self._send()
            return
        self._waiting = None  # it is older than what is known to be wrong
        error = ValueError(f"{self._uri}: {setpoint.refusal}")
        self._report(_Entry(setpoint, self.scheduler.now, self._take_skipped()), Outcome.REFUSED, error)

    def _take_skipped(self) -> int:
        skipped, self._skipped = self._skipped, 0
        return skipped

    def tick(self) -> None:
        self._timed = False
        self._send()

    def _send(self) -> None:
        # the subscriber may have left while it was told of the put before
        if self._waiting is None or self._writing or self._timed or not self.is_open:
            return
        now = self.now()
        if self._next - now > RESOLUTION:
            self._timed = True
            self.tick_in(self._next - now)
            return
        setpoint, self._waiting = self._waiting, None
        entry = _Entry(setpoint, self.scheduler.now, self._take_skipped())
        self._next = now + self._period
        if self._put is None:
            self._report(entry, Outcome.DRY_RUN)
            self._end_if_idle()
        elif setpoint.value is not None:
            self._writing = True
            self._write(entry, self._put, setpoint.value)

    def _write(self, entry: _Entry, put: Callable[[float], Observable[Any]], value: float) -> None:
        pending = [entry]

        def done(error: Exception | None) -> None:
            while pending:
                self._writing = False
                self._wrote(pending.pop(), error)

        def replied(_reply: Any) -> None:
            done(None)

        def ended() -> None:
            done(K2EGError(f"the put of {self._uri} ended without a reply"))

        finish = self.alone(done)
        reply = SingleAssignmentDisposable()
        self._reply.disposable = reply  # before the reply may come and the next put take its place
        try:
            reply.disposable = put(value).subscribe(
                self.alone(replied), finish, self.alone(ended), scheduler=self._subscribed
            )
        except Exception as error:  # by a client that raises in place of failing the stream
            finish(error)

    def _wrote(self, entry: _Entry, error: Exception | None) -> None:
        if error is None:
            self._report(entry, Outcome.CLAMPED if entry.setpoint.clamped else Outcome.WRITTEN)
        else:
            self._report(entry, Outcome.FAILED, error)
        if isinstance(error, ClientClosedError):
            self.fail(error)
            return
        self._send()
        self._end_if_idle()

    def _report(self, entry: _Entry, outcome: Outcome, error: Exception | None = None) -> None:
        setpoint = entry.setpoint
        news, self._last = outcome is not self._last, outcome
        if outcome in (Outcome.WRITTEN, Outcome.DRY_RUN):
            level = logging.INFO
        else:
            level = logging.WARNING if news else logging.DEBUG  # once, not a thousand times a second
        what = f"{outcome} {setpoint.value!r}" if setpoint.value is not None else str(outcome)
        why = f": {setpoint.refusal or error}" if error is not None else ""
        _log.log(level, "%s: %s for %r%s", self._uri, what, setpoint.wanted, why)
        self.emit(Written(self._uri, setpoint.wanted, setpoint.value, outcome, error, entry.decided, entry.skipped))

    def source_completed(self) -> None:
        self._ending = True
        self._end_if_idle()

    def source_failed(self, error: Exception) -> None:
        _log.error("%s: nothing more is written, since the stream failed: %s", self._uri, error)
        self.fail(error)

    def _end_if_idle(self) -> None:
        if self._ending and self._waiting is None and not self._writing:
            self.complete()


def put_to(
    client: Putter,
    uri: str,
    *,
    limits: tuple[float, float],
    max_rate: float = DEFAULT_RATE,
    on_limit: OnLimit = "clamp",
    dry_run: bool = False,
    timeout: float | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Any]], Observable[Written]]:
    """Returns an operator that writes a stream's numbers to a PV, and emits a `Written` for each decision.

    It begins with the subscription and ends with it: nothing is sent after `dispose`.

    - A number outside `limits` is clamped to them or refused; NaN, infinity and what is no number are always refused,
      and what waited for its turn then is not written either.
    - Puts are sent at most `max_rate` times a second and one after the other. Of what comes meanwhile only the newest
      is written; `Written.skipped` counts the others.
    - An error of the stream, an exception in an operator before this one among them, stops the writing at once and for
      good: what waits is dropped, and no value is ever written a second time. So does an exception of the subscriber.
    - A put that fails is not repeated; the next number is a new one. Only a closed client ends the stream.
    - At the stream's regular end what waits is still written.

    Every entry also goes to the `logging` of ``k2eg_rx.operators.put_to``: as INFO what was written, as WARNING the
    first of what was clamped, refused or failed in a row.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import put_to, value
        >>> from k2eg_rx.testing import update
        >>> from reactivex import operators as ops
        >>> from reactivex.subject import Subject
        >>> from reactivex.testing import TestScheduler
        >>> class Bench:  # stands for a k2eg_rx.Client
        ...     def put_stream(self, uri, value, timeout=None):
        ...         print(float(clock.clock), "put", uri, value)
        ...         return rx.of("done")
        >>> clock = TestScheduler()  # virtual time: it passes when it is told to
        >>> orbit = Subject()
        >>> corrections = orbit.pipe(
        ...     value(),
        ...     ops.map(lambda position: -2.0 * position),
        ...     put_to(Bench(), "pva://demo:corrector", limits=(-5.0, 5.0), max_rate=1.0),
        ... )
        >>> def show(entry):
        ...     print(f"{entry.wanted}: {entry.outcome} {entry.value}, {entry.skipped} skipped")
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

    Args:
        client: A client.
        uri: The PV to write.
        limits: The lowest and the highest value that may be written. An infinite one is none, which has to be said:
            ``(-math.inf, math.inf)``.
        max_rate: How many puts a second at most.
        on_limit: "clamp" writes the limit in place of a number beyond it, "refuse" nothing.
        dry_run: True does all of it but the put; the entries tell what would have been written.
        timeout: Seconds for each put; the client's own by default.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: An argument makes no sense.
    """
    address = PVAddress.parse(uri)
    allowed = Limits.checked(limits, on_limit)
    period = 1.0 / positive(max_rate, "max_rate")

    def put(value: float) -> Observable[Any]:
        return client.put_stream(address.uri, value, timeout)

    send = None if dry_run else put

    def operator(source: Observable[Any]) -> Observable[Written]:
        def make(observer: abc.ObserverBase[Written], timing: abc.SchedulerBase) -> _Writer:
            return _Writer(observer, timing, uri=address.uri, limits=allowed, period=period, put=send)

        return staged(source, make, scheduler)

    return operator
