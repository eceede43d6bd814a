"""Joins two PVs by EPICS time and writes a value computed from both.

    k2eg demo                     # in one terminal
    python examples/correlate.py  # in another

Pairs the updates of two PVs with nearly the same EPICS time, multiplies their values, and writes the product to a set
point, at most five times a second.
"""

from __future__ import annotations

import argparse

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Reply, first

NANOSECONDS = 1_000_000_000
Pair = tuple[PVUpdate, PVUpdate]


def same_instant(left: Observable[PVUpdate], right: Observable[PVUpdate], tolerance: float) -> Observable[Pair]:
    """Returns pairs of updates whose EPICS times differ by at most `tolerance` seconds.

    Each update is compared with the newest one of the other PV, which suffices for PVs with equal update rates. For
    other PVs use `k2eg_rx.operators.align`.
    """

    def time_of(pair: Pair) -> int | None:
        return pair[0].timestamp

    def close(pair: Pair) -> bool:
        times = [update.timestamp for update in pair]
        return times[0] is not None and times[1] is not None and abs(times[0] - times[1]) <= tolerance * NANOSECONDS

    return left.pipe(
        ops.combine_latest(right),
        ops.filter(close),
        ops.distinct_until_changed(time_of),
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--left", default="pva://demo:sine10")
    parser.add_argument("--right", default="ca://demo:ramp10")
    parser.add_argument("--target", default="pva://demo:setpoint2")
    parser.add_argument("--tolerance", type=float, default=0.02, help="maximum time difference of a pair in seconds")
    parser.add_argument("--count", type=int, default=20, help="number of products to write")
    options = parser.parse_args()

    def product(pair: Pair) -> float:
        return float(pair[0].value) * float(pair[1].value) / 100

    with Client(options.environment, "example-correlate") as client:

        def write(product: float) -> Observable[str]:
            def line(_: Reply) -> str:
                return f"{options.target} <- {product:.4f}"

            return client.put_stream(options.target, product, timeout=5.0).pipe(ops.map(line))

        pairs = same_instant(
            client.monitor_stream(options.left), client.monitor_stream(options.right), options.tolerance
        )
        writes: Observable[Observable[str]] = pairs.pipe(
            ops.map(product),
            ops.sample(0.2),  # five writes a second
            ops.take(options.count),
            ops.map(write),
        )
        lines: Observable[str] = writes.pipe(ops.merge(max_concurrent=1))  # one put at a time
        first(lines.pipe(ops.do_action(print), ops.last()))  # waits for the end; raises an error of the stream


if __name__ == "__main__":
    main()
