"""`stale`: which PVs have fallen silent, and which came back.

In: updates, and the time. Out: `Staleness`, on the thread of the scheduler when a PV falls silent, on that of the
source when it returns. Per PV its last update and when it came; that belongs to the lock of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reactivex import Observable, abc

from k2eg_rx.arguments import positive
from k2eg_rx.operators.stage import RESOLUTION, Stage, staged
from k2eg_rx.protocol import PVData
from k2eg_rx.pv import pv_name_of


@dataclass(frozen=True, slots=True)
class Staleness:
    """A PV fell silent, or came back.

    Attributes:
        name: The PV.
        is_stale: True if it fell silent, False if it came back.
        silence: For how many seconds nothing came of it, until now.
        update: The last update of it: the one before the silence, or the one that ended it; None if there was none.
    """

    name: str
    is_stale: bool
    silence: float
    update: PVData | None


@dataclass(slots=True)
class _Watched:
    heard: float  # when its last update came, or the watch began
    update: PVData | None = None


class _Watch(Stage[PVData, Staleness]):
    """Two tables, each with the PV that has been silent longest in front: one timer is enough for all."""

    def __init__(
        self, observer: abc.ObserverBase[Staleness], scheduler: abc.SchedulerBase, after: float, names: Iterable[str]
    ) -> None:
        super().__init__(observer, scheduler)
        self._after = after
        self._names = names
        self._fresh: dict[str, _Watched] = {}
        self._stale: dict[str, _Watched] = {}
        self._waiting = False

    def start(self) -> None:
        now = self.now()
        self._fresh = {name: _Watched(now) for name in self._names}
        self._wait(now)

    def take(self, item: PVData) -> None:
        now = self.now()
        name = item.name
        silent = self._stale.pop(name, None)
        watched = silent or self._fresh.pop(name, None) or _Watched(now)
        silence = now - watched.heard
        watched.heard, watched.update = now, item
        self._fresh[name] = watched  # to the end: nobody was heard later
        if not self._waiting:
            self._wait(now)
        if silent is not None:
            self.emit(Staleness(name, False, silence, item))

    def _wait(self, now: float) -> None:
        for watched in self._fresh.values():
            self._waiting = True
            self.tick_in(watched.heard + self._after - now)
            return

    def tick(self) -> None:
        self._waiting = False
        now = self.now()
        found: list[Staleness] = []
        for name, watched in self._fresh.items():
            if watched.heard + self._after > now + RESOLUTION:
                break
            self._stale[name] = watched
            found.append(Staleness(name, True, now - watched.heard, watched.update))
        for staleness in found:
            del self._fresh[staleness.name]
        self._wait(now)
        for staleness in found:
            self.emit(staleness)


def stale(
    after: float, *, pvs: Iterable[str] = (), scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[PVData]], Observable[Staleness]]:
    """Returns an operator that emits when a PV has been silent for `after` seconds, and again when it returns.

    What counts is when updates arrive here, not their time stamps. A PV is watched from its first update on; those
    named in `pvs` from the subscription on, so that one that never says anything is told too.

    A PV that does not change is silent, and may be well: choose `after` for the PV. A client asks again for PVs that
    were silent for `Client(silence=...)` seconds, which makes a healthy one send its value once more.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import stale
        >>> from k2eg_rx.testing import update
        >>> from reactivex.subject import Subject
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time: it passes when it is told to
        >>> updates = Subject()
        >>> def show(pv):
        ...     print(float(clock.clock), pv.name, "is silent" if pv.is_stale else "is back", "after", pv.silence)
        >>> watch = updates.pipe(stale(5.0, pvs=["pva://demo:lost"])).subscribe(show, scheduler=clock)
        >>> clock.advance_to(3.0)
        >>> updates.on_next(update("demo:beat", 1))
        >>> clock.advance_to(10.0)
        5.0 demo:lost is silent after 5.0
        8.0 demo:beat is silent after 5.0
        >>> updates.on_next(update("demo:beat", 2))
        10.0 demo:beat is back after 7.0

    Args:
        after: Seconds.
        pvs: PVs to watch from the beginning, by name or URI; others are watched as well once they are heard.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: `after` is not above 0, or `pvs` is a string.
    """
    seconds = positive(after, "after")
    if isinstance(pvs, str):
        raise ValueError(f"pvs is a list of PVs, not the string {pvs!r}")
    names = tuple(dict.fromkeys(map(pv_name_of, pvs)))

    def operator(source: Observable[PVData]) -> Observable[Staleness]:
        return staged(source, lambda observer, timing: _Watch(observer, timing, seconds, names), scheduler)

    return operator
