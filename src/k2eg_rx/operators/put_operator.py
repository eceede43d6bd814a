"""What `put_to` and `put_many_to` share: their arguments, and the operator that they return.

Thread safety: functions without state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from reactivex import Observable, abc

from k2eg_rx.arguments import callback, flag, instance, one_of, period_of, positive
from k2eg_rx.operators.put_loop import LoopChange, PermitItem, StopItem
from k2eg_rx.operators.put_setpoints import SetpointLimits
from k2eg_rx.operators.put_steps import OnStep, SetpointSteps
from k2eg_rx.operators.put_targets import PutTarget, ReportT
from k2eg_rx.operators.put_writer import Conditions, PutWriter
from k2eg_rx.operators.stage import staged
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVUpdate
from k2eg_rx.texts import shown

DEFAULT_RATE = 1.0  # hertz: slow enough for an operator to follow


def conditions_of(
    inputs: Observable[ConnectionEvent | Staleness] | None,
    permit: Observable[PermitItem] | None,
    permit_when: Callable[[PVUpdate], bool] | None,
    stop_on: Observable[StopItem] | None,
    on_state: Callable[[LoopChange], None] | None,
) -> Conditions:
    """Returns the conditions of a loop, checked.

    Raises:
        ValueError: One is of another type.
    """
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
    return Conditions(inputs, permit, permit_when, stop_on, on_state)


def step_maker(
    limits: Mapping[str, SetpointLimits], max_step: float | Mapping[str, float] | None, on_step: OnStep
) -> Callable[[], SetpointSteps | None]:
    """Returns a function that makes the steps of a subscription.

    Args:
        limits: The limits, by URI.
        max_step: The largest change, of all PVs or by URI; None: any.
        on_step: What to do with a larger one.

    Raises:
        ValueError: A change is not above 0, one is missing, or the policy is unknown.
    """
    one_of(on_step, "on_step", ("refuse", "clip"))
    if max_step is None:
        return lambda: None
    given = by_uri(max_step, "max_step", limits)
    largest = {uri: positive(given[uri], "max_step") for uri in limits}
    return lambda: SetpointSteps(largest, on_step, limits)


def by_uri(value: Any, name: str, uris: Mapping[str, object]) -> Mapping[str, Any]:
    """Returns an argument that is one value for all PVs, or a mapping with one for each, by URI.

    Raises:
        ValueError: The mapping has other keys than the URIs.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(uris, value)
    given = dict(cast("Mapping[Any, Any]", value))
    if set(given) != set(uris):
        wrong = sorted(map(str, set(given).symmetric_difference(uris)))
        raise ValueError(f"{name} must have the URIs of the PVs, each once; missing or unknown: {shown(wrong)}")
    return given


def put_operator(
    target: PutTarget[ReportT],
    *,
    rate: float,
    dry_run: bool,
    steps: Callable[[], SetpointSteps | None],
    conditions: Conditions,
    scheduler: abc.SchedulerBase | None,
) -> Callable[[Observable[Any]], Observable[ReportT]]:
    """Returns the operator that writes to a target.

    Raises:
        ValueError: An argument is invalid.
    """
    period = period_of(rate)
    flag(dry_run, "dry_run")

    def operator(source: Observable[Any]) -> Observable[ReportT]:
        def make(observer: abc.ObserverBase[ReportT], timing: abc.SchedulerBase) -> PutWriter[ReportT]:
            return PutWriter(
                observer,
                timing,
                target=target,
                period=period,
                dry_run=dry_run,
                steps=steps(),
                conditions=conditions,
            )

        return staged(source, make, scheduler)

    return operator
