"""Writes numbers of a stream to a PV, within limits and at a limited rate: `put_to`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from k2eg_rx.arguments import flag, instance, period_of, timeout_of
from k2eg_rx.operators.put_reports import PutClient, PutReport
from k2eg_rx.operators.put_setpoints import OnLimit, SetpointLimits
from k2eg_rx.operators.put_writer import PutWriter
from k2eg_rx.operators.stage import staged
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
        def make(observer: abc.ObserverBase[PutReport], timing: abc.SchedulerBase) -> PutWriter:
            return PutWriter(observer, timing, uri=address.uri, limits=allowed, period=period, put=send, inputs=inputs)

        return staged(source, make, scheduler)

    return operator
