"""Stream processing: two PVs joined by EPICS time, and what follows from them written back.

    k2eg demo                     # in one terminal
    python examples/correlate.py  # in another

Pairs the updates of two PVs that belong to the same instant, multiplies them, and writes the product to a set point,
at most a few times a second.
"""

from __future__ import annotations

import argparse
import threading

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Reply

NANOSECONDS = 1_000_000_000
Pair = tuple[PVUpdate, PVUpdate]


def same_instant(left: Observable[PVUpdate], right: Observable[PVUpdate], tolerance: float) -> Observable[Pair]:
    """Returns the pairs of updates whose EPICS times are at most `tolerance` seconds apart.

    Every new update is looked at beside the newest of the other PV: one step of memory for each is enough for PVs
    that update at the same rate.
    """

    def close(pair: Pair) -> bool:
        times = [update.timestamp for update in pair]
        return times[0] is not None and times[1] is not None and abs(times[0] - times[1]) <= tolerance * NANOSECONDS

    return left.pipe(
        ops.combine_latest(right),
        ops.filter(close),
        ops.distinct_until_changed(lambda pair: pair[0].timestamp),
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--left", default="pva://demo:sine10")
    parser.add_argument("--right", default="ca://demo:ramp10")
    parser.add_argument("--target", default="pva://demo:setpoint2")
    parser.add_argument("--tolerance", type=float, default=0.02, help="seconds between what belongs together")
    parser.add_argument("--count", type=int, default=20, help="how many products to write")
    options = parser.parse_args()
    over = threading.Event()
    errors: list[Exception] = []

    with Client(options.environment, "example-correlate") as client:

        def write(product: float) -> Observable[str]:
            def line(_: Reply) -> str:
                return f"{options.target} <- {product:.4f}"

            return client.put_stream(options.target, product, timeout=5.0).pipe(ops.map(line))

        def failed(error: Exception) -> None:
            errors.append(error)
            over.set()

        pairs = same_instant(
            client.monitor_stream(options.left), client.monitor_stream(options.right), options.tolerance
        )
        writes: Observable[Observable[str]] = pairs.pipe(
            ops.map(lambda pair: float(pair[0].value) * float(pair[1].value) / 100),
            ops.sample(0.2),  # a set point is no place for every update
            ops.take(options.count),
            ops.map(write),
        )
        one_by_one: Observable[str] = writes.pipe(ops.merge(max_concurrent=1))
        one_by_one.subscribe(print, failed, over.set)
        over.wait()
    if errors:
        raise SystemExit(f"failed: {errors[0]}")


if __name__ == "__main__":
    main()
