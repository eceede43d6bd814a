"""Prints the moving average of a live PV and the changes of its alarm severity.

k2eg demo                          # in one terminal
python examples/moving_average.py  # in another
"""

from __future__ import annotations

import argparse

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first


def moving_average(updates: Observable[PVUpdate], count: int) -> Observable[str]:
    """Returns a stream with a line per update: the mean of the last `count` values."""
    return updates.pipe(
        ops.map(lambda update: float(update.value)),
        ops.buffer_with_count(count, 1),
        ops.filter(lambda values: len(values) == count),
        ops.map(lambda values: f"average of {count}: {sum(values) / count:8.3f}   (newest {values[-1]:8.3f})"),
    )


def alarm_transitions(updates: Observable[PVUpdate]) -> Observable[str]:
    """Returns a stream with a line per change of the severity."""
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
    parser.add_argument("--window", type=int, default=5, help="number of values to average")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()

    with Client(options.environment, "example-average") as client:
        updates = client.monitor_stream(options.pv)  # both pipes below share one monitor
        lines = rx.merge(moving_average(updates, options.window), alarm_transitions(updates))
        printed = lines.pipe(ops.take_until(rx.timer(options.seconds)), ops.do_action(print))
        first(printed.pipe(ops.count()))  # waits for the end; raises an error of the stream


if __name__ == "__main__":
    main()
