"""Writes a recurring snapshot to a CSV file, a line per iteration.

k2eg demo                                     # in one terminal
python examples/snapshot_to_csv.py orbit.csv  # in another
"""

from __future__ import annotations

import argparse
import csv
from datetime import UTC, datetime
from pathlib import Path

from reactivex import operators as ops

from k2eg_rx import Client, Snapshot, SnapshotProperties, first

DEFAULT_PVS = ["pva://demo:sine1", "pva://demo:sine10", "ca://demo:sum"]


def row(snapshot: Snapshot) -> list[object]:
    """Returns a line: time, iteration, and the newest value of each PV, empty for a PV without value."""
    time = datetime.fromtimestamp(snapshot.timestamp / 1e9, UTC).isoformat(timespec="milliseconds")
    values = [samples[-1]["value"] if samples else "" for samples in snapshot.data.values()]
    return [time, snapshot.iteration, *values]


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to acquire; can be repeated")
    parser.add_argument("--every", type=int, default=500, help="milliseconds between two lines")
    parser.add_argument("--lines", type=int, default=10)
    options = parser.parse_args()
    uris: list[str] = options.pv or DEFAULT_PVS
    properties = SnapshotProperties(snapshot_name="example-csv", pv_uri_list=uris, time_window=options.every)
    with Client(options.environment, "example-csv") as client, options.file.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "iteration", *uris])
        rows = client.snapshot_recurring_stream(properties).pipe(ops.take(options.lines), ops.map(row))
        try:
            first(
                rows.pipe(ops.do_action(writer.writerow), ops.last())
            )  # waits for the end; raises an error of the stream
        finally:
            first(client.snapshot_stop_stream(properties.snapshot_name))
    print(f"{options.lines} lines in {options.file}")


if __name__ == "__main__":
    main()
