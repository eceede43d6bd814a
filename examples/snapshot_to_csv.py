"""A recurring snapshot, an iteration a line, into a CSV file.

k2eg demo                                    # in one terminal
python examples/snapshot_to_csv.py orbit.csv  # in another
"""

from __future__ import annotations

import argparse
import csv
import threading
from datetime import UTC, datetime
from pathlib import Path

from reactivex import operators as ops

from k2eg_rx import Client, Snapshot, SnapshotProperties, first

DEFAULT_PVS = ["pva://demo:sine1", "pva://demo:sine10", "ca://demo:sum"]


def row(snapshot: Snapshot) -> list[object]:
    """Returns a line: the time, the iteration, and of each PV the newest value, or nothing where there was none."""
    time = datetime.fromtimestamp(snapshot.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    values = [samples[-1]["value"] if samples else "" for samples in snapshot.data.values()]
    return [time, snapshot.iteration, *values]


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to acquire; may be given more than once")
    parser.add_argument("--every", type=int, default=500, help="milliseconds between two lines")
    parser.add_argument("--lines", type=int, default=10)
    options = parser.parse_args()
    uris: list[str] = options.pv or DEFAULT_PVS
    over = threading.Event()
    errors: list[Exception] = []

    def failed(error: Exception) -> None:
        errors.append(error)
        over.set()

    properties = SnapshotProperties(snapshot_name="example-csv", pv_uri_list=uris, time_window=options.every)
    with Client(options.environment, "example-csv") as client, options.file.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "iteration", *uris])
        snapshots = client.snapshot_recurring_stream(properties).pipe(ops.take(options.lines))
        snapshots.subscribe(lambda snapshot: writer.writerow(row(snapshot)), failed, over.set)
        over.wait()
        first(client.snapshot_stop_stream(properties.snapshot_name))
    if errors:
        raise SystemExit(f"failed: {errors[0]}")
    print(f"{options.lines} lines in {options.file}")


if __name__ == "__main__":
    main()
