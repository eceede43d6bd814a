"""Streams in a pipe: the moving average of a live PV, and the moments when its alarm severity changes.

k2eg demo                          # in one terminal
python examples/moving_average.py  # in another
"""

from __future__ import annotations

import argparse
import threading

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate


def moving_average(updates: Observable[PVUpdate], count: int) -> Observable[str]:
    """Returns a line for each update: the mean of the last `count` values."""
    return updates.pipe(
        ops.map(lambda update: float(update.value)),
        ops.buffer_with_count(count, 1),
        ops.filter(lambda values: len(values) == count),
        ops.map(lambda values: f"average of {count}: {sum(values) / count:8.3f}   (newest {values[-1]:8.3f})"),
    )


def alarm_transitions(updates: Observable[PVUpdate]) -> Observable[str]:
    """Returns a line for each change of the severity."""
    return updates.pipe(
        ops.distinct_until_changed(lambda update: update.severity),
        ops.pairwise(),
        ops.map(lambda pair: f"alarm: {pair[0].severity.name} -> {pair[1].severity.name} at {pair[1].value}"),
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", default="pva://demo:temperature")
    parser.add_argument("--window", type=int, default=5, help="how many values to average")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    over = threading.Event()

    with Client(options.environment, "example-average") as client:
        updates = client.monitor_stream(options.pv)  # hot: both uses below share one monitor
        lines = rx.merge(moving_average(updates, options.window), alarm_transitions(updates))
        lines.pipe(ops.take_until(rx.timer(options.seconds))).subscribe(
            print, lambda error: print(f"failed: {error}"), over.set
        )
        over.wait(options.seconds + 5.0)


if __name__ == "__main__":
    main()
