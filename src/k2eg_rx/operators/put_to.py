"""Writes numbers of a stream to a PV, within limits and at a limited rate: `put_to`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import timeout_of
from k2eg_rx.operators.put_loop import LoopChange, PermitItem, StopItem
from k2eg_rx.operators.put_operator import DEFAULT_RATE, conditions_of, put_operator, step_maker
from k2eg_rx.operators.put_reports import PutClient, PutOutcome, PutReport
from k2eg_rx.operators.put_setpoints import OnLimit, Setpoint, SetpointLimits
from k2eg_rx.operators.put_steps import OnStep
from k2eg_rx.operators.put_targets import PutTarget
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVData, PVUpdate
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import shown


def put_to(
    client: PutClient,
    uri: str,
    *,
    limits: tuple[float, float],
    rate: float = DEFAULT_RATE,
    on_limit: OnLimit = "clamp",
    dry_run: bool = False,
    timeout: float | None = None,
    max_step: float | None = None,
    on_step: OnStep = "refuse",
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
    - A number further than `max_step` from the last one written is refused or clipped.
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
        max_step: The largest change of the PV by one put, in its units: from the value that this stream wrote last,
            and at first from the PV's value, which is read once. Numbers wait for it; without it the loop is tripped.
            After a failed put, from both the value before and the one that may have been written.
        on_step: "refuse" writes nothing in place of a larger change, "clip" changes the PV by `max_step` towards the
            number. `LoopChange` counts and names larger changes.
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
    seconds = None if timeout is None else timeout_of(timeout)
    _check_client(client, "put_stream")
    if max_step is not None:
        _check_client(client, "get_stream")
    target = _OnePV(client, address.uri, allowed, seconds)
    return put_operator(
        target,
        rate=rate,
        dry_run=dry_run,
        steps=step_maker({address.uri: allowed}, max_step, on_step),
        conditions=conditions_of(inputs, permit, permit_when, stop_on, on_state),
        scheduler=scheduler,
    )


class _OnePV(PutTarget[PutReport]):
    def __init__(self, client: Any, uri: str, limits: SetpointLimits, timeout: float | None) -> None:
        super().__init__(uri, (uri,))
        self._client = client
        self._limits = limits
        self._timeout = timeout

    def checked(self, item: Any) -> Setpoint:
        number = self._limits.check(item)
        if number.value is None:
            return Setpoint(item, None, refusal=number.refusal)
        return Setpoint(item, {self.name: number.value}, number.is_clamped)

    def read(self) -> Observable[Mapping[str, PVData]]:
        return self._client.get_stream(self.name, self._timeout).pipe(ops.map(lambda data: {self.name: data}))

    def put(self, values: Mapping[str, float]) -> Observable[Mapping[str, Exception]]:
        puts = self._client.put_stream(self.name, values[self.name], self._timeout)
        return puts.pipe(ops.map(lambda _: dict[str, Exception]()))

    def report(
        self, setpoint: Setpoint, outcome: PutOutcome, errors: Mapping[str, Exception], time: datetime, skipped: int
    ) -> PutReport:
        value = None if setpoint.values is None else setpoint.values[self.name]
        error = ValueError(f"{self.name}: {setpoint.refusal}") if setpoint.refusal else errors.get(self.name)
        return PutReport(self.name, setpoint.wanted, value, outcome, error, time, skipped)

    def shown(self, setpoint: Setpoint) -> tuple[object, object]:
        return None if setpoint.values is None else setpoint.values[self.name], setpoint.wanted


def _check_client(client: object, method: str) -> None:
    if not callable(getattr(client, method, None)):
        raise ValueError(f"client must have the method {method}, got {shown(client)}")
