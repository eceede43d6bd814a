"""Detects PVs without updates: `stale`.

Thread safety: the lock of the stage protects all state. A PV that falls silent is emitted on a thread of the scheduler,
one that returns on the source's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reactivex import Observable, abc

from k2eg_rx.arguments import positive, pv_names
from k2eg_rx.operators.stage import RESOLUTION, Stage, staged
from k2eg_rx.protocol import ConnectionEvent, PVData


@dataclass(frozen=True, slots=True)
class Staleness:
    """A PV fell silent or returned.

    Attributes:
        name: Name of the PV.
        is_stale: True if it fell silent, False if it returned.
        silence: Seconds without an update.
        update: Last update, before the silence or at its end; None if there was none.
        connection: The event of the PV's connection that made it stale or returned it; None if it was an update or the
            lack of updates.
    """

    name: str
    is_stale: bool
    silence: float
    update: PVData | None
    connection: ConnectionEvent | None = None


@dataclass(slots=True)
class _Watched:
    arrived: float  # arrival of the last update, or start of the watch, in seconds
    update: PVData | None = None


class _Watch(Stage[PVData | ConnectionEvent, Staleness]):
    """Fresh and stale PVs, each in order of arrival: one timer, for the first fresh PV, is enough."""

    def __init__(
        self, observer: abc.ObserverBase[Staleness], scheduler: abc.SchedulerBase, after: float, names: Iterable[str]
    ) -> None:
        super().__init__(observer, scheduler)
        self._after = after
        self._names = names
        self._fresh: dict[str, _Watched] = {}
        self._stale: dict[str, _Watched] = {}
        self._is_timed = False

    def start(self) -> None:
        now = self.now()
        self._fresh = {name: _Watched(now) for name in self._names}
        self._start_timer(now)

    def take(self, item: PVData | ConnectionEvent) -> None:
        if isinstance(item, ConnectionEvent):
            if item.is_connected:
                self._heard(item.name, None, item)
            else:
                self._lost(item)
        else:
            self._heard(item.name, item)

    def _heard(self, name: str, update: PVData | None, connection: ConnectionEvent | None = None) -> None:
        """Takes an update; or a connection, after which a value that has not changed is not repeated."""
        now = self.now()
        returned = self._stale.pop(name, None)
        watched = returned or self._fresh.pop(name, None) or _Watched(now)
        silence = now - watched.arrived
        watched.arrived, watched.update = now, update or watched.update
        self._fresh[name] = watched  # last: no PV has a later arrival
        if not self._is_timed:
            self._start_timer(now)
        if returned is not None:
            self.emit(Staleness(name, False, silence, watched.update, connection))

    def _lost(self, connection: ConnectionEvent) -> None:
        name, now = connection.name, self.now()
        if name not in self._stale:
            watched = self._stale[name] = self._fresh.pop(name, None) or _Watched(now)
            self.emit(Staleness(name, True, now - watched.arrived, watched.update, connection))

    def _start_timer(self, now: float) -> None:
        for watched in self._fresh.values():
            self._is_timed = True
            self.tick_in(watched.arrived + self._after - now)
            return

    def tick(self) -> None:
        self._is_timed = False
        now = self.now()
        silent: list[Staleness] = []
        for name, watched in self._fresh.items():
            if watched.arrived + self._after > now + RESOLUTION:
                break
            self._stale[name] = watched
            silent.append(Staleness(name, True, now - watched.arrived, watched.update))
        for staleness in silent:
            del self._fresh[staleness.name]
        self._start_timer(now)
        for staleness in silent:
            self.emit(staleness)


def stale(
    after: float, *, pvs: Iterable[str] = (), scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[PVData | ConnectionEvent]], Observable[Staleness]]:
    """Emits a `Staleness` when a PV has had no update for `after` seconds, and when it returns.

    The arrival of updates counts, not their timestamps. A PV is watched from its first update on; PVs in `pvs` from the
    subscription on, so that a PV without any update is detected too.

    In a stream with connections (``monitor_stream(..., connection=True)``), a PV that is not connected is stale at
    once, and returns when it is connected.

    A PV whose value does not change sends no updates either: choose `after` for the PV. A client activates a monitor
    again after `Client(silence=...)` seconds without updates, and a working PV then repeats its value.

    Args:
        after: Seconds without an update.
        pvs: PVs to watch from the subscription on, by name or URI.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        `Staleness`: one when a PV falls silent, one when it returns.

    Raises:
        ValueError: `after` is not above 0, or `pvs` is a string.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import stale
        >>> from k2eg_rx.testing import update
        >>> from reactivex.subject import Subject
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time
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
    """
    seconds = positive(after, "after")
    names = pv_names(pvs)

    def operator(source: Observable[PVData | ConnectionEvent]) -> Observable[Staleness]:
        return staged(source, lambda observer, timing: _Watch(observer, timing, seconds, names), scheduler)

    return operator
