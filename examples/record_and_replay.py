"""An hour on disk, and played back in a minute.

    k2eg demo                                                  # in one terminal
    python examples/record_and_replay.py run.parquet           # in another
    python examples/record_and_replay.py run.parquet --replay  # once more; this needs no gateway

Records the updates of several PVs to a Parquet file, for an hour or until Ctrl-C. Then plays the file at 60 times the
speed through the same analysis that a live stream would go through: for each PV and minute a line of statistics.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import Window, WindowCounts, window_statistics
from k2eg_rx.recording import record, replay_file

DEFAULT_PVS = ["pva://demo:temperature", "pva://demo:sine10", "ca://demo:bpm1"]


def record_pvs(environment: str, uris: Sequence[str], path: Path, seconds: float) -> None:
    """Records PVs for some time. When it returns, or Ctrl-C was pressed, the file is complete and on the disk."""
    print(f"recording {len(uris)} PVs for {seconds:g} s (Ctrl-C ends it early)", flush=True)
    with Client(environment, "example-recorder") as client, suppress(KeyboardInterrupt):
        updates = client.monitor_many_stream(uris)
        recorded = updates.pipe(
            ops.take_until(rx.timer(seconds)),
            record(path, rotate_every=86_400),  # a file a day, of what is recorded for longer
        )
        number = first(recorded.pipe(ops.count()))  # waits for the end, on this thread
        print(f"recorded {number} updates in {path}")


def analysed(updates: Observable[PVUpdate], seconds: float, counts: WindowCounts) -> Observable[str]:
    """Returns a line of statistics for each PV and so many seconds of its EPICS time."""
    return updates.pipe(window_statistics(seconds, counts=counts), ops.map(line))


def line(of: Window) -> str:
    """Returns what is shown of a window."""
    begin = time.strftime("%H:%M:%S", time.gmtime(of.start / 1e9))
    return (
        f"{begin} {of.name:20} mean {of.mean:9.3f}   std {of.std:8.3f}   {of.min:9.3f} to {of.max:9.3f}   n {len(of)}"
    )


def replay(path: Path, speed: float, seconds: float) -> None:
    """Plays a recording, and prints its statistics as they come."""
    print(f"replaying {path} at {speed:g} times the speed", flush=True)
    counts = WindowCounts()
    began = time.monotonic()
    lines = analysed(replay_file(path, speed=speed), seconds, counts).pipe(ops.do_action(print))
    first(lines.pipe(ops.count()))
    print(f"replayed {counts.received} updates in {time.monotonic() - began:.1f} s")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a name that is not taken; nothing is overwritten")
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to record; may be given more than once")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long to record")
    parser.add_argument("--replay", action="store_true", help="only play what was recorded before")
    parser.add_argument("--speed", type=float, default=60.0, help="of the replay")
    parser.add_argument("--window", type=float, default=60.0, help="seconds of a line of statistics")
    options = parser.parse_args()
    if not options.replay:
        record_pvs(options.environment, options.pv or DEFAULT_PVS, options.file, options.seconds)
    if options.replay or options.file.exists():
        replay(options.file, options.speed, options.window)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        main()
