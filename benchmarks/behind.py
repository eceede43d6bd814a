"""Instants of many PVs that a client aligns when it goes on after a stall.

    python benchmarks/behind.py [--pvs 40] [--minutes 10]

A client aligns PVs at 10 Hz, its subscribers block, and the updates of some minutes are produced meanwhile, with the
times that they would have had. Then the subscribers go on: how many of the instants come, and how long it takes.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from k2eg_rx import Client, first
from k2eg_rx.operators import AlignCounts, align
from k2eg_rx.protocol import pack
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, Laboratory, laboratory, send
from measuring import apache_kafka
from responder import structure
from throughput import Gate, shut

_PERIOD = 100_000_000  # nanoseconds


def produce(place: Laboratory, names: Sequence[str], count: int) -> None:
    """Produces the updates of the PVs in turn, as of the last minutes."""
    producer = Producer({"bootstrap.servers": place.address, "linger.ms": 20})
    begin = time.time_ns() - count * _PERIOD
    for number in range(count):
        update = structure(float(number))
        at = begin + number * _PERIOD
        update["timeStamp"]["secondsPastEpoch"], update["timeStamp"]["nanoseconds"] = divmod(at, 10**9)
        body = pack(update)
        for name in names:
            value = b"\x81" + pack(name) + body  # a map of one entry
            send(producer, monitor_topic(name), name.encode(), value, timestamp=at // 10**6)
        producer.poll(0)
    if producer.flush(TIMEOUT):
        raise SystemExit("the updates could not be produced")


def measure(place: Laboratory, pvs: int, count: int) -> None:
    """Measures and prints."""
    names = place.new_pvs(pvs, 1)
    (gate_name,) = place.new_pvs(1)
    uris = [f"pva://{name}" for name in [gate_name, *names]]
    gate, counts, done = Gate(), AlignCounts(), threading.Event()
    with Client("bench", "behind", settings=place.settings(), silence=600.0) as client:
        client.monitor_stream(uris[0], capacity=1).subscribe(gate.hold)
        client.monitor_many_stream(uris[1:]).pipe(align(names, counts=counts)).subscribe(
            lambda instant: done.set() if next(iter(instant.values().values())) == count - 1 else None
        )
        first(client.activation_stream(uris, timeout=TIMEOUT))
        shut(place, gate_name, gate)
        produce(place, names, count)
        processor, began = time.process_time(), time.monotonic()
        gate.opened.set()
        if not done.wait(TIMEOUT * 10):
            print("the last instant has not come")
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        print(
            f"{counts.instants:,} of {count:,} instants of {pvs} PVs, {seconds:.1f} s, {processor:.1f} s of a processor"
        )
        for reason, dropped in counts.dropped.items():
            print(f"{dropped:,} updates {reason.value}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pvs", type=int, default=40, help="(default %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="(default %(default)g)")
    given = parser.parse_args(arguments)
    with apache_kafka() as kafka, laboratory(kafka.address) as place:
        measure(place, given.pvs, round(given.minutes * 600))


if __name__ == "__main__":
    main()
