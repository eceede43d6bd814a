"""An orbit, shot by shot: the positions of 20 monitors that belong to the same instant.

    k2eg demo                 # in one terminal
    python examples/orbit.py  # in another

Joins the updates of 20 PVs by their EPICS time, prints the live RMS of each orbit and of those of the last second, and
at the end how much each monitor moved, and how closely it followed the first. A shot that not all monitors have seen is
left out, and counted.
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
    """Returns the positions of all monitors at one instant after another, in the order of `monitors`."""

    def positions(instant: Aligned) -> Orbit:
        return [float(update.value) for update in instant.updates.values()]

    return updates.pipe(align(monitors, counts=counts), ops.map(positions))


def rms(numbers: Sequence[float]) -> float:
    """Returns the root of the mean of the squares."""
    return math.sqrt(fmean(number * number for number in numbers))


def live_line(recent: Sequence[Orbit]) -> str:
    """Returns what is shown of the last orbits: the RMS of the newest, and that of all of them."""
    of_all = rms([position for orbit in recent for position in orbit])
    return f"RMS {rms(recent[-1]):6.3f} mm, of the last {len(recent)} shots {of_all:6.3f} mm"


def summary(seen: Sequence[Orbit], monitors: Sequence[str]) -> list[str]:
    """Returns a line for each monitor: mean, standard deviation, and correlation with the first monitor."""
    lines = [f"{'monitor':16} {'mean/mm':>8} {'std/mm':>8} {'correlation':>12}"]
    columns = list(zip(*seen, strict=True))
    for monitor, column in zip(monitors, columns, strict=False):
        related = math.nan
        with suppress(StatisticsError):  # fewer than two shots, or one that never moves
            related = correlation(columns[0], column)
        lines.append(f"{monitor:16} {fmean(column):8.3f} {pstdev(column):8.3f} {related:12.2f}")
    return lines


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--prefix", default="pva://demo:bpm", help="of the monitors' names; a number follows")
    parser.add_argument("--monitors", type=int, default=20, help="how many there are")
    parser.add_argument("--shots", type=int, default=300, help="how many orbits to take")
    options = parser.parse_args()
    monitors = [f"{options.prefix}{number}" for number in range(1, options.monitors + 1)]
    counts = AlignCounts()
    seen: list[Orbit] = []

    with Client(options.environment, "example-orbit") as client:
        taken = orbits(client.monitor_many_stream(monitors), monitors, counts)
        lines = taken.pipe(
            ops.take(options.shots),
            ops.do_action(seen.append),
            sample_latest(0.5),  # as often as one can read
            ops.map(lambda _: live_line(seen[-SHOTS_PER_SECOND:])),
            ops.do_action(print),
        )
        with suppress(KeyboardInterrupt):  # Ctrl-C ends it early
            first(lines.pipe(ops.count()))  # waits for the end, on this thread

    print("\n".join(summary(seen, monitors)))
    print(f"{counts.instants} shots; {counts.dropped.total()} updates belong to none: {dict(counts.dropped)}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
