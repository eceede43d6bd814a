"""Joins updates of several PVs that belong to one instant: `align`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Literal

from reactivex import Observable, abc

from k2eg_rx.arguments import LONGEST_DURATION, callback, instance, mapping, non_negative, one_of, pv_names, whole
from k2eg_rx.concurrency import check_scheduler
from k2eg_rx.delivery import Overflow, label_of, overflow_of
from k2eg_rx.operators.align_join import Aligned, Joiner, JoinOptions
from k2eg_rx.operators.drops import AlignCounts, OnDrop
from k2eg_rx.operators.idle_time import IdleTime, clock_of
from k2eg_rx.operators.stage import collected
from k2eg_rx.protocol import NANOSECONDS, ConnectionEvent, PVUpdate
from k2eg_rx.pv import check_pulse_id_mask
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)

_PER_PV = 1_000  # updates that a PV may be ahead of others: 100 s at 10 Hz
_CAPACITIES = 20_000, 100_000  # limits of the default: about 100 and 500 MB of scalars, reached if a PV sends nothing
_WAITS = 4  # of the grace, in one of which the process may have been stalled


def _max_ages(hold: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """Returns the maximum age of each held PV in nanoseconds."""
    given = mapping(hold, "hold", "a mapping of PVs to seconds")
    ages = dict(zip(pv_names(given, "hold"), given.values(), strict=True))
    for name, age in ages.items():
        if name not in names:
            raise ValueError(f"hold must name PVs among those to align, got {shown(name)}")
        if isinstance(age, bool) or not isinstance(age, Real) or not age > 0:
            raise ValueError(f"hold of {shown(name)} must be a maximum age above 0 seconds, got {shown(age)}")
    if len(ages) == len(names):
        raise ValueError("hold must leave out at least one PV, which gives the instants; it names all of them")
    return {name: age * NANOSECONDS for name, age in ages.items()}


def align(
    pvs: Iterable[str],
    *,
    tolerance: float | None = None,
    on: Literal["timestamp", "pulse_id"] | Callable[[PVUpdate], int | None] = "timestamp",
    grace: float = 1.0,
    incomplete: Literal["drop", "partial"] = "drop",
    hold: Mapping[str, float] | None = None,
    capacity: int | None = None,
    pulse_id_mask: int | None = None,
    counts: AlignCounts | None = None,
    on_drop: OnDrop | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[PVUpdate | ConnectionEvent]], Observable[Aligned]]:
    """Emits an `Aligned` with the updates of several PVs that have the same EPICS time or pulse id, oldest first.

    Updates of different PVs may arrive in any order, and the instants are the same: live, from a minute ago, from a
    file, or replayed at any speed. An instant waits until each PV has an update for it or a later one, or has been
    silent for `grace`. Each update is part of one instant at most, the earliest that fits. With a `tolerance` of half a
    PV's period or more, that may be a neighbouring instant.

    In a stream with connections (``monitor_many_stream(..., connection=True)``), no instant waits for a PV that is not
    connected: it is dropped, or emitted without that PV, as soon as the others have an update for it. Held values keep
    their maximum age.

    Put no ``overflow="latest"`` and no `conflate` before it: they drop the updates of which instants are made.

    An instant needs all PVs: a PV at 1 Hz among others at 120 Hz gives one instant a second, and the other 119 updates
    of each PV are dropped. Name it in `hold` if its last known value will do. An instant then takes the newest value
    that has arrived by then and is not newer than the instant, and does not wait for another one.

    The operator has no timer: while no updates arrive, it closes no instant. `capacity` bounds the waiting updates. The
    first instant that is given up for a silent PV or for want of capacity is logged, all are counted.

    Args:
        pvs: PVs to align, by name or URI. Updates of other PVs are dropped.
        tolerance: Seconds that EPICS times of one instant may lie apart; by default they must be equal. With pulse ids,
            an additional condition, by default none.
        on: "timestamp" joins by EPICS time, "pulse_id" by the pulse id in it. Pulse ids wrap: the clocks of PVs must
            agree to well below half the time in which they repeat (LCLS, 17 bits at 360 Hz: 364 s). A function joins by
            the whole number that it returns for an update, such as ``lambda update: update.user_tag``; it must grow in
            each PV. None drops the update.
        grace: Seconds that a PV may be silent before instants are given up that lack it. They are seconds in which this
            operator waits for updates: those in which it or its subscriber is busy do not count, nor those in which the
            client is far behind, and a single wait counts as a quarter of the grace at most. The newest EPICS time must
            be `grace` past the instant, too.
        incomplete: What to do with an instant that lacks a PV: "drop" drops its updates, "partial" emits it once no
            missing update can arrive, with the updates within `tolerance` of its oldest one.
        hold: Maximum age in seconds of a PV's last known value, by name or URI. ``math.inf`` for setpoints that never
            change.
        capacity: Updates that may wait; by default 1,000 for each PV, within 20,000 and 100,000. A full queue gives up
            its oldest instant before the grace is over. A client that has fallen far behind reads its PVs evenly, so
            that the default suffices for some 700 PVs. Held PVs may have 1024 more each.
        pulse_id_mask: Bits of the nanoseconds that hold the pulse id; by default those of the environment. An id with
            all bits set is invalid.
        counts: Filled with the numbers of updates and instants.
        on_drop: Called with each update that is part of no instant, and the reason. If it raises, the stream fails.
        scheduler: The clock of `grace`; by default that of `subscribe`, else the shared one.

    Emits:
        `Aligned`: one for each instant.

    Raises:
        ValueError: `pvs` is empty, or an argument is out of range, or
            `on_drop` cannot be called with two arguments.

    Example:
        >>> from reactivex import from_iterable
        >>> from k2eg_rx.operators import AlignCounts, align
        >>> from k2eg_rx.testing import START, update
        >>> updates = [update("bpm:1", 0.1, timestamp=START + 1000), update("bpm:1", 0.2, timestamp=START + 9000),
        ...            update("bpm:2", 0.5, timestamp=START + 1004), update("bpm:2", 0.6, timestamp=START + 9004)]
        >>> counts = AlignCounts()
        >>> orbit = from_iterable(updates).pipe(align(["bpm:1", "bpm:2"], tolerance=10e-9, counts=counts))
        >>> _ = orbit.subscribe(lambda instant: print(instant.timestamp - START, instant.values()))
        1000 {'bpm:1': 0.1, 'bpm:2': 0.5}
        9000 {'bpm:1': 0.2, 'bpm:2': 0.6}
        >>> counts.used, counts.dropped.total()
        (4, 0)
    """
    names = pv_names(pvs, least=1)
    key = callback(on, "on", "the update") if callable(on) else None
    if key is None:
        one_of(on, "on", ("timestamp", "pulse_id"))
    mask = None if pulse_id_mask is None else check_pulse_id_mask(pulse_id_mask)
    one_of(incomplete, "incomplete", ("drop", "partial"))
    most = min(max(_PER_PV * len(names), _CAPACITIES[0]), _CAPACITIES[1])
    capacity = max(most, len(names)) if capacity is None else whole(capacity, "capacity", 1)
    if capacity < len(names):
        raise ValueError(f"capacity must be at least the number of PVs, {len(names)}, got {capacity}")
    if counts is not None:
        instance(counts, "counts", AlignCounts, "AlignCounts")
    if on_drop is not None:
        callback(on_drop, "on_drop", "the update", "the reason")
    check_scheduler(scheduler)
    options = JoinOptions(
        names,
        _max_ages({} if hold is None else hold, names),
        None if tolerance is None else round(non_negative(tolerance, "tolerance", LONGEST_DURATION) * NANOSECONDS),
        round(non_negative(grace, "grace", LONGEST_DURATION) * NANOSECONDS),
        incomplete == "partial",
        capacity,
        mask if on == "pulse_id" else 0,
        key,
    )

    def operator(source: Observable[PVUpdate | ConnectionEvent]) -> Observable[Aligned]:
        if overflow_of(source) is Overflow.LATEST and len(names) - len(options.hold) > 1:
            _log.warning(
                "align will lose most instants, its source keeps the newest update of each PV only; use"
                " overflow='block': stream=%s",
                label_of(source),
            )

        def subscribe(
            observer: abc.ObserverBase[Aligned], subscribed: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            idle = IdleTime(clock_of(scheduler, subscribed), options.grace // _WAITS)
            joiner = Joiner(options, AlignCounts() if counts is None else counts, idle, on_drop)
            return collected(source, lambda: joiner).subscribe(observer, scheduler=subscribed)

        return Observable(subscribe)

    return operator
