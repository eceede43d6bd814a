"""Archives many PVs to Parquet files, a file a day, and goes on where it has ended, also after a kill.

    k2eg demo                                 # in one terminal
    python examples/archiver.py pvs.txt data  # in another

The first file names the PVs, one a line. A line about the archive and the connection is printed every ten seconds. It
needs the extra ``recording``.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Status, first
from k2eg_rx.operators import shared_scheduler
from k2eg_rx.recording import positions, record

DAY = 86_400.0  # seconds


def archive(client: Client, uris: list[str], folder: Path) -> Observable[int]:
    """Returns a stream that records while it is subscribed, and emits the number of updates so far."""
    path = folder / "archive.parquet"

    def add(count: int, _: PVUpdate) -> int:
        return count + 1

    updates = client.monitor_many_stream(uris, since=positions(path))
    return updates.pipe(record(path, rotate_every=DAY, resume=True), ops.scan(add, 0))


def show_status(status: Status) -> None:
    """Prints what keeps the archive from being complete."""
    if status.reason or status.disconnected:
        print(f"{status.connection.value} {status.reason} {len(status.disconnected)} PVs disconnected", flush=True)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pvs", type=Path, help="a file with URIs, one a line")
    parser.add_argument("folder", type=Path, help="where the Parquet files are; it is created")
    parser.add_argument("--every", type=float, default=10.0, help="seconds from line to line")
    options = parser.parse_args()
    uris: list[str] = options.pvs.read_text().split()
    options.folder.mkdir(parents=True, exist_ok=True)

    def show(count: int) -> None:
        with suppress(FileNotFoundError):  # a part that has just become a Parquet file
            size = sum(file.stat().st_size for file in options.folder.iterdir())
            print(f"{count} updates of {len(uris)} PVs, {size / 1e6:.1f} MB, lag {client.status.lag}", flush=True)

    with Client("demo", "example-archiver") as client:
        client.status_stream().subscribe(show_status)
        counts = archive(client, uris, options.folder).pipe(ops.sample(options.every, shared_scheduler()))
        first(counts.pipe(ops.do_action(show), ops.last()))  # for ever, or until an error


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the archiver; its files are complete
        main()
