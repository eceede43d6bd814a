"""Orbit display: 20 beam position monitors of the same beam pulse, against a reference, as a picture every 5 s.

    k2eg demo                           # in one terminal
    python examples/orbit.py orbit.png  # in another

The first orbit is the reference. Pulses that a monitor has missed are skipped and counted. It needs the extra
``examples``.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib does not annotate all its arguments)

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.operators import AlignCounts, Aligned, align

MONITORS = [f"pva://demo:bpm{number}" for number in range(1, 21)]
Orbit = NDArray[np.float64]


def positions(pulse: Aligned) -> Orbit:
    """Returns the positions at a pulse, in the order of the monitors."""
    return np.array(list(pulse.values().values()), dtype=np.float64)


def draw(orbits: list[Orbit], path: Path) -> None:
    """Draws the newest orbit against the first one, and how far all are from it."""
    moved = np.array(orbits) - orbits[0]
    rms = np.sqrt((moved**2).mean(axis=1))
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    orbit, history = figure.subplots(2)
    orbit.bar(range(1, len(MONITORS) + 1), moved[-1])
    orbit.set(xlabel="monitor", ylabel="x - reference / mm", xticks=range(1, len(MONITORS) + 1))
    history.plot(rms)
    history.set(xlabel="pulse", ylabel="RMS / mm")
    figure.savefig(path)
    print(f"{len(orbits)} pulses, RMS {rms[-1]:.3f} mm, {path}", flush=True)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="a PNG or SVG file, which is overwritten")
    parser.add_argument("--pulses", type=int, default=600, help="number of pulses")
    parser.add_argument("--every", type=int, default=50, help="pulses from picture to picture")
    options = parser.parse_args()
    counts, orbits = AlignCounts(), list[Orbit]()
    with Client("demo", "example-orbit") as client:
        pulses = client.monitor_many_stream(MONITORS).pipe(align(MONITORS, on="pulse_id", counts=counts))
        measured = pulses.pipe(ops.map(positions), ops.do_action(orbits.append), ops.take(options.pulses))
        first(
            measured.pipe(
                ops.buffer_with_count(options.every), ops.do_action(lambda _: draw(orbits, options.picture)), ops.last()
            )
        )
    print(f"updates that belong to no complete pulse: {counts.dropped.total()}")


if __name__ == "__main__":
    main()
