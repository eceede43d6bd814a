"""Slow feedback: holds the beam at zero at a monitor with an orbit corrector, within limits, once a second.

    k2eg demo                                                     # in one terminal
    python examples/feedback.py                                   # in another: prints what it would write
    python examples/feedback.py --write                           # writes it
    python examples/feedback.py --write --permit pva://demo:mode  # while the mode is Beam

Without valid readings, while a PV is disconnected, and after an error, nothing is written.
"""

from __future__ import annotations

import argparse
from contextlib import suppress

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.operators import LoopChange, PutReport, Window, put_to, window_statistics

MONITOR, CORRECTOR = "pva://demo:bpm4", "pva://demo:corrector"
LIMITS = (-5.0, 5.0)  # A
MAX_STEP = 1.5  # A; a larger change is rather a fault of the readings
RESPONSE = 0.195  # mm/A, of the monitor to the corrector; measured beforehand
GAIN = 0.3  # the part of the distance that one correction removes; a small one suppresses noise


def correction(reading: tuple[Window, PVUpdate]) -> float:
    """Returns the corrector's new current, A; NaN, which `put_to` never writes, without a valid reading."""
    positions, corrector = reading
    return float(corrector.value) - GAIN * float(positions.mean) / RESPONSE


def is_beam(mode: PVUpdate) -> bool:
    """Returns whether the machine's mode permits writing."""
    return mode.label == "Beam"


def show_state(change: LoopChange) -> None:
    """Prints that the loop is closed, or why it is open."""
    print(f"loop {change.state} {change.reason}".rstrip())


def show(report: PutReport) -> None:
    """Prints what was written, or why not."""
    value = "" if report.value is None else f" {report.value:.4f} A"
    print(f"{report.uri}: {report.outcome}{value}" + (f" ({report.error})" if report.error else ""), flush=True)


def feedback(client: Client, *, write: bool, permit: str | None = None) -> Observable[PutReport]:
    """Returns a stream that writes a correction for every ten readings while it is subscribed."""
    return client.monitor_stream(MONITOR).pipe(
        window_statistics(count=10),
        ops.with_latest_from(client.monitor_stream(CORRECTOR)),  # its actual current, which operators may also set
        ops.map(correction),
        put_to(
            client,
            CORRECTOR,
            limits=LIMITS,
            max_step=MAX_STEP,
            rate=1.0,
            dry_run=not write,
            timeout=5.0,
            inputs=client.connection_stream([MONITOR, CORRECTOR]),
            permit=client.monitor_stream(permit, connection=True) if permit else None,
            permit_when=is_beam if permit else None,
            on_state=show_state,
        ),
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write; otherwise print what would be written")
    parser.add_argument("--permit", help="the PV of the machine's mode; nothing is written unless it is Beam")
    parser.add_argument("--count", type=int, default=30, help="number of corrections")
    options = parser.parse_args()
    with Client("demo", "example-feedback") as client:
        reports = feedback(client, write=options.write, permit=options.permit).pipe(ops.take(options.count))
        first(reports.pipe(ops.do_action(show), ops.last()))  # waits for the end


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example; the corrector keeps its current
        main()
