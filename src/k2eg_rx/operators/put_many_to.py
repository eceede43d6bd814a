"""Writes vectors of a stream to several PVs, each as one step: `put_many_to`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import addressed, timeout_of
from k2eg_rx.errors import ClientClosedError, K2EGError, PutWithheldError
from k2eg_rx.operators.put_loop import LoopChange, PermitItem, StopItem
from k2eg_rx.operators.put_operator import DEFAULT_RATE, by_uri, conditions_of, put_operator, step_maker
from k2eg_rx.operators.put_reports import PutManyClient, PutOutcome, PutStepReport
from k2eg_rx.operators.put_setpoints import OnLimit, Setpoint, SetpointLimits
from k2eg_rx.operators.put_steps import OnStep
from k2eg_rx.operators.put_targets import PutTarget
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVData, PVUpdate
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import shown


def put_many_to(
    client: PutManyClient,
    uris: Iterable[str],
    *,
    limits: tuple[float, float] | Mapping[str, tuple[float, float]],
    rate: float = DEFAULT_RATE,
    on_limit: OnLimit = "clamp",
    dry_run: bool = False,
    timeout: float | None = None,
    max_step: float | Mapping[str, float] | None = None,
    on_step: OnStep = "refuse",
    inputs: Observable[ConnectionEvent | Staleness] | None = None,
    permit: Observable[PermitItem] | None = None,
    permit_when: Callable[[PVUpdate], bool] | None = None,
    stop_on: Observable[StopItem] | None = None,
    on_state: Callable[[LoopChange], None] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Any]], Observable[PutStepReport]]:
    """Writes vectors to several PVs, each as one step; emits a `PutStepReport` for each step written or refused.

    A vector is a sequence or a numpy array with a number for each PV, in the order of `uris`, or a mapping by URI. What
    `put_to` does with a number, this does with a step:

    - All puts of a step are sent, or none. A step is refused if one of its numbers is, if its length or its URIs are
      wrong, if a number does not fit its PV's type, and while a PV is not connected. The report names the PV.
    - At most one step is in flight: the next one begins when each put has been confirmed, has failed, or has timed out.
      Each PV gets its numbers in the order of the steps.
    - A put that fails after it was sent does not take the others back: the report is `partial`, with an error for each
      such PV. No put is repeated; the next step goes on from there. Gateways carry the puts of a step out one by one.
    - A step that is in flight at `dispose` ends unless no part of it was sent.

    Args:
        client: A `k2eg_rx.Client`.
        uris: The PVs, each once. They are monitored meanwhile. Steps are refused until each is known to be connected.
        limits: Lowest and highest value, of all PVs or by URI; see `put_to`.
        rate: Steps a second at most, in hertz.
        on_limit: "clamp" writes the limit in place of a number outside it, "refuse" refuses the step.
        dry_run: If true, sends no put; reports say what it would have written.
        timeout: Seconds for the puts of a step; by default the client's timeout.
        max_step: The largest change by one step, of all PVs or by URI; see `put_to`.
        on_step: "refuse" refuses a step with a larger change, "clip" shortens it: all changes by the same factor, which
            keeps their ratios.
        inputs: As for `put_to`.
        permit: As for `put_to`.
        permit_when: As for `put_to`.
        stop_on: As for `put_to`.
        on_state: As for `put_to`.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `PutStepReport`: when a step is refused, and when the last of its puts is confirmed or fails.

    Raises:
        ValueError: A URI, limits, step, rate or policy is invalid.

    Example:
        >>> from k2eg_rx.operators import put_many_to
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> from reactivex.subject import Subject
        >>> def show(report):
        ...     print(report.outcome, report.values or report.error)
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     x, y = gateway.pv("cor:x", 0.0), gateway.pv("cor:y", 0.0)
        ...     currents = Subject()
        ...     steps = currents.pipe(put_many_to(client, ["pva://cor:x", "pva://cor:y"], limits=(-5.0, 5.0)))
        ...     writing = steps.subscribe(show)
        ...     gateway.settle()  # both PVs are connected
        ...     currents.on_next([0.5, -0.5])
        ...     gateway.advance(2.0)
        ...     currents.on_next([0.7, float("nan")])
        written {'pva://cor:x': 0.5, 'pva://cor:y': -0.5}
        refused pva://cor:x and 1 more: pva://cor:y: number must be finite, got nan
    """
    names = _distinct(addressed(uris))
    ranges = by_uri(limits, "limits", dict.fromkeys(names))
    allowed = {uri: SetpointLimits.checked(ranges[uri], on_limit) for uri in names}
    seconds = None if timeout is None else timeout_of(timeout)
    for method in ("put_many_stream", "get_many_stream", "connection_stream"):
        if not callable(getattr(client, method, None)):
            raise ValueError(f"client must have the method {method}, got {shown(client)}")
    return put_operator(
        _ManyPVs(client, allowed, seconds),
        rate=rate,
        dry_run=dry_run,
        steps=step_maker(allowed, max_step, on_step),
        conditions=conditions_of(inputs, permit, permit_when, stop_on, on_state),
        scheduler=scheduler,
    )


def _distinct(addresses: Iterable[PVAddress]) -> tuple[str, ...]:
    """Returns the URIs of PVs that are not the same.

    Raises:
        ValueError: Two are: it would be written twice in one step.
    """
    seen: dict[str, PVAddress] = {}
    for address in addresses:
        name = address.name.removesuffix(".VAL")
        if name in seen:
            raise ValueError(f"uris must name each PV once, got {seen[name]} and {address}")
        seen[name] = address
    return tuple(address.uri for address in seen.values())


class _ManyPVs(PutTarget[PutStepReport]):
    def __init__(self, client: PutManyClient, limits: Mapping[str, SetpointLimits], timeout: float | None) -> None:
        uris = tuple(limits)
        super().__init__(uris[0] if len(uris) == 1 else f"{uris[0]} and {len(uris) - 1} more", uris)
        self._client = client
        self._limits = limits
        self._timeout = timeout

    @property
    def connections(self) -> Observable[ConnectionEvent]:
        return self._client.connection_stream(self.uris)

    def checked(self, item: Any) -> Setpoint:
        numbers = self._numbers(item)
        if isinstance(numbers, str):
            return Setpoint(item, None, refusal=numbers)
        checked = {uri: self._limits[uri].check(numbers[uri]) for uri in self.uris}
        values = {uri: number.value for uri, number in checked.items() if number.value is not None}
        if len(values) == len(checked):
            return Setpoint(item, values, any(number.is_clamped for number in checked.values()))
        faults = {uri: f"{uri}: {number.refusal}" for uri, number in checked.items() if number.refusal}
        return Setpoint(item, None).refused(next(iter(faults.values())), faults)

    def _numbers(self, item: Any) -> Mapping[str, Any] | str:
        """Returns the numbers of a vector by URI, or why it has not one for each PV."""
        if isinstance(item, Mapping):
            given = cast("Mapping[Any, Any]", item)
            missing = [uri for uri in self.uris if uri not in given]
            unknown = [key for key in given if key not in self._limits]
            if missing or unknown:
                return f"mapping must have the PVs' URIs: {shown(missing)} are missing, {shown(unknown)} are unknown"
            return dict(given)
        if len(getattr(item, "shape", ())) == 1 and callable(getattr(item, "tolist", None)):
            item = item.tolist()  # numbers of Python, also of an array of bools or objects
        if not isinstance(item, Sequence) or isinstance(item, str | bytes | bytearray):
            return f"item must be a vector, a sequence or mapping of numbers, got {type(item).__name__}"
        numbers = list(cast("Sequence[Any]", item))
        if len(numbers) != len(self.uris):
            return f"vector must have {len(self.uris)} numbers, one for each PV, got {len(numbers)}"
        return dict(zip(self.uris, numbers, strict=True))

    def read(self) -> Observable[Mapping[str, PVData]]:
        def values(results: list[Any]) -> dict[str, PVData]:
            if len(results) < len(self.uris):
                raise ClientClosedError("the client was closed before all PVs were read")
            return {result.uri: result.result() for result in results}

        return self._client.get_many_stream(self.uris, self._timeout).pipe(ops.to_list(), ops.map(values))

    def put(self, values: Mapping[str, float]) -> Observable[Mapping[str, Exception]]:
        def errors(results: list[Any]) -> dict[str, Exception]:
            unsent = ClientClosedError("the client was closed before the command was sent")
            found = {result.uri: result.error for result in results}
            by_pv = {uri: found.get(uri, unsent) for uri in values}
            return {uri: error for uri, error in by_pv.items() if error is not None}

        puts = self._client.put_many_stream(values, self._timeout, all_or_none=True)
        return puts.pipe(ops.to_list(), ops.map(errors))

    def report(
        self, setpoint: Setpoint, outcome: PutOutcome, errors: Mapping[str, Exception], time: datetime, skipped: int
    ) -> PutStepReport:
        error: Exception | None = None
        if setpoint.refusal:
            error = ValueError(f"{self.name}: {setpoint.refusal}")
            errors = {uri: ValueError(fault) for uri, fault in setpoint.faults.items()}
        elif errors:
            errors = {uri: each for uri, each in errors.items() if not isinstance(each, PutWithheldError)}
            what = "nothing was written" if outcome is PutOutcome.REFUSED else "not confirmed"
            texts = "; ".join(dict.fromkeys(f"{uri}: {each}" for uri, each in errors.items()))
            error = K2EGError(f"{self.name}: {what}: {texts}")
        values = None if outcome is PutOutcome.REFUSED else setpoint.values
        return PutStepReport(self.uris, setpoint.wanted, values, outcome, error, errors, time, skipped)
