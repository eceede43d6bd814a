"""Puts PVs onto a regular time grid for hours, and writes statistics of the last minutes to a table PV.

    k2eg demo                          # in one terminal
    python examples/resampled_table.py # in another; the first result comes after `--minutes`

A worker process runs a recurring snapshot that has every sample of the PVs, resamples it to 120 Hz, and keeps arrays of
the last five minutes. Every ten seconds it writes mean and standard deviation of each PV as an NTTable. This process
prints the worker's reports, and is free for other work. Ctrl-C ends both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from reactivex import operators as ops

from k2eg_rx import Client, ClientClosedError, SnapshotProperties, SnapshotType, first
from k2eg_rx.operators import ResampleCounts, Resampled, resample
from k2eg_rx.protocol import NTTable

DEFAULT_PVS = ["pva://demo:ramp100", "pva://demo:sine100", *(f"pva://demo:bpm{number}" for number in range(1, 21))]
LABELS = ["element", "device_name", "s", "length"]  # the columns of demo:table; give your own table better ones


def statistics(columns: dict[str, np.ndarray[Any, Any]]) -> NTTable:
    """Returns a table with a row for each PV: its name twice, mean and standard deviation; NaN without any value."""
    rows: list[list[Any]] = []
    for name, values in columns.items():
        known = values[~np.isnan(values)]
        rows.append([name, name, *((known.mean(), known.std()) if known.size else (np.nan, np.nan))])
    return NTTable(labels=LABELS, payload=rows)


def joined(grids: list[Resampled]) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the columns of consecutive grids as one array for each PV."""
    return {name: np.concatenate([grid.columns[name] for grid in grids]) for name in grids[0].columns}


def work(parent: Connection, options: argparse.Namespace, uris: list[str]) -> None:
    """Runs in the worker process until the parent closes its end of the connection."""
    properties = SnapshotProperties(
        snapshot_name=options.snapshot,
        pv_uri_list=uris,
        time_window=1000,
        sub_push_delay_msec=50,
        type=SnapshotType.TIMED_BUFFERED,
        pv_field_filter_list=["value", "timeStamp", "alarm"],
    )
    counts = ResampleCounts()

    def send(text: str, *, failed: bool = False) -> None:
        with suppress(BrokenPipeError):  # the parent has ended: so will this process
            parent.send((text, failed))

    with Client(options.environment, "example-resampled") as client:

        def report(grids: list[Resampled]) -> None:
            try:
                first(client.put_stream(options.table, statistics(joined(grids)), timeout=10.0))
            except ClientClosedError:
                return  # the process is about to end
            points = sum(map(len, grids))
            send(
                f"{points} points of {len(uris)} PVs; since the start {counts.points} points, {counts.filled} values"
                f" filled, {counts.missing} missing, {counts.dropped.total()} samples dropped"
            )

        rolling = client.snapshot_recurring_stream(properties).pipe(
            resample(options.rate, tolerance=options.tolerance, counts=counts),
            ops.buffer_with_count(round(options.minutes * 60), options.every),  # a grid is a second long
        )
        with rolling.subscribe(report, lambda error: send(str(error), failed=True)), suppress(EOFError):
            parent.recv()  # nothing is sent: it waits until the parent has closed its end, or was killed
        first(client.snapshot_stop_stream(options.snapshot))


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to resample; can be repeated")
    parser.add_argument("--snapshot", default="example-resampled", help="name of the recurring snapshot")
    parser.add_argument("--table", default="pva://demo:table", help="the NTTable to write")
    parser.add_argument("--rate", type=float, default=120.0, help="Hz of the grid")
    parser.add_argument("--tolerance", type=float, default=1.0, help="seconds that a value fills the points behind it")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the arrays")
    parser.add_argument("--every", type=int, default=10, help="seconds between two results")
    parser.add_argument("--results", type=int, default=0, help="number of results; 0 for no end")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # not fork: the libraries below have threads
    own, other = context.Pipe()
    worker = context.Process(target=work, args=(other, options, options.pv or DEFAULT_PVS))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker inherits it: Ctrl-C is for this process only
    worker.start()
    signal.signal(signal.SIGINT, handler)
    other.close()
    number = 0
    try:
        while not options.results or number < options.results:
            text, failed = own.recv()
            if failed:
                raise SystemExit(text)
            number += 1
            print(text, flush=True)
    except EOFError:
        raise SystemExit("the worker process has ended") from None
    finally:
        own.close()  # ends the worker
        worker.join()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
