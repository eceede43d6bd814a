"""Moves set points through values and takes measurements at each: `scan`.

Thread safety: the steps of a scan follow each other, on the threads of the client and of the scheduler. The records in
use belong to a lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.arguments import at_least_one, flag, instance, items_of, mapping, non_negative, timeout_of
from k2eg_rx.client import PutResult
from k2eg_rx.concurrency import scheduler_or
from k2eg_rx.errors import K2EGError
from k2eg_rx.operators import fresh, guarded, settled
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.pv import PVAddress
from k2eg_rx.scans.clients import ScanClient
from k2eg_rx.scans.points import Readback, ScanPoint, checked_points, record_of
from k2eg_rx.scans.progress import with_progress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

DEFAULT_TIMEOUT = 30.0  # seconds for the puts, and for the shots, of a point

Through = Callable[[Observable[PVUpdate]], Observable[Any]]

_lock = threading.Lock()
_in_use: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()  # the records that scans move, by client


class ScanError(K2EGError):
    """A scan stopped. The text says at which point, and why; nothing further is written.

    Attributes:
        index: The number of the point, from 0.
        setpoints: The values of that point, by URI.
    """

    def __init__(self, index: int, setpoints: Mapping[str, float], reason: str) -> None:
        super().__init__(index, setpoints, reason)
        self.index = index
        self.setpoints = setpoints
        self.reason = reason

    def __str__(self) -> str:
        at = ", ".join(f"{uri}={value:g}" for uri, value in self.setpoints.items())
        return f"the scan stopped at point {self.index}, {at}: {self.reason}"


class _Pairing:
    """Makes a shot of the first update of each PV, another one of the second, and so on."""

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting: dict[str, deque[PVUpdate]] = {name: deque() for name in names}

    def shots(self, update: PVUpdate) -> list[dict[str, PVUpdate]]:
        """Returns the shot that an update completes, if it does."""
        self._waiting[update.name].append(update)
        if not all(self._waiting.values()):
            return []
        return [{name: updates.popleft() for name, updates in self._waiting.items()}]


def _paired(names: Iterable[str]) -> Through:
    def operator(source: Observable[PVUpdate]) -> Observable[Any]:
        pairing = _Pairing(names)
        return source.pipe(ops.map(pairing.shots), ops.filter(bool), ops.map(lambda shots: shots[0]))

    return operator


class _Scan:
    """A scan that can be subscribed to."""

    def __init__(
        self,
        client: ScanClient,
        points: list[dict[str, float]],
        *,
        pause: float,
        readbacks: Mapping[str, Readback],
        acquire: list[str],
        shots: int,
        through: Through | None,
        timeout: float,
        wait: bool,
    ) -> None:
        self._client = client
        self._points = points
        self._pause = pause
        self._readbacks = readbacks
        self._acquire = acquire
        self._shots = shots
        self._names = list(dict.fromkeys(PVAddress.parse(uri).name for uri in acquire))
        self._through = through
        self._timeout = timeout
        self._wait = wait
        self._watched = list(dict.fromkeys([*(readback.uri for readback in readbacks.values()), *acquire]))

    def subscribe(
        self, observer: abc.ObserverBase[ScanPoint], subscribed: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Starts the scan, unless another one moves the same PVs."""
        records = {record_of(uri) for uri in self._points[0]}
        with _lock:
            used = _in_use.setdefault(self._client, set())
            shared = used & records
            if not shared:
                used |= records
        if shared:
            return rx.throw(
                ScanError(0, self._points[0], f"another scan of this client moves {', '.join(sorted(shared))}")
            ).subscribe(observer, scheduler=subscribed)
        scheduler = scheduler_or(None, subscribed)
        held = CompositeDisposable(Disposable(lambda: self._release(records)))
        if self._watched:  # keeps the monitors, so that each point finds them running
            held.add(
                self._client.monitor_many_stream(self._watched).subscribe(
                    lambda _: None, lambda _: None, scheduler=subscribed
                )
            )
        ready: Observable[Any] = rx.of(None)
        if self._watched:
            ready = self._client.values_ready_stream(self._watched, self._timeout)
        points = ready.pipe(ops.flat_map(lambda _: rx.concat_with_iterable(self._steps(scheduler))))
        held.add(points.pipe(ops.finally_action(held.dispose)).subscribe(observer, scheduler=subscribed))
        return held

    def _release(self, records: set[str]) -> None:
        with _lock:
            _in_use.get(self._client, set[str]()).difference_update(records)

    def _steps(self, scheduler: abc.SchedulerBase) -> Iterator[Observable[ScanPoint]]:
        before: dict[str, float] = {}
        for index, point in enumerate(self._points):
            changed = {uri: value for uri, value in point.items() if uri not in before or before[uri] != value}
            before = point
            yield self._step(index, point, changed, scheduler)

    def _step(
        self, index: int, point: Mapping[str, float], changed: Mapping[str, float], scheduler: abc.SchedulerBase
    ) -> Observable[ScanPoint]:
        def stopped(error: Exception, _: object) -> Observable[Any]:
            failure = error if isinstance(error, ScanError) else ScanError(index, point, str(error))
            failure.__cause__ = None if failure is error else error
            _log.error("%s", failure)
            return rx.throw(failure)

        def measured(readbacks: Mapping[str, PVUpdate]) -> Observable[ScanPoint]:
            total = len(self._points)
            return self._measure(readbacks, scheduler).pipe(
                ops.map(lambda shots: ScanPoint(index, total, dict(point), readbacks, tuple(shots)))
            )

        def moved(_: object) -> Observable[Mapping[str, PVUpdate]]:
            return self._settled(changed, scheduler)

        return self._move(changed).pipe(ops.flat_map(moved), ops.flat_map(measured), ops.catch(stopped))

    def _move(self, changed: Mapping[str, float]) -> Observable[object]:
        """Writes the set points that differ from the last point, once."""
        if not changed:
            return rx.of(None)

        def check(results: list[PutResult]) -> None:
            failed = [f"{result.uri}: {result.error}" for result in results if result.error is not None]
            if failed or len(results) < len(changed):
                raise K2EGError("; ".join(failed) or "puts without a result")

        puts = self._client.put_many_stream(changed, self._timeout, wait=self._wait)
        return puts.pipe(ops.to_list(), ops.map(check))

    def _settled(
        self, changed: Mapping[str, float], scheduler: abc.SchedulerBase
    ) -> Observable[Mapping[str, PVUpdate]]:
        waits = {
            uri: self._client.monitor_stream(readback.uri, connection=True).pipe(
                settled(changed[uri], readback.tolerance, stays=readback.stays, timeout=readback.timeout)
            )
            for uri, readback in self._readbacks.items()
            if uri in changed
        }
        if not waits:
            return rx.timer(self._pause, scheduler=scheduler).pipe(ops.map(lambda _: dict[str, PVUpdate]()))
        updates = cast("Observable[tuple[PVUpdate, ...]]", rx.fork_join(*waits.values()))
        return updates.pipe(ops.map(lambda newest: dict(zip(waits, newest, strict=True))))

    def _measure(self, readbacks: Mapping[str, PVUpdate], scheduler: abc.SchedulerBase) -> Observable[list[Any]]:
        if not self._acquire:
            return rx.of([])
        ends = [update.timestamp for update in readbacks.values() if update.timestamp is not None]
        after = max(ends) if ends else scheduler.now
        updates = self._client.monitor_many_stream(self._acquire, last=False).pipe(fresh(after=after))
        shots = updates.pipe(self._through or _paired(self._names), ops.take(self._shots), ops.to_list())
        late = K2EGError(
            f"not {self._shots} shots of {', '.join(self._names)} within {self._timeout:g} s after the move: a PV sends"
            " no updates, or its clock is behind"
        )
        return shots.pipe(ops.timeout(self._timeout, rx.throw(late), scheduler=scheduler))


def scan(
    client: ScanClient,
    setpoints: Mapping[str, Iterable[float]] | Iterable[Mapping[str, float]],
    *,
    settle: float | Mapping[str, Readback],
    acquire: Iterable[str] = (),
    shots: int = 1,
    through: Through | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    wait: bool = False,
    progress: bool = False,
) -> Observable[ScanPoint]:
    """Moves set points through values; at each point waits until they have settled, and takes measurements.

    Each value is written once, and only if it differs from that of the point before. Nothing is written before all
    read-backs and measured PVs have a value. The first put that fails, read-back that does not settle, or PV that sends
    no shots ends the scan with a `ScanError`, and so does an exception of the subscriber; nothing further is written.
    After `dispose` nothing is written. The set points stay where they are then: put the scan into a block of
    `restoring`.

    Two scans of one client cannot move the same PV at the same time. Those of other clients and other people can:
    this function does not see them.

    Args:
        client: A `k2eg_rx.Client`.
        setpoints: The values of each set point, by URI. Of several, all combinations are visited, the last one
            fastest. Or the points themselves, in order: mappings with the same PVs.
        settle: When a set point is reached: its `Readback`, by the URI of the set point; those without one are not
            waited for. Or seconds to wait at each point.
        acquire: URIs of the PVs to measure.
        shots: Measurements at each point. None has an EPICS time before the end of the move: that of the newest
            read-back, or without one this machine's present time.
        through: An operator that makes shots of the updates, such as ``align(uris, on="pulse_id")``. By default, the
            first update of each PV is the first shot, the second the second, and so on.
        timeout: Seconds for the puts, and for the shots, of each point.
        wait: Whether to wait until the records have completed what the puts started.
        progress: Whether to show a progress bar on standard error, if that is a terminal and rich is installed.

    Emits:
        `ScanPoint`: one for each point.

    Raises:
        ValueError: An argument is invalid.

    Example:
        >>> import reactivex as rx
        >>> from reactivex import operators as ops
        >>> from k2eg_rx import first
        >>> from k2eg_rx.scans import Readback, restoring, scan
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     size = gateway.pv("beam:size", 0.5)
        ...     actual = gateway.pv("quad:actual", 10.0)
        ...     quad = gateway.pv("quad:current", 10.0, on_put=lambda current: actual.post(current))
        ...     beam = rx.interval(0.1, scheduler=gateway.clock).subscribe(lambda _: size.post(abs(actual.value - 8.0)))
        ...     points = scan(
        ...         client,
        ...         {"pva://quad:current": [6.0, 8.0]},
        ...         settle={"pva://quad:current": Readback("pva://quad:actual", tolerance=0.01)},
        ...         acquire=["pva://beam:size"],
        ...     )
        ...     with restoring(client, ["pva://quad:current"]):
        ...         for point in first(points.pipe(ops.to_list())):
        ...             print(*point.rows())
        ...     print(quad.value)
        {'point': 0, 'pva://quad:current': 6.0, 'shot': 0, 'quad:actual': 6.0, 'beam:size': 2.0}
        {'point': 1, 'pva://quad:current': 8.0, 'shot': 0, 'quad:actual': 8.0, 'beam:size': 0.0}
        10.0
    """
    points = checked_points(setpoints)
    readbacks = _checked_readbacks(settle, points[0]) if isinstance(settle, Mapping) else {}
    pause = 0.0 if isinstance(settle, Mapping) else non_negative(settle, "settle")
    measured = [PVAddress.parse(uri).uri for uri in items_of(acquire, "acquire", "a list of PV URIs")]
    at_least_one(shots, "shots")
    flag(wait, "wait")
    flag(progress, "progress")
    made = _Scan(
        client,
        points,
        pause=pause,
        readbacks=readbacks,
        acquire=measured,
        shots=shots,
        through=through,
        timeout=timeout_of(timeout),
        wait=wait,
    )
    stream = Observable(made.subscribe).pipe(guarded())
    return stream.pipe(with_progress(len(points))) if progress else stream


def _checked_readbacks(settle: Mapping[str, Readback], point: Mapping[str, float]) -> dict[str, Readback]:
    given = mapping(settle, "settle")
    readbacks = {PVAddress.parse(uri).uri: readback for uri, readback in given.items()}
    for uri, readback in readbacks.items():
        instance(readback, f"settle[{uri!r}]", Readback, "a Readback")
        if uri not in point:
            raise ValueError(f"settle must name set points of the scan, {', '.join(point)}, got {uri}")
    return readbacks
