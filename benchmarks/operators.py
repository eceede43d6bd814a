"""Processor time of the PV operators for each event, compared with the nearest operator of reactivex.

    python benchmarks/operators.py [--rounds 5] [--json FILE]

No broker is needed. Decoded updates of full NTScalars (about 550 bytes as messages) of 20 PVs pass through one operator
at a time at full speed. The processor time of the process is divided by their number, so it includes timers but not
decoding, which has a row of its own. The operator of reactivex does less: it has no severities, PV names or event time.
The two take turns in running first.

`align` runs with 20 PVs at 120 Hz and with 1000 PVs at 10 Hz, with PVs up to 50 ms behind each other. Its figures are
the processor time at that rate as a share of one core, and the peak memory (tracemalloc) including waiting updates,
with all PVs and with one silent PV, for which all others wait for the grace of 1 s.

`resample` puts 175 PVs at 120 Hz onto a grid of 120 Hz, from updates and from timed-buffered snapshots of a second.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx import PVUpdate, Snapshot
from k2eg_rx import operators as pv_ops
from k2eg_rx.concurrency import TimerScheduler
from k2eg_rx.protocol import Samples
from k2eg_rx.testing import START, update
from measuring import LEAST_ROUNDS, Row, at_most, machine, table

_PVS = 20
_HZ = 120
_SECONDS = 3  # length of the stream: 7,200 events, about 30 ms of processor time for an operator
_BEHIND = 0.050  # seconds between updates of one instant: some batches of Kafka
_GRACE = 1.0

Operator = Callable[[Observable[Any]], Observable[Any]]


@dataclass(frozen=True, slots=True)
class Load:
    """PVs that update at the same rate."""

    pvs: int
    hz: int
    seconds: float

    @property
    def names(self) -> list[str]:
        """Names of the PVs."""
        return [f"ring:bpm:{number:04}:x" for number in range(self.pvs)]

    @property
    def rate(self) -> int:
        """Events per second."""
        return self.pvs * self.hz

    def arrivals(self) -> list[tuple[str, int]]:
        """Returns PV and instant number of each event, in order of arrival."""
        chance = random.Random(4)
        period = 1 / self.hz
        arrivals: list[tuple[float, str, int]] = []
        for name in self.names:
            arrival = 0.0
            for number in range(round(self.seconds * self.hz)):
                arrival = max(arrival, number * period + chance.uniform(0, _BEHIND))
                arrivals.append((arrival, name, number))
        return [(name, number) for _, name, number in sorted(arrivals)]

    def event(self, name: str, number: int) -> PVUpdate:
        """Returns an event that is not decoded."""
        return update(name, math.sin(number), timestamp=START + number * 1_000_000_000 // self.hz, units="mm")

    def events(self) -> list[PVUpdate]:
        """Returns all events, decoded, in order of arrival."""
        events = [self.event(name, number) for name, number in self.arrivals()]
        for event in events:
            event.load()
        return events


class _Bench:
    """A client that confirms puts at once."""

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[object]:
        return rx.of((uri, value, timeout))


def _newest(known: dict[str, Any], event: PVUpdate) -> dict[str, Any]:
    return {**known, event.name: event}


def _newest_values(known: dict[str, Any], event: PVUpdate) -> dict[str, Any]:
    return {**known, event.name: event.value}


def _zipped(names: Sequence[str]) -> Operator:
    """Joins the n-th updates of all PVs; a lost update shifts all later ones."""

    def operator(source: Observable[PVUpdate]) -> Observable[Any]:
        def updates_of(name: str) -> Observable[PVUpdate]:
            return source.pipe(ops.filter(lambda event: event.name == name))

        return rx.zip(*map(updates_of, names))

    return operator


def _grouped(operator: Operator) -> Operator:
    merged: Operator = ops.flat_map(lambda group: group.pipe(operator))
    return lambda source: source.pipe(ops.group_by(lambda event: event.name), merged)


def _pairs(load: Load, timers: abc.SchedulerBase) -> Iterator[tuple[str, Operator, Operator, str]]:
    """Yields name and operator, and the nearest operator of reactivex with its name."""
    yield "value()", pv_ops.value(), ops.map(lambda event: event.value), "map"
    severity = pv_ops.field("alarm.severity")
    yield 'field("alarm.severity")', severity, ops.map(lambda event: event.data["alarm"]["severity"]), "map"
    yield "timestamps()", pv_ops.timestamps(), ops.map(lambda event: event.timestamp), "map"
    plain: Operator = ops.distinct_until_changed(lambda event: (event.name, event.value))
    yield "changed()", pv_ops.changed(), plain, "distinct_until_changed"
    plain = ops.distinct_until_changed(lambda event: event.severity)
    yield "alarms()", pv_ops.alarms(), plain, "distinct_until_changed"
    yield "stale(5)", pv_ops.stale(5.0), ops.debounce(5.0, timers), "debounce, of all PVs as one"
    yield "latest_by_pv()", pv_ops.latest_by_pv(), ops.scan(_newest, {}), "scan"
    yield "combine_pvs(...)", pv_ops.combine_pvs(load.names), ops.scan(_newest_values, {}), "scan"
    yield "align(...)", pv_ops.align(load.names, grace=_GRACE), _zipped(load.names), "zip of filters, by counting"
    plain = _grouped(ops.buffer_with_time(1.0, scheduler=timers))
    yield "window_statistics(1.0)", pv_ops.window_statistics(1.0), plain, "group_by, buffer_with_time: by arrival"
    plain = _grouped(ops.buffer_with_count(_HZ))
    yield f"window_statistics(count={_HZ})", pv_ops.window_statistics(count=_HZ), plain, "group_by, buffer_with_count"
    yield "conflate(10)", pv_ops.conflate(10.0), ops.sample(0.1, timers), "sample, of all PVs as one"
    yield "sample_latest(10)", pv_ops.sample_latest(10.0), ops.throttle_first(0.1, timers), "throttle_first"
    yield (
        "rate_limit(10)",
        pv_ops.rate_limit(10.0, capacity=100_000),
        ops.delay(60.0, timers),
        "delay, which queues as well",
    )
    writing = pv_ops.put_to(_Bench(), "pva://ring:corrector", limits=(-1.0, 1.0))
    plain = rx.compose(ops.throttle_first(0.1, timers), ops.map(lambda number: max(-1.0, min(1.0, number))))
    mapped: Operator = ops.map(lambda event: event.value)
    yield (
        "value(), put_to(...)",
        rx.compose(pv_ops.value(), writing),
        rx.compose(mapped, plain),
        "map, throttle_first, map",
    )
    yield "retry_activation()", pv_ops.retry_activation(), ops.retry(), "retry"


def per_event(operator: Operator, events: Sequence[Any]) -> float:
    """Returns the processor time for each event in microseconds."""
    source: Subject[PVUpdate] = Subject()
    subscription = source.pipe(operator).subscribe(lambda _: None)
    gc.collect()
    start = time.process_time()
    for event in events:
        source.on_next(event)
    spent = time.process_time() - start
    subscription.dispose()
    return spent / len(events) * 1e6


def _measured(
    operator: Operator, plain: Operator, events: Sequence[PVUpdate], plain_events: Sequence[PVUpdate], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the figures of both operators for each round."""
    ours: list[float] = []
    plains: list[float] = []
    for ours_first in islice(cycle((True, False)), rounds):
        if ours_first:
            ours.append(per_event(operator, events))
        plains.append(per_event(plain, plain_events))
        if not ours_first:
            ours.append(per_event(operator, events))
    return tuple(ours), tuple(plains)


def costs(rounds: int) -> list[Row]:
    """Measures each operator."""
    load = Load(_PVS, _HZ, _SECONDS)
    events = load.events()
    timers = TimerScheduler()
    rows: list[Row] = []
    for name, operator, plain, against in _pairs(load, timers):
        ours, plains = _measured(operator, plain, events, events, rounds)
        rows.append(Row(name, "us/event", ours, plains, against))
    timers.dispose()
    decoding = [_decoding(events) for _ in range(rounds)]
    rows.append(Row("for comparison: decoding an update", "us/event", tuple(decoding)))
    return rows


def _decoding(events: Sequence[PVUpdate]) -> float:
    """Returns the processor time of decoding an event in microseconds."""
    anew = [PVUpdate(event.address, event.record) for event in events]
    gc.collect()
    start = time.process_time()
    for event in anew:
        event.load()
    return (time.process_time() - start) / len(anew) * 1e6


def _memory(load: Load, *, one_is_silent: bool) -> float:
    """Returns the peak memory of align in MB, including waiting updates."""
    arrivals = load.arrivals()
    source: Subject[PVUpdate] = Subject()
    subscription = source.pipe(pv_ops.align(load.names, grace=_GRACE)).subscribe(lambda _: None)
    silent = load.names[0] if one_is_silent else ""
    gc.collect()
    tracemalloc.start()
    for name, number in arrivals:
        if name != silent:
            event = load.event(name, number)
            event.load()
            source.on_next(event)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    subscription.dispose()
    return peak / 1e6


def alignment(rounds: int) -> list[Row]:
    """Measures align under load."""
    rows: list[Row] = []
    for load, target in ((Load(20, 120, 3.0), at_most(3)), (Load(1000, 10, 1.5), at_most(10))):
        what = f"align, {load.pvs} PVs at {load.hz} Hz"
        events = load.events()
        few = events[: 2 * load.pvs]  # zip of filters runs every PV's filter for each event
        ours, plains = _measured(pv_ops.align(load.names, grace=_GRACE), _zipped(load.names), events, few, rounds)
        share = load.rate / 1e6 * 100
        rows.append(Row(f"{what}, cost", "us/event", ours, plains, "zip of filters, by counting"))
        rows.append(Row(f"{what}, share", "% of a core", tuple(cost * share for cost in ours), target=target))
        short = Load(load.pvs, load.hz, 1.2)  # longer than the grace
        for silent, which in ((False, ""), (True, " (one PV silent)")):
            rows.append(Row(f"{what}, memory{which}", "MB", (_memory(short, one_is_silent=silent),)))
    return rows


def _windows(events: Sequence[PVUpdate], names: Sequence[str], size: int) -> list[Snapshot]:
    """Returns events as timed-buffered snapshots of `size` events each."""
    windows: list[Snapshot] = []
    for start in range(0, len(events), size):
        data = {name: Samples() for name in names}
        for event in events[start : start + size]:
            data[event.name].append(event.data)
        windows.append(Snapshot("benchmark", data))
    return windows


def resampling(rounds: int) -> list[Row]:
    """Measures resample under load."""
    load = Load(175, 120, 2.0)
    events = load.events()
    windows = _windows(events, load.names, load.rate)
    operator = pv_ops.resample(load.hz, pvs=load.names)
    share = load.rate / 1e6 * 100
    rows: list[Row] = []
    for source, items in (("updates", events), ("snapshots", windows)):
        costs_of = [per_event(operator, items) * len(items) / len(events) for _ in range(rounds)]
        what = f"resample, {load.pvs} PVs at {load.hz} Hz, {source}"
        rows.append(Row(f"{what}, cost", "us/sample", tuple(costs_of)))
        rows.append(Row(f"{what}, share", "% of a core", tuple(cost * share for cost in costs_of), target=at_most(20)))
    return rows


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="of each measurement (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the raw figures")
    options = parser.parse_args()
    described = machine()
    print(json.dumps(described, indent=1))
    raw: dict[str, Any] = {}
    for title, benchmark in {
        "cost of an operator": costs,
        "align under load": alignment,
        "resample under load": resampling,
    }.items():
        rows = benchmark(options.rounds)
        print("\n" + table(title, rows), flush=True)
        raw[title] = [row.raw() for row in rows]
    if options.json:
        options.json.write_text(json.dumps({"machine": described, "rounds": options.rounds, "figures": raw}, indent=1))


if __name__ == "__main__":
    main()
