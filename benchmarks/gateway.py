"""Throughput and latency of the gateway: one fast PV, 1,000 slow PVs, and gets.

    python benchmarks/gateway.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

Source, gateway, broker and p4p's client are processes of their own; this one is the K2EG client. "Per core" divides by
the processor time of the gateway's process and so holds on a busy machine. Posts that are missing in the topic were
merged by PVAccess or the gateway; events that the gateway dropped are listed. The order of each PV's values is checked.

The baseline `deployed` is the C++ gateway used by laboratories, measured for this project on two shared cores over the
loopback interface: a PV posted at 1,000, 5,000 and 20,000 Hz gave 894, 1,165 and 2,984 events per second, and 46 gets
per second and core. These figures are of another day; all others are of the same round.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer

from gateway_site import SLOW, SLOW_RATE, TIMEOUT, Arrivals, Site
from k2eg_rx import PVUpdate, first
from measuring import Row, Target, at_least, at_most, run

DEPLOYED = "deployed"
DEPLOYED_EVENTS = {1000: 894.0, 5000: 1165.0, 20_000: 2984.0}  # by posts per second
DEPLOYED_GETS = 46.0  # per second and core

FAST_SECONDS = 2.0
IN_FLIGHT = (1, 10, 100)
GET_SECONDS = 1.5
GETS = 50  # one by one, alternating between gateway and p4p
LATENCY_SECONDS = {10: 4.0, 100: 2.0, 1000: 2.0}  # by updates per second
SLOW_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Flow:
    """The events that passed through the gateway.

    Attributes:
        rate: Events a second.
        per_core: Events a second of the gateway's processor time.
        posted: Posts a second.
        merged: How many posts the topics do not have.
        dropped: How many the gateway says it dropped.
        age: How old an event was when it was read from Kafka, the median in milliseconds.
    """

    rate: float
    per_core: float
    posted: float
    merged: int
    dropped: int
    age: float


def fast(site: Site, consumer: Consumer, rate: int) -> Flow:
    """Measures one PV posted at a rate, from the first post until its last event is read."""
    before = site.gateway.ask("numbers")
    start = time.time_ns()
    first_value = site.post(site.fast, rate, FAST_SECONDS)
    arrivals = Arrivals()
    arrivals.read(consumer, lambda _: site.source.is_done())
    posted = site.posted()
    last = first_value + int(posted["posts"]) - 1
    arrivals.read(consumer, lambda arrivals: arrivals.newest() == last)
    after = site.gateway.ask("numbers")
    values = [value for value in arrivals.values()[site.fast] if value >= first_value]
    return Flow(
        rate=len(values) / ((arrivals.events[-1][0] - start) / 1e9),
        per_core=len(values) / (after["cpu"] - before["cpu"]),
        posted=posted["posts"] / posted["seconds"],
        merged=int(posted["posts"]) - len(values),
        dropped=after["dropped_updates"] - before["dropped_updates"],
        age=arrivals.age(),
    )


def slow(site: Site, consumer: Consumer) -> Flow:
    """Measures the slow PVs for some seconds of their continuous updates."""
    before = site.gateway.ask("numbers")
    end = time.monotonic() + SLOW_SECONDS
    arrivals = Arrivals()
    arrivals.read(consumer, lambda _: time.monotonic() > end)
    after = site.gateway.ask("numbers")
    values = arrivals.values()
    steps = sum(numbers[-1] - numbers[0] for numbers in values.values())
    came = sum(len(numbers) - 1 for numbers in values.values())
    return Flow(
        rate=len(arrivals.events) / SLOW_SECONDS,
        per_core=(after["published"] - before["published"]) / (after["cpu"] - before["cpu"]),
        posted=SLOW * SLOW_RATE,
        merged=steps - came,
        dropped=after["dropped_updates"] - before["dropped_updates"],
        age=arrivals.age(),
    )


class _Gets:
    """Keeps a number of gets in progress until the time is over.

    `_left` belongs to the lock; the rest is set before the first get.
    """

    def __init__(self, site: Site, in_flight: int) -> None:
        self._client = site.client
        self._uris = [f"pva://{name}" for name in site.static]
        self._lock = threading.Lock()
        self._under_way = in_flight
        self._number = 0
        self._failures = 0
        self._done = threading.Event()
        self._end = time.monotonic() + GET_SECONDS

    def run(self, in_flight: int) -> tuple[int, float]:
        """Returns the number of replies and the seconds they took."""
        start = time.monotonic()
        for _ in range(in_flight):
            self._next()
        if not self._done.wait(GET_SECONDS + TIMEOUT) or self._failures:
            raise SystemExit("gets were not answered")
        return self._number, time.monotonic() - start

    def _next(self) -> None:
        with self._lock:
            self._number += 1
            uri = self._uris[self._number % len(self._uris)]
        self._client.get_stream(uri).subscribe(on_error=self._failed, on_completed=self._ended)

    def _failed(self, _error: Exception) -> None:
        with self._lock:
            self._failures += 1
        self._ended()

    def _ended(self) -> None:
        if time.monotonic() < self._end and not self._failures:
            self._next()
            return
        with self._lock:
            self._under_way -= 1
            last = self._under_way == 0
        if last:
            self._done.set()


def gets(site: Site, in_flight: int) -> tuple[float, float]:
    """Measures concurrent gets; returns gets per second, and per second of the gateway's processor time."""
    before = site.gateway.ask("numbers")
    count, seconds = _Gets(site, in_flight).run(in_flight)
    after = site.gateway.ask("numbers")
    return count / seconds, count / (after["cpu"] - before["cpu"])


def one_get(site: Site) -> tuple[float, float]:
    """Measures gets one by one; returns the medians in milliseconds, of the gateway and of p4p."""
    pv = site.static[0]
    ours: list[float] = []
    for _ in range(GETS):
        start = time.perf_counter()
        first(site.client.get_stream(f"pva://{pv}"))
        ours.append((time.perf_counter() - start) * 1e3)
    return statistics.median(ours), statistics.median(site.peer.ask("gets", pv=pv, count=GETS))


class _Handler:
    """A subscriber that records the latency of updates since the source's timestamp.

    `latencies` belongs to the thread on which it is called; the benchmark's looks at it when `seen` has the last value.
    """

    def __init__(self) -> None:
        self.first = 0
        self.latencies: list[float] = []
        self.seen = -1

    def __call__(self, update: PVUpdate) -> None:
        now = time.time_ns()
        value, stamp = int(update.value), update.timestamp
        if value >= self.first and stamp is not None:
            self.latencies.append((now - stamp) / 1e6)
        self.seen = value


def _percentile(figures: Sequence[float], percent: int) -> float:
    return statistics.quantiles(figures, n=100)[percent - 1]


def latency(site: Site, handler: _Handler, rate: int) -> tuple[list[float], list[float]]:
    """Measures the latency of updates; returns median and p99 in milliseconds, of the gateway and of p4p."""
    site.peer.ask("begin", pv=site.timed)
    handler.latencies = []
    handler.first = site.post(site.timed, rate, LATENCY_SECONDS[rate])
    posted = site.posted()
    deadline = time.monotonic() + TIMEOUT
    while handler.seen != handler.first + posted["posts"] - 1:
        if time.monotonic() > deadline:
            raise SystemExit("the last update has not come")
        time.sleep(0.01)
    theirs = site.peer.ask("end")[1:]  # the first is the initial value
    ours, theirs = ([_percentile(figures, percent) for percent in (50, 99)] for figures in (handler.latencies, theirs))
    return ours, theirs


class _Rows:
    """Collects figures into rows, a round at a time; rows are in the order of their first figures."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        unit: str,
        ours: float,
        *,
        baseline: float | None = None,
        against: str = "",
        target: Target | None = None,
        flow: Flow | None = None,
    ) -> None:
        row = self._rows.setdefault(
            name, {"unit": unit, "against": against, "target": target, "ours": [], "baseline": [], "flows": []}
        )
        row["ours"].append(ours)
        if baseline is not None:
            row["baseline"].append(baseline)
        if flow is not None:
            row["flows"].append(flow)

    def rows(self) -> Iterator[Row]:
        for name, row in self._rows.items():
            ours, baseline, note = tuple(row["ours"]), tuple(row["baseline"]), _note(row["flows"])
            yield Row(name, row["unit"], ours, baseline, row["against"], row["target"], note)


def _note(flows: Sequence[Flow]) -> str:
    """Returns the figures over all rounds."""
    if not flows:
        return ""
    posted, age = statistics.median(flow.posted for flow in flows), statistics.median(flow.age for flow in flows)
    merged, dropped = sum(flow.merged for flow in flows), sum(flow.dropped for flow in flows)
    return f"{posted:,.0f}/s posted, {merged} merged, {dropped} dropped, {age:.0f} ms old when read"


def _fast_rows(rows: _Rows, rate: int, flow: Flow) -> None:
    name = f"one PV, {rate:,} posts/s"
    deployed = DEPLOYED_EVENTS[rate]
    target = at_least(3) if rate / deployed > 3 else None  # a gateway cannot publish more events than there are posts
    rows.add(name, "events/s", flow.rate, baseline=deployed, against=DEPLOYED, target=target, flow=flow)
    rows.add(f"{name}, per core", "events/s/core", flow.per_core)


def _slow_rows(rows: _Rows, flow: Flow) -> None:
    name = f"{SLOW:,} PVs at {SLOW_RATE} Hz"
    rows.add(name, "events/s", flow.rate, baseline=flow.posted, against="updates/s of the IOC", flow=flow)
    rows.add(f"{name}, per core", "events/s/core", flow.per_core)


def _get_rows(rows: _Rows, site: Site) -> None:
    for in_flight in IN_FLIGHT:
        rate, per_core = gets(site, in_flight)
        rows.add(f"gets, {in_flight} under way", "gets/s", rate)
        name = f"gets, {in_flight} under way, per core"
        target = at_least(10) if in_flight > 1 else None  # the deployed gateway was measured with concurrent gets too
        rows.add(name, "gets/s/core", per_core, baseline=DEPLOYED_GETS, against=DEPLOYED, target=target)
    ours, theirs = one_get(site)
    rows.add("a get", "ms", ours, baseline=theirs, against="p4p's own get")
    rows.add("a get, beyond p4p's own", "ms", ours - theirs, target=at_most(3))


def _latency_rows(rows: _Rows, site: Site, handler: _Handler) -> None:
    for rate in LATENCY_SECONDS:
        ours, theirs = latency(site, handler, rate)
        for name, our, their in zip(("median", "p99"), ours, theirs, strict=True):
            rows.add(f"latency at {rate:,} updates/s, {name}", "ms", our, baseline=their, against="p4p's own monitor")


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the gateway's rows, measured with the Apache Kafka at an address."""
    rows = _Rows()
    with ExitStack() as running:
        site = Site(kafka, running)
        consumer = site.monitor([site.fast])
        running.callback(consumer.close)
        handler = _Handler()
        subscription = site.client.monitor_stream(f"pva://{site.timed}").subscribe(handler)
        fast(site, consumer, 5000)  # warm-up of the broker
        gets(site, 10)
        latency(site, handler, 100)
        for _ in range(rounds):
            for rate in DEPLOYED_EVENTS:
                _fast_rows(rows, rate, fast(site, consumer, rate))
            _get_rows(rows, site)
            _latency_rows(rows, site, handler)
        subscription.dispose()
        with site.records():
            slow_ones = site.monitor(site.slow)
            running.callback(slow_ones.close)
            Arrivals().read(slow_ones, lambda arrivals: len(arrivals.events) >= 2 * SLOW)  # all PVs are connected
            for _ in range(rounds):
                _slow_rows(rows, slow(site, slow_ones))
    return list(rows.rows())


if __name__ == "__main__":
    run("gateway", measure)
