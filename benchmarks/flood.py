"""Median round trip of a get during a flood of monitor events, compared with an idle client.

    python benchmarks/flood.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

The flood is produced by another process as fast as the broker accepts it. Its subscriber decodes each event, or reads
only the newest. On a machine with few processors, flood, broker and client compete: the ratio depends on it.
For comparison, the rows of a bare echo show produce and consume in another process, during the flood and idle.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import msgpack
from confluent_kafka import Producer

from k2eg_rx import Client, Settings, first
from k2eg_rx.pv import monitor_topic
from laboratory import Laboratory, laboratory, measured_process
from latency import Bare, milliseconds
from measuring import Row, at_most, run
from responder import HEADER, structure

GETS = 500  # half a second of the flood; its first tenth is not representative
_WARM_UP = 2000  # gets until the broker has compiled its hot code
URI = "pva://bench:get"
TIMEOUT = 30.0
PVS = 10
POLICIES = ("block", "latest", "drop_oldest")
_BODIES = 500  # distinct values of a PV, so that no value repeats the last


def _pour(address: str, names: list[str], stop: Event) -> None:
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "log_level": 0})
    records = [
        (monitor_topic(name), msgpack.packb({name: structure(float(number), time.time_ns() + number)}), name.encode())
        for number in range(_BODIES)
        for name in names
    ]
    while not stop.is_set():
        for topic, body, key in records:
            try:
                producer.produce(topic, body, key=key, headers=HEADER)
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    producer.purge()


@contextmanager
def _poured(address: str, names: list[str]) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_pour, args=(address, names, stop), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(TIMEOUT)


def _median(get: Callable[[], object], count: int = GETS) -> float:
    """Returns the median round trip of gets one by one, in milliseconds."""
    return statistics.median(milliseconds(get) for _ in range(count))


def _serve_echo(settings: Settings, pipe: Connection) -> None:
    """Runs the process of the bare echo, which measures itself on request."""
    bare = Bare(settings)
    while pipe.recv():
        pipe.send(_median(lambda: bare.get(URI)))
    bare.close()


@dataclass(frozen=True, slots=True)
class Beside:
    """Medians of a round in milliseconds, with a flood and idle, and the events delivered per second."""

    get: float
    idle_get: float
    echo: float
    idle_echo: float
    rate: float


def _round(place: Laboratory, echo: Callable[[], float], overflow: str) -> Beside:
    names = place.new_pvs(PVS)
    seen = 0
    enough = threading.Event()

    def see(_update: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 1000 or overflow == "latest":
            enough.set()

    with Client("bench", "flood", settings=place.settings()) as client:

        def get() -> None:
            first(client.get_stream(URI, timeout=TIMEOUT))

        _median(get)
        idle, idle_echo = _median(get), echo()
        client.monitor_many_stream([f"pva://{name}" for name in names], overflow=overflow).subscribe(see)
        with _poured(place.address, names):
            if not enough.wait(TIMEOUT):
                raise SystemExit("the flood did not come")
            before, since = seen, time.perf_counter()
            flooded = _median(get)
            rate = (seen - before) / (time.perf_counter() - since)
            flooded_echo = echo()
    place.delete(map(monitor_topic, names))
    return Beside(flooded, idle, flooded_echo, idle_echo, rate)


def _rows(overflow: str, rounds: Sequence[Beside]) -> Iterator[Row]:
    note = f"{statistics.median(one.rate for one in rounds):,.0f} events/s handed over"
    name = f"get beside a flood, overflow={overflow!r}"
    gets = tuple(one.get for one in rounds), tuple(one.idle_get for one in rounds)
    echoes = tuple(one.echo for one in rounds), tuple(one.idle_echo for one in rounds)
    yield Row(name, "ms", *gets, against="idle", target=at_most(2.0), note=note)
    yield Row("bare echo of another process, beside the same", "ms", *echoes, against="idle")


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns two rows per overflow policy of the flood's subscriber."""
    measured: dict[str, list[Beside]] = {overflow: [] for overflow in POLICIES}
    with laboratory(kafka) as place, measured_process(_serve_echo, place.settings()) as echo:
        with Client("bench", "flood", settings=place.settings()) as client:
            _median(lambda: first(client.get_stream(URI, timeout=TIMEOUT)), _WARM_UP)
        echo()
        for _ in range(rounds):
            for overflow, of in measured.items():
                of.append(_round(place, echo, overflow))
    return [row for overflow, of in measured.items() for row in _rows(overflow, of)]


if __name__ == "__main__":
    run("flood", measure)
