"""Processor time of an idle client whose monitored PVs do not change.

    python benchmarks/idle.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

Each figure is of a process of its own, librdkafka's threads included. The baseline is a bare consumer with Kafka's
default settings, assigned to the same topics. Topics have as many partitions as a gateway creates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from k2eg_rx import Client, Settings, first
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, BareReader, laboratory, measured_process
from measuring import Row, run

PV_COUNTS = (1, 100, 2000)
_LAPSE = 3.0  # seconds per measurement
_SETTLE = 3.0  # seconds until the work of the start is done


def _tell(pipe: Connection) -> None:
    """Reports the processor time in milliseconds per second, on request."""
    time.sleep(_SETTLE)
    while pipe.recv():
        before = time.process_time()
        time.sleep(_LAPSE)
        pipe.send((time.process_time() - before) / _LAPSE * 1000)


def _watch(settings: Settings, names: Sequence[str], pipe: Connection) -> None:
    """Runs the process of a client."""
    with Client("bench", "idle", settings=settings, silence=3600.0) as client:
        uris = [f"pva://{name}" for name in names]
        client.monitor_many_stream(uris).subscribe(lambda _: None)
        first(client.activation_stream(uris, timeout=TIMEOUT))
        _tell(pipe)


def _watch_bare(settings: Settings, names: Sequence[str], pipe: Connection) -> None:
    """Runs the process of a bare consumer."""
    reader = BareReader(settings.broker_url, names, {})
    batches = reader.batches()
    next(batches)
    deadline = time.monotonic() + _SETTLE
    while time.monotonic() < deadline:
        next(batches)
    while pipe.recv():
        before, since = time.process_time(), time.monotonic()
        while time.monotonic() - since < _LAPSE:
            next(batches)
        pipe.send((time.process_time() - before) / (time.monotonic() - since) * 1000)


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns a row per number of PVs."""
    rows: list[Row] = []
    with laboratory(kafka) as place:
        for count in PV_COUNTS:
            names = place.new_pvs(count)
            figures: list[tuple[float, ...]] = []
            for watch in (_watch, _watch_bare):
                with measured_process(watch, place.settings(), names) as measured:
                    figures.append(tuple(measured() for _ in range(rounds)))
            ours, bare = figures
            name = f"processor time of a second, {count:,} idle PV{'s' * (count > 1)}"
            rows.append(Row(name, "ms", ours, bare, against="bare consumer, Kafka's settings"))
            place.delete(map(monitor_topic, names))
    return rows


if __name__ == "__main__":
    run("idle", measure)
