"""A feedback loop: a corrector that keeps the beam where it belongs.

    k2eg demo                            # in one terminal
    python examples/feedback.py          # in another: tells what it would write
    python examples/feedback.py --write  # writes it

Averages the readings of a beam position monitor, works out by how much the corrector has to change to bring the beam to
the target, and sets the corrector to that: within its limits, and no more often than it may be. By default it is a dry
run. Without readings nothing is written, nor after an error.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import PutReport, Window, put_to, window_statistics


@dataclass(frozen=True, slots=True)
class Loop:
    """How a reading becomes a correction.

    Attributes:
        target: Where the beam belongs, mm.
        response: By how much the monitor moves for each ampere of the corrector, mm/A; to be measured beforehand.
        gain: The share of the distance that is corrected at once; small enough that noise is not followed.
    """

    target: float
    response: float
    gain: float

    def correction(self, reading: tuple[Window, PVUpdate]) -> float:
        """Returns the corrector's new current, A; NaN, which is never written, if no reading was usable."""
        positions, corrector = reading
        distance = self.target - float(positions.mean)  # INVALID readings are left out of the mean
        return float(corrector.value) + self.gain * distance / self.response


def corrections(
    positions: Observable[PVUpdate], correctors: Observable[PVUpdate], loop: Loop, readings: int
) -> Observable[float]:
    """Returns the corrector's new current each time so many readings have come."""
    return positions.pipe(
        window_statistics(count=readings),
        ops.with_latest_from(correctors),  # as it is now, whoever has set it
        ops.map(loop.correction),
    )


def line(entry: PutReport) -> str:
    """Returns what is shown of a decision."""
    value = "" if entry.value is None else f" {entry.value:.4f} A"
    return f"{entry.uri}: {entry.outcome}{value}" + (f" ({entry.error})" if entry.error else "")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--write", action="store_true", help="write; else it only tells what it would write")
    parser.add_argument("--monitor", default="pva://demo:bpm4")
    parser.add_argument("--corrector", default="pva://demo:setpoint1")
    parser.add_argument("--target", type=float, default=0.0, help="mm")
    parser.add_argument("--response", type=float, default=0.195, help="mm/A")
    parser.add_argument("--gain", type=float, default=0.3)
    parser.add_argument("--limits", type=float, nargs=2, default=(-5.0, 5.0), metavar=("LOW", "HIGH"), help="A")
    parser.add_argument("--rate", type=float, default=1.0, help="writes a second at most")
    parser.add_argument("--readings", type=int, default=10, help="how many to average")
    parser.add_argument("--count", type=int, default=30, help="how many corrections to make")
    options = parser.parse_args()
    low, high = options.limits
    dry_run = not options.write

    with Client(options.environment, "example-feedback") as client:
        wanted = corrections(
            client.monitor_stream(options.monitor),
            client.monitor_stream(options.corrector),
            Loop(options.target, options.response, options.gain),
            options.readings,
        )
        entries = wanted.pipe(
            put_to(client, options.corrector, limits=(low, high), rate=options.rate, dry_run=dry_run, timeout=2.0),
            ops.take(options.count),
            ops.map(line),
            ops.do_action(print),
        )
        first(entries.pipe(ops.count()))  # waits for the end, on this thread


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it; what was written stays
        main()
