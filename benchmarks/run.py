"""All benchmarks on Apache Kafka, one after the other, with one table each and one file of raw figures.

    python benchmarks/run.py [--rounds 5] [--only NAME]... [--kafka HOST:PORT] [--json FILE]

A broker is started for them, from the artifacts that the tests use, unless one is named. Nothing else should run on the
machine meanwhile; ratios are of the same rounds, so they bear more than the figures do.
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
    # those with thousands of topics at the end: the broker takes its time to remove them
    "footprint": footprint.measure,
    "idle": idle.measure,
    "start": start.measure,
}

if __name__ == "__main__":
    main(BENCHMARKS, "Measures the client and the gateway on Apache Kafka.")
