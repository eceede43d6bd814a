"""A feedback loop: keeps the beam at a target position with a corrector magnet.

    k2eg demo                            # in one terminal
    python examples/feedback.py          # in another: prints what it would write
    python examples/feedback.py --write  # writes it
    python examples/feedback.py --write --permit pva://demo:mode  # while the mode is Beam

Averages readings of a beam position monitor, computes the corrector current that moves the beam towards the target, and
writes it, within limits and at a maximum rate. The default is a dry run. Without readings, and after an error, nothing
is written.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import LoopChange, PutReport, Window, put_to, window_statistics


@dataclass(frozen=True, slots=True)
class Loop:
    """Computes corrections from readings.

    Attributes:
        target: The beam's target position, mm.
        response: Change of the monitor's reading per ampere of the corrector, mm/A; measured beforehand.
        gain: Fraction of the distance that one correction removes; small values suppress noise.
    """

    target: float
    response: float
    gain: float

    def correction(self, reading: tuple[Window, PVUpdate]) -> float:
        """Returns the corrector's new current, A; NaN, which `put_to` never writes, without a valid reading."""
        positions, corrector = reading
        distance = self.target - float(positions.mean)  # without INVALID readings
        return float(corrector.value) + self.gain * distance / self.response


def corrections(
    positions: Observable[PVUpdate], correctors: Observable[PVUpdate], loop: Loop, readings: int
) -> Observable[float]:
    """Returns a stream of the corrector's new current, one per `readings` readings."""
    return positions.pipe(
        window_statistics(count=readings),
        ops.with_latest_from(correctors),  # the actual current, which operators may also set
        ops.map(loop.correction),
    )


def report_line(entry: PutReport) -> str:
    """Returns the line for a report."""
    value = "" if entry.value is None else f" {entry.value:.4f} A"
    return f"{entry.uri}: {entry.outcome}{value}" + (f" ({entry.error})" if entry.error else "")


def is_beam(mode: PVUpdate) -> bool:
    """Returns whether the mode permits writing."""
    return mode.label == "Beam"


def show_state(change: LoopChange) -> None:
    """Prints why the loop is open, or that it is closed."""
    print(f"loop {change.state}" + (f": {change.reason}" if change.reason else ""))


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--write", action="store_true", help="write; otherwise print what would be written")
    parser.add_argument("--monitor", default="pva://demo:bpm4")
    parser.add_argument("--corrector", default="pva://demo:setpoint1")
    parser.add_argument("--permit", help="the machine's mode; nothing is written unless it is Beam")
    parser.add_argument("--target", type=float, default=0.0, help="mm")
    parser.add_argument("--response", type=float, default=0.195, help="mm/A")
    parser.add_argument("--gain", type=float, default=0.3)
    parser.add_argument("--limits", type=float, nargs=2, default=(-5.0, 5.0), metavar=("LOW", "HIGH"), help="A")
    parser.add_argument("--rate", type=float, default=1.0, help="maximum number of writes per second")
    parser.add_argument("--readings", type=int, default=10, help="number of readings to average")
    parser.add_argument("--count", type=int, default=30, help="number of corrections")
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
        mode = client.monitor_stream(options.permit, connection=True) if options.permit else None
        entries = wanted.pipe(
            put_to(
                client,
                options.corrector,
                limits=(low, high),
                rate=options.rate,
                dry_run=dry_run,
                timeout=2.0,
                permit=mode,
                permit_when=is_beam if mode else None,
                on_state=show_state if mode else None,
            ),
            ops.take(options.count),
            ops.map(report_line),
            ops.do_action(print),
        )
        first(entries.pipe(ops.count()))  # waits for the end


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example; the corrector keeps its current
        main()
