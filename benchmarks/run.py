"""Runs all benchmarks on Apache Kafka, with a table each and one file of raw figures.

    python benchmarks/run.py [--rounds 5] [--only NAME]... [--kafka HOST:PORT] [--json FILE]

A broker is started from the artifacts of the test suite unless an address is given. Nothing else should run on the
machine meanwhile. Ratios compare figures of the same round and are more reliable than the figures.
"""

from __future__ import annotations

import batches
import flood
import footprint
import gateway
import idle
import latency
import start
import throughput
from measuring import main

BENCHMARKS = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "batches": batches.measure,
    "flood": flood.measure,
    "gateway": gateway.measure,
    # those with thousands of topics last, because the broker deletes them slowly
    "footprint": footprint.measure,
    "idle": idle.measure,
    "start": start.measure,
}

if __name__ == "__main__":
    main(BENCHMARKS, "Measures the client and the gateway on Apache Kafka.")
