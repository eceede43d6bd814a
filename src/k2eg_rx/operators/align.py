"""`align`: the updates of several PVs that belong to the same instant, as one value.

In: one stream of several PVs' updates. Out: `Aligned`, on the thread that brings the update that decides it. All state
is that subscription's, and belongs to whoever calls it, one at a time; there is no clock and no timer in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from reactivex import Observable, abc

from k2eg_rx.arguments import non_negative
from k2eg_rx.operators.align_join import Aligned, Joiner, Plan
from k2eg_rx.operators.drops import AlignCounts, OnDrop
from k2eg_rx.protocol import NANOSECONDS, PVUpdate
from k2eg_rx.pv import pv_name_of

PULSE_ID_MASK = 0x1FFFF  # LCLS keeps the pulse id in the low 17 bits of a time stamp's nanoseconds

_MOST_WAITING = 20_000  # 1000 PVs at 10 Hz for 2 s; some 100 MB of decoded scalars, reached only if a PV gives nothing


def _ages(hold: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    ages = {pv_name_of(pv): age for pv, age in hold.items()}
    known = set(names)
    for name, age in ages.items():
        if name not in known:
            raise ValueError(f"hold names {name!r}, which is not among the PVs to be joined")
        if not age > 0:
            raise ValueError(f"hold of {name!r} is how many seconds old a value may be, above 0, not {age!r}")
    if not known - ages.keys():
        raise ValueError("hold names every PV; at least one has to give the instants")
    return {name: age * NANOSECONDS for name, age in ages.items()}


def _checked_mask(mask: int) -> int:
    low = mask & -mask
    if mask <= 0 or mask >> 30 or (mask + low) & mask or mask == low:  # nanoseconds are below 2**30
        raise ValueError(f"pulse_id_mask has two or more adjacent bits of the 30 of the nanoseconds, not {mask:#x}")
    return mask


def align(
    pvs: Iterable[str],
    *,
    tolerance: float | None = None,
    on: Literal["timestamp", "pulse_id"] = "timestamp",
    grace: float = 1.0,
    incomplete: Literal["drop", "partial"] = "drop",
    hold: Mapping[str, float] | None = None,
    capacity: int = _MOST_WAITING,
    pulse_id_mask: int = PULSE_ID_MASK,
    counts: AlignCounts | None = None,
    on_drop: OnDrop | None = None,
) -> Callable[[Observable[PVUpdate]], Observable[Aligned]]:
    """Joins the updates of several PVs that belong to the same instant; emits an `Aligned` for each, oldest first.

    Updates of different PVs may come in any order: what is complete does not depend on it as long as none is further
    behind the newest EPICS time than `grace`. Each update is part of one instant at most, the earliest that it fits
    into; with a `tolerance` of half a PV's period or more that may be its neighbour's.

    A slow PV among fast ones: an instant needs all PVs, so that a PV at 1 Hz among others at 120 Hz gives one instant
    a second, and the other 119 updates of each are dropped. Name it in `hold` if its last known value will do: then
    it is not waited for, and an instant gets the newest value that had come by then and is not newer than the instant.
    So a held value may depend on what arrived first. A setpoint that never changes needs ``math.inf``.

    By pulse id, ids are compared for equality, wherever the ids wrap, among updates of the recent past: `grace` has to
    be well below half the time in which ids recur (LCLS, 17 bits at 360 Hz: 364 s).

    It has no clock: while no update comes at all, nothing is given up, and what waits is bounded by `capacity`.

    Args:
        pvs: The PVs by name or URI. Updates of others are dropped.
        tolerance: Seconds that the EPICS times of one instant may lie apart; by default they have to be equal. By
            pulse id, a further condition on those of the same id; by default there is none.
        on: What tells that updates belong together: their EPICS time, or the pulse id in it.
        grace: Seconds of EPICS time that an instant waits, behind the newest update, for PVs that lack.
        incomplete: What happens to an instant that lacks a PV: its updates are dropped, or it is emitted, once no
            missing update can come in time. Then it has what lies within `tolerance` of its oldest update.
        hold: Seconds that a PV's last known value may be old, by the name or URI of those that count so.
        capacity: How many updates may wait. Beyond it the oldest is given up before its grace is over. Of each held
            PV up to 1024 more.
        pulse_id_mask: Where the pulse id is in the nanoseconds. All bits set is an invalid id, and never joined.
        counts: Filled with what became of each update, for the caller to read.
        on_drop: Called with each update that becomes part of no instant, and why. If it raises, the stream ends with
            that error.

    Raises:
        ValueError: No PVs are named, or an argument is outside its range.

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
    if isinstance(pvs, str):
        raise ValueError(f"pvs is a list of PVs, not the one string {pvs!r}")
    names = tuple(dict.fromkeys(pv_name_of(pv) for pv in pvs))
    if not names:
        raise ValueError("align needs the names of the PVs to be joined")
    if on not in ("timestamp", "pulse_id"):
        raise ValueError(f"on is 'timestamp' or 'pulse_id', not {on!r}")
    if incomplete not in ("drop", "partial"):
        raise ValueError(f"incomplete is 'drop' or 'partial', not {incomplete!r}")
    if capacity < len(names):
        raise ValueError(f"capacity has to be at least the number of PVs, {len(names)}, not {capacity}")
    plan = Plan(
        names,
        _ages(hold or {}, names),
        None if tolerance is None else round(non_negative(tolerance, "tolerance") * NANOSECONDS),
        round(non_negative(grace, "grace") * NANOSECONDS),
        incomplete == "partial",
        capacity,
        _checked_mask(pulse_id_mask) if on == "pulse_id" else 0,
    )

    def joined(source: Observable[PVUpdate]) -> Observable[Aligned]:
        def subscribe(
            observer: abc.ObserverBase[Aligned], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            joiner = Joiner(plan, AlignCounts() if counts is None else counts, on_drop)

            def on_next(update: PVUpdate) -> None:
                try:
                    instants = joiner.feed(update)
                except Exception as error:
                    observer.on_error(error)
                    return
                for instant in instants:
                    observer.on_next(instant)

            def on_end(error: Exception | None = None) -> None:
                try:
                    instants = joiner.finish() if error is None else joiner.abandon()
                except Exception as raised:
                    observer.on_error(raised)
                    return
                for instant in instants:
                    observer.on_next(instant)
                if error is None:
                    observer.on_completed()
                else:
                    observer.on_error(error)

            return source.subscribe(on_next, on_end, on_end, scheduler=scheduler)

        return Observable(subscribe)

    return joined
