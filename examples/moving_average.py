"""Prints the moving average of a live PV and the changes of its alarm severity.

k2eg demo                          # in one terminal
python examples/moving_average.py  # in another
"""

from __future__ import annotations

import argparse
from statistics import fmean

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import AlarmTransition, alarms


def moving_average(updates: Observable[PVUpdate], count: int) -> Observable[str]:
    """Returns a stream with a line per update: the mean of the last `count` values."""

    def line(newest: list[PVUpdate]) -> str:
        values = [float(update.value) for update in newest]
        return f"average of {count}: {fmean(values):8.3f}   (newest {values[-1]:8.3f})"

    def is_whole(newest: list[PVUpdate]) -> bool:
        return len(newest) == count

    return updates.pipe(ops.buffer_with_count(count, 1), ops.filter(is_whole), ops.map(line))


def alarm_transitions(updates: Observable[PVUpdate]) -> Observable[str]:
    """Returns a stream with a line per change of the severity."""

    def line(alarm: AlarmTransition) -> str:
        return f"alarm: {alarm.previous.name} -> {alarm.current.name} at {alarm.update.value}"

    return updates.pipe(alarms(), ops.map(line))


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
