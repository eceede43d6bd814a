"""Measures orbits: the positions of 20 beam position monitors at the same instant.

    k2eg demo                 # in one terminal
    python examples/orbit.py  # in another

Joins the updates of 20 PVs by EPICS time and prints the RMS of the newest orbit and of the orbits of the last second.
At the end it prints mean, standard deviation and correlation with the first monitor. Shots that some monitor missed are
skipped and counted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from statistics import StatisticsError, correlation, fmean, pstdev

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import AlignCounts, Aligned, align, sample_latest

Orbit = list[float]
SHOTS_PER_SECOND = 10  # of the demo's beam line


def orbits(updates: Observable[PVUpdate], monitors: Sequence[str], counts: AlignCounts) -> Observable[Orbit]:
    """Returns a stream with the positions of all monitors at each instant, in the order of `monitors`."""

    def positions(instant: Aligned) -> Orbit:
        return [float(update.value) for update in instant.updates.values()]

    return updates.pipe(align(monitors, counts=counts), ops.map(positions))


def rms(numbers: Sequence[float]) -> float:
    """Returns the root mean square."""
    return math.sqrt(fmean(number * number for number in numbers))


def live_line(recent: Sequence[Orbit]) -> str:
    """Returns a line with the RMS of the newest orbit and of all recent ones."""
    recent_rms = rms([position for orbit in recent for position in orbit])
    return f"RMS {rms(recent[-1]):6.3f} mm, of the last {len(recent)} shots {recent_rms:6.3f} mm"


def summary(measured: Sequence[Orbit], monitors: Sequence[str]) -> list[str]:
    """Returns a line for each monitor: mean, standard deviation, and correlation with the first monitor."""
    lines = [f"{'monitor':16} {'mean/mm':>8} {'std/mm':>8} {'correlation':>12}"]
    columns = list(zip(*measured, strict=True))
    for monitor, column in zip(monitors, columns, strict=False):
        coefficient = math.nan
        with suppress(StatisticsError):  # fewer than two shots, or a constant position
            coefficient = correlation(columns[0], column)
        lines.append(f"{monitor:16} {fmean(column):8.3f} {pstdev(column):8.3f} {coefficient:12.2f}")
    return lines


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--prefix", default="pva://demo:bpm", help="prefix of the monitors' URIs, before a number")
    parser.add_argument("--monitors", type=int, default=20, help="number of monitors")
    parser.add_argument("--shots", type=int, default=300, help="number of orbits")
    options = parser.parse_args()
    monitors = [f"{options.prefix}{number}" for number in range(1, options.monitors + 1)]
    counts = AlignCounts()
    measured: list[Orbit] = []

    with Client(options.environment, "example-orbit") as client:
        live = orbits(client.monitor_many_stream(monitors), monitors, counts)
        lines = live.pipe(
            ops.take(options.shots),
            ops.do_action(measured.append),
            sample_latest(0.5),  # a line every 2 s
            ops.map(lambda _: live_line(measured[-SHOTS_PER_SECOND:])),
            ops.do_action(print),
        )
        with suppress(KeyboardInterrupt):  # Ctrl-C ends the measurement
            first(lines.pipe(ops.count()))  # waits for the end

    print("\n".join(summary(measured, monitors)))
    print(f"{counts.instants} shots; {counts.dropped.total()} updates without a shot: {dict(counts.dropped)}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
