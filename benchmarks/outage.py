"""How much of an outage of Kafka the gateway's buffer holds, by the default options.

    python benchmarks/outage.py [--rate 2000] [--pvs 100] [--overflow latest]

No broker is needed: events of counting PVs are published to a sink that takes none, as while Kafka is away. The tables
show how many wait when the first is dropped, how many seconds that is at the rate, and the memory that they take.
"""

from __future__ import annotations

import argparse
import logging
import resource
from collections.abc import Iterator
from itertools import count
from multiprocessing import get_context

from reactivex.testing import TestScheduler

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway import GatewayContext, GatewayOptions, OutgoingRecord, Publisher
from k2eg_rx.protocol import Serialization, encode_event, encode_structure


class AwaySink:
    """A sink without room."""

    def send(self, topic: str, value: bytes | None, **_: object) -> None:
        """Refuses the record."""
        del topic, value
        raise TransportError("full") from BufferError()

    def close(self, timeout: float) -> None:
        """Does nothing."""


def structure(number: int, elements: int) -> dict[str, object]:
    """Returns a value with the fields of a full NTScalar or NTScalarArray."""
    value: object = float(number) if elements == 1 else [number + index / 7 for index in range(elements)]
    limits = {"limitLow": -100.0, "limitHigh": 100.0}
    return {
        "value": value,
        "alarm": {"severity": 0, "status": 0, "message": "NO_ALARM"},
        "timeStamp": {"secondsPastEpoch": 1_795_000_000 + number, "nanoseconds": number % 10**9, "userTag": 0},
        "display": {**limits, "description": "a benchmark", "units": "mm", "precision": 3, "form": {"index": 0}},
        "control": {**limits, "minStep": 0.0},
        "valueAlarm": {
            "active": False,
            **{f"{side}{kind}Limit": 0.0 for side in ("low", "high") for kind in ("Alarm", "Warning")},
            **{f"{side}{kind}Severity": 0 for side in ("low", "high") for kind in ("Alarm", "Warning")},
            "hysteresis": 0.0,
        },
    }


def events(pvs: int, elements: int) -> Iterator[OutgoingRecord]:
    """Yields the events of PVs in turn."""
    for number in count():
        name = f"bench:pv{number % pvs}"
        fragment = encode_structure(Serialization.MSGPACK, structure(number, elements))
        body = encode_event(Serialization.MSGPACK, name, fragment)
        yield OutgoingRecord(name, name.encode(), body, Serialization.MSGPACK, "pva", droppable=True)


def memory() -> float:
    """Returns the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure(rate: float, pvs: int, elements: int, overflow: str) -> None:
    """Prints how many events wait before the first is dropped."""
    logging.disable(logging.WARNING)
    options = GatewayOptions(outgoing_overflow=overflow)
    context = GatewayContext(TestScheduler(), options=options)
    publisher = Publisher(AwaySink(), context)
    before, held, size = memory(), 0, 0
    for event in events(pvs, elements):
        publisher.send(event)
        if context.metrics.dropped:
            break
        held, size = held + 1, len(event.value)
    used = (memory() - before) / 2**20
    print(f"{elements:>8,} {size:>12,} {held:>10,} {held / rate:>12,.0f} {used:>12,.0f}", flush=True)


def main() -> None:
    """Measures scalars and arrays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000.0, help="updates a second (default %(default)s)")
    parser.add_argument("--pvs", type=int, default=100, help="PVs (default %(default)s)")
    parser.add_argument("--overflow", choices=("latest", "drop_oldest"), default="latest", help="(default %(default)s)")
    arguments = parser.parse_args()
    print(f"at {arguments.rate:,.0f} updates/s")
    print(f"{'elements':>8} {'bytes/event':>12} {'events':>10} {'seconds':>12} {'memory, MiB':>12}", flush=True)
    for elements in (1, 100, 1000, 10_000):
        process = get_context("spawn").Process(  # for a peak memory of its own
            target=measure, args=(arguments.rate, arguments.pvs, elements, arguments.overflow)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
