"""Records PVs to a Parquet file and replays it at 60 times the speed.

    k2eg demo                                                  # in one terminal
    python examples/record_and_replay.py run.parquet           # in another
    python examples/record_and_replay.py run.parquet --replay  # replay again; needs no gateway

Records several PVs for an hour or until Ctrl-C. The replay goes through the same operators as a live stream would and
prints a line of statistics per PV and minute.
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
    """Records PVs until the time is over or Ctrl-C; when it returns, the file is complete."""
    print(f"recording {len(uris)} PVs for {seconds:g} s (Ctrl-C to stop)", flush=True)
    with Client(environment, "example-recorder") as client, suppress(KeyboardInterrupt):
        updates = client.monitor_many_stream(uris)
        recorded = updates.pipe(
            ops.take_until(rx.timer(seconds)),
            record(path, rotate_every=86_400),  # one file per day
        )
        number = first(recorded.pipe(ops.count()))  # waits for the end
        print(f"recorded {number} updates in {path}")


def statistics(updates: Observable[PVUpdate], seconds: float, counts: WindowCounts) -> Observable[str]:
    """Returns a stream with a line of statistics per PV and window of `seconds` of EPICS time."""
    return updates.pipe(window_statistics(seconds, counts=counts), ops.map(window_line))


def window_line(window: Window) -> str:
    """Returns the line for a window."""
    begin = time.strftime("%H:%M:%S", time.gmtime(window.start / 1e9))
    numbers = f"mean {window.mean:9.3f}   std {window.std:8.3f}   {window.min:9.3f} to {window.max:9.3f}"
    return f"{begin} {window.name:20} {numbers}   n {len(window)}"


def replay(path: Path, speed: float, seconds: float) -> None:
    """Replays a recording and prints its statistics."""
    print(f"replaying {path} at {speed:g} times the speed", flush=True)
    counts = WindowCounts()
    started = time.monotonic()
    lines = statistics(replay_file(path, speed=speed), seconds, counts).pipe(ops.do_action(print))
    first(lines.pipe(ops.count()))
    print(f"replayed {counts.received} updates in {time.monotonic() - started:.1f} s")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a new file; existing files are not overwritten")
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to record; can be repeated")
    parser.add_argument("--seconds", type=float, default=3600.0, help="duration")
    parser.add_argument("--replay", action="store_true", help="only replay an earlier recording")
    parser.add_argument("--speed", type=float, default=60.0, help="speed of the replay")
    parser.add_argument("--window", type=float, default=60.0, help="seconds per line of statistics")
    options = parser.parse_args()
    if not options.replay:
        record_pvs(options.environment, options.pv or DEFAULT_PVS, options.file, options.seconds)
    if options.replay or options.file.exists():
        replay(options.file, options.speed, options.window)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example
        main()
