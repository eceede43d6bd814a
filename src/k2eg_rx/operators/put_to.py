"""Writes numbers of a stream to a PV, within limits and at a limited rate: `put_to`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from k2eg_rx.arguments import callback, flag, instance, period_of, timeout_of
from k2eg_rx.operators.put_loop import LoopChange, PermitItem, StopItem
from k2eg_rx.operators.put_reports import PutClient, PutReport
from k2eg_rx.operators.put_setpoints import OnLimit, SetpointLimits
from k2eg_rx.operators.put_writer import Conditions, PutWriter
from k2eg_rx.operators.stage import staged
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVUpdate
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import shown

DEFAULT_RATE = 1.0  # hertz: slow enough for an operator to follow


def put_to(
    client: PutClient,
    uri: str,
    *,
    limits: tuple[float, float],
    rate: float = DEFAULT_RATE,
    on_limit: OnLimit = "clamp",
    dry_run: bool = False,
    timeout: float | None = None,
    inputs: Observable[ConnectionEvent | Staleness] | None = None,
    permit: Observable[PermitItem] | None = None,
    permit_when: Callable[[PVUpdate], bool] | None = None,
    stop_on: Observable[StopItem] | None = None,
    on_state: Callable[[LoopChange], None] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Any]], Observable[PutReport]]:
    """Writes the stream's numbers to a PV; emits a `PutReport` for each number written or refused.

    - A number outside `limits` is clamped or refused. NaN, infinity and items that are no numbers are always refused,
      together with a number that waits.
    - At most one put is in flight, and at most `rate` puts are sent a second. Of the numbers that arrive meanwhile only
      the newest is written; `PutReport.skipped` counts the others.
    - An error of the source, which includes exceptions in operators before this one, stops the writing for good and
      drops the waiting number. So does an exception of the subscriber. No value is written twice.
    - While one of the `inputs` is disconnected or stale, or the `permit` is not there, the loop is open: numbers are
      refused. What `stop_on` emits trips it: numbers are refused until the stream is subscribed to again. A number that
      waited, or that arrived before, is refused too, and is not written when the loop closes. What is in flight is
      not taken back.
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
        permit: Numbers are written while it permits. A PV, ``client.monitor_stream(uri, connection=True)``, must be
            connected, on (see `permit_when`) and not INVALID, nor silent if its `stale` is merged in. Bools hold until
            the next one. After a loss the next value permits. Its error ends the writing; after its end all numbers
            are refused.
        permit_when: Whether an update of `permit` permits; by default a number other than zero, or an enum whose index
            is not zero.
        stop_on: Trips the loop: an update or `AlarmTransition` with severity MAJOR or worse, a disconnected or stale
            PV, True, and its end. A PV that is silent from the start trips with ``connection=True`` or `stale` only.
        on_state: Called with a `LoopChange` at the subscription, at each change of state or reason, and when the stream
            ends, but not after `dispose`. It must not block. `reactivex.subject.ReplaySubject(1).on_next` makes a
            stream of it. What it raises ends the writing.
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
    if permit is not None:
        instance(permit, "permit", Observable, "an Observable of updates with connections, or of bools")
    elif permit_when is not None:
        raise ValueError("permit_when must be given together with permit")
    if stop_on is not None:
        instance(stop_on, "stop_on", Observable, "an Observable of updates, alarms, connections or bools")
    if permit_when is not None:
        callback(permit_when, "permit_when", "update")  # no coroutine function, whose result would count as true
    if on_state is not None:
        callback(on_state, "on_state", "change")
    conditions = Conditions(inputs, permit, permit_when, stop_on, on_state)

    def put(value: float) -> Observable[Any]:
        return client.put_stream(address.uri, value, seconds)

    send = None if dry_run else put

    def operator(source: Observable[Any]) -> Observable[PutReport]:
        def make(observer: abc.ObserverBase[PutReport], timing: abc.SchedulerBase) -> PutWriter:
            return PutWriter(
                observer, timing, uri=address.uri, limits=allowed, period=period, put=send, conditions=conditions
            )

        return staged(source, make, scheduler)

    return operator
