"""Correlation of the last hour: which PVs go with which, as a table and a picture.

    k2eg demo                                       # in one terminal
    python examples/correlation.py correlation.png  # in another, later

Kafka keeps what was monitored by any client, for an hour by default.

Reads what Kafka keeps of the PVs, puts all of them onto one grid of time, and correlates the columns. It needs the
extra ``examples``.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib does not annotate all its arguments)

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.operators import resample

DEFAULT_PVS = [f"pva://demo:{name}" for name in ("bpm1", "bpm6", "bpm11", "quad:readback", "beamsize", "loss")]


def history(client: Client, uris: Sequence[str], since: timedelta, rate: float = 1.0) -> pd.DataFrame:
    """Returns a row for each point of time and a column for each PV; a value holds until the next one."""
    grid = resample(rate, pvs=uris, tolerance=60.0, every=60.0)
    pieces = first(client.replay_stream(uris, since).pipe(grid, ops.to_list()))
    frames = [pd.DataFrame(piece.columns, index=pd.to_datetime(piece.times, utc=True)) for piece in pieces]
    return pd.concat(frames).dropna()


def draw(correlation: pd.DataFrame, path: Path) -> None:
    """Draws the coefficients as colours, with their numbers."""
    names, coefficients = list(correlation.columns), correlation.to_numpy()
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(coefficients, cmap="RdBu", vmin=-1.0, vmax=1.0)
    figure.colorbar(image, label="coefficient of correlation")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row in range(len(names)):
        for column in range(len(names)):
            number = coefficients[row, column]
            axes.text(column, row, f"{number:.2f}", ha="center", va="center", color="w" if abs(number) > 0.6 else "k")
    figure.savefig(path)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="a PNG or SVG file, which is overwritten")
    parser.add_argument("--pv", action="append", help="a numeric PV; can be repeated")
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with Client("demo", "example-correlation") as client:
        frame = history(client, options.pv or DEFAULT_PVS, timedelta(minutes=options.minutes))
    correlation = frame.corr()
    print(f"{len(frame)} seconds of {len(frame.columns)} PVs\n{correlation.round(2).to_string()}")
    draw(correlation, options.picture)


if __name__ == "__main__":
    main()
