"""Quadrupole scan: the size of the beam over the current of a magnet, with a fit, as a table and a picture.

    k2eg demo                                    # in one terminal
    python examples/quadrupole_scan.py scan.png  # in another

Moves the magnet, waits until its read-back has settled, takes shots of the size, and puts the magnet back: at the end,
after an error, and on Ctrl-C. It needs the extra ``examples``.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib does not annotate all its arguments)

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.scans import Readback, restoring, scan

QUAD, SIZE = "pva://demo:quad", "pva://demo:beamsize"
SETTLE = {QUAD: Readback("pva://demo:quad:readback", tolerance=0.02)}


def quadrupole_scan(client: Client, currents: Sequence[float], shots: int = 5) -> pd.DataFrame:
    """Returns a row for each shot: the current of the magnet, A, and the size of the beam, mm."""
    points = scan(client, {QUAD: currents}, settle=SETTLE, acquire=[SIZE], shots=shots, progress=True)
    with restoring(client, [QUAD]):
        rows = [row for point in first(points.pipe(ops.to_list())) for row in point.rows()]
    frame = pd.DataFrame(rows)
    return pd.DataFrame({"current": frame[QUAD], "size": frame["demo:beamsize"]})


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="a PNG or SVG file, which is overwritten")
    parser.add_argument("--currents", type=float, nargs="+", default=[5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0], help="A")
    options = parser.parse_args()
    with Client("demo", "example-scan") as client:
        frame = quadrupole_scan(client, options.currents)
    print(frame.groupby("current")["size"].agg(["mean", "std"]).round(4).to_string())

    fit = np.polynomial.Polynomial.fit(frame["current"], frame["size"] ** 2, 2)  # the square of the size is a parabola
    best = float(fit.deriv().roots()[0])
    print(f"smallest beam, {np.sqrt(fit(best)):.3f} mm, at {best:.2f} A")

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(frame["current"], frame["size"], "o", label="shots")
    currents, squares = fit.linspace()
    axes.plot(currents, np.sqrt(squares), label="fit")
    axes.axvline(best, linestyle="--", color="gray")
    axes.set(xlabel="current of the quadrupole / A", ylabel="size of the beam / mm")
    axes.legend()
    figure.savefig(options.picture)


if __name__ == "__main__":
    main()
