"""What a flood of monitor events does to a get: its median round trip beside one, against the same client's idle one.

    python benchmarks/flood.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

The flood comes from a process of its own that produces as fast as the broker takes it. Its subscriber decodes each
event, or reads the newest only. A machine with few processors shares them among flood, broker and client, so the ratio
says as much of the machine as of the client.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event

import msgpack
from confluent_kafka import Producer

from k2eg_rx import Client, first
from k2eg_rx.pv import monitor_topic
from laboratory import Laboratory, laboratory
from measuring import Row, at_most, run
from responder import HEADER, structure

GETS = 100
TIMEOUT = 30.0
PVS = 10
POLICIES = ("block", "latest", "drop_oldest")
_BODIES = 500  # different ones of a PV, so that none is taken for a repetition of the last


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


def _median_get(client: Client) -> float:
    """The median round trip of gets one after the other, in milliseconds."""
    took: list[float] = []
    for _ in range(GETS):
        since = time.perf_counter()
        first(client.get_stream("pva://bench:get", timeout=TIMEOUT))
        took.append((time.perf_counter() - since) * 1000)
    return statistics.median(took)


def _round(place: Laboratory, overflow: str) -> tuple[float, float, float]:
    """Median gets beside a flood and idle, in milliseconds, and the events a second that were handed over meanwhile."""
    names = place.new_pvs(PVS)
    seen = 0
    enough = threading.Event()

    def see(_update: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 1000 or overflow == "latest":
            enough.set()

    with Client("bench", "flood", settings=place.settings()) as client:
        _median_get(client)
        idle = _median_get(client)
        client.monitor_many_stream([f"pva://{name}" for name in names], overflow=overflow).subscribe(see)
        with _poured(place.address, names):
            if not enough.wait(TIMEOUT):
                raise SystemExit("the flood did not come")
            before, since = seen, time.perf_counter()
            flooded = _median_get(client)
            rate = (seen - before) / (time.perf_counter() - since)
    place.delete(map(monitor_topic, names))
    return flooded, idle, rate


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns a row for each policy of the flood's subscriber."""
    rows: list[Row] = []
    with laboratory(kafka) as place:
        for overflow in POLICIES:
            flooded, idle, rates = zip(*(_round(place, overflow) for _ in range(rounds)), strict=True)
            note = f"{statistics.median(rates):,.0f} events/s handed over"
            name = f"get beside a flood, overflow={overflow!r}"
            rows.append(Row(name, "ms", flooded, idle, against="idle", target=at_most(2.0), note=note))
    return rows


if __name__ == "__main__":
    run("flood", measure)
