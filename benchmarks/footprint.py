"""Footprint of a client: processor time per event and memory per monitored PV.

    python benchmarks/footprint.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

Each figure is of a process of its own, librdkafka's threads included: a client that monitors a number of PVs with a
number of subscribers each, all of which read the decoded structure. Events are full NTScalars (550 bytes), produced as
fast as possible. Topics have one partition here, because 15,000 partitions would measure the broker. Memory is the
increase of resident memory from before the first monitor until each PV has had an event.
"""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from reactivex import Observable

from k2eg_rx import Client, PVUpdate, Settings, first
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, Laboratory, laboratory
from measuring import Row, run

PV_COUNTS = (10, 100, 1000, 5000)
SUBSCRIBER_COUNTS = (1, 10, 100)
DELIVERIES = 60_000  # handler calls per round
_PATIENCE = 4 * TIMEOUT
_PAGE = 4096
_SETTLE = 0.5  # seconds until the work of the first events is done


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class _Counter:
    """Counts handler calls on several threads and signals the expected number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._done = threading.Event()

    def expect(self, count: int) -> None:
        with self._lock:
            self._left += count
            self._done.clear()

    def take(self, update: PVUpdate) -> None:
        if not update.data:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._done.set()

    def wait(self) -> None:
        if not self._done.wait(_PATIENCE):
            raise SystemExit(f"{self._left} events did not come")


def _watch(settings: Settings, names: Sequence[str], subscribers: int, pipe: Connection) -> None:
    """Runs the measured process."""
    with Client("bench", "footprint", settings=settings, silence=3600.0) as client:
        first(client.ready_stream(TIMEOUT))
        gc.collect()
        before = _resident()
        uris = [f"pva://{name}" for name in names]
        counter = _Counter()
        counter.expect(len(names) * subscribers)
        stream: Observable[PVUpdate] = client.monitor_many_stream(uris)
        for _ in range(subscribers):
            stream.subscribe(counter.take)
        first(client.activation_stream(uris, timeout=TIMEOUT))
        pipe.send("active")
        counter.wait()
        time.sleep(_SETTLE)
        gc.collect()
        pipe.send(_resident() - before)
        while (events := pipe.recv()) > 0:
            counter.expect(events * subscribers)
            start = time.process_time()
            pipe.send("ready")
            counter.wait()
            pipe.send(time.process_time() - start)


@dataclass(frozen=True, slots=True)
class Watcher:
    """The measured process, as seen by the benchmark. `memory` is in bytes."""

    place: Laboratory
    names: Sequence[str]
    subscribers: int
    pipe: Connection
    memory: int

    def cost(self) -> float:
        """Returns microseconds of processor time per handler call, for one round."""
        events = max(len(self.names), DELIVERIES // self.subscribers)
        self.pipe.send(events)
        self.pipe.recv()
        self.place.produce(self.names, events)
        return self.pipe.recv() / (events * self.subscribers) * 1e6


@contextmanager
def watcher(place: Laboratory, count: int, subscribers: int) -> Iterator[Watcher]:
    """Starts a process and waits for the first event of each PV."""
    names = place.new_pvs(count, partitions=1)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(place.settings(), names, subscribers, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        ours.recv()
        place.produce(names, count)
        yield Watcher(place, names, subscribers, cast(Connection, ours), ours.recv())
        ours.send(0)
        process.join(TIMEOUT)
    finally:
        process.kill()
        place.delete(map(monitor_topic, names))


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the rows by PVs and by subscribers."""
    costs: list[Row] = []
    memories: list[Row] = []
    with laboratory(kafka) as place:
        for count in PV_COUNTS:
            with watcher(place, count, 1) as watched:
                figures = tuple(watched.cost() for _ in range(rounds))
                costs.append(Row(f"processor time per event, {count} PVs", "us", figures))
                per_pv = watched.memory / count / 1000
                memories.append(Row(f"memory per PV, {count} PVs", "kB", (per_pv,), note="one process"))
        for subscribers in SUBSCRIBER_COUNTS:
            with watcher(place, 1, subscribers) as watched:
                figures = tuple(watched.cost() for _ in range(rounds))
                name = f"processor time per handler call, {subscribers} subscriber{'s' * (subscribers > 1)} of one PV"
                costs.append(Row(name, "us", figures))
    return costs + memories


if __name__ == "__main__":
    run("footprint", measure)
