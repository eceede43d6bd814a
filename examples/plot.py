"""Collects some seconds of several PVs into a pandas frame, and plots them.

    k2eg demo                               # in one terminal
    python examples/plot.py --file pvs.png  # in another

Editors that support ``# %%`` cells run this file like a notebook. It needs the extra ``examples``.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib does not annotate all its arguments)

# %% Imports and options
from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import reactivex as rx
from matplotlib import rcParams
from matplotlib.figure import Figure  # pyplot would need a display
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.frames import to_dataframe

DEFAULT_PVS = ["pva://demo:sine10", "pva://demo:temperature", "ca://demo:bpm1", "ca://demo:bpm6"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("-e", "--environment", default="demo")
parser.add_argument("--pv", action="append", help="a numeric PV; can be repeated")
parser.add_argument("--seconds", type=float, default=10.0, help="duration")
parser.add_argument("--file", type=Path, default=Path("pvs.png"), help="the PNG file to write")
options, _ = parser.parse_known_args()  # in a notebook there are further arguments

# %% Collect updates
with Client(options.environment, "example-plot") as client:
    live = client.monitor_many_stream(options.pv or DEFAULT_PVS)
    updates = first(live.pipe(ops.take_until(rx.timer(options.seconds)), ops.to_list()))
if not updates:
    raise SystemExit(f"no update within {options.seconds:g} s")
units = {update.name: update.units for update in updates}

# %% A row per update: time, pv, value, severity, ...
frame = to_dataframe(updates)
print(frame.groupby("pv")["value"].describe().round(3).to_string())

# %% A panel per unit, a line per PV, red dots for values in alarm
panels = sorted(set(units.values()))
newest = frame["time"].max()
rcParams["date.converter"] = "concise"
figure = Figure(figsize=(9.0, 2.5 * len(panels)), layout="constrained")
rows_of_axes = figure.subplots(len(panels), sharex=True, squeeze=False)
for unit, axes in zip(panels, rows_of_axes[:, 0], strict=True):
    for name in sorted(name for name in units if units[name] == unit):
        own = frame[frame["pv"] == name]
        axes.step(own["time"], own["value"], where="post", label=name)  # a value holds until the next one
        alarmed = own[own["severity"] >= "MINOR"]
        axes.plot(alarmed["time"], alarmed["value"], "o", markersize=4, color="tab:red")
    axes.set_ylabel(unit or "no unit")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the plot
bottom = rows_of_axes[-1, 0]
bottom.set_xlim(newest - pd.Timedelta(seconds=options.seconds), newest)  # the first value of a PV may be days old
bottom.set_xlabel("EPICS time, UTC")
figure.suptitle(f"{len(units)} PVs for {options.seconds:g} s; red: in alarm")
figure.align_ylabels()
figure.savefig(options.file, dpi=120)
print(f"{len(frame)} updates of {len(units)} PVs in {options.file}")
