"""Prints a digest of alarms every few seconds: PVs, number of alarms, duration, worst severity.

    k2eg demo                        # in one terminal
    python examples/alarm_digest.py  # in another

This suits PVs whose alarms change faster than a person can read, such as beam loss monitors. Durations are computed
from EPICS times, so a late update does not change them. An alarm that lasts from one digest to the next is listed in
both; its seconds count in the digest in which its severity changes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Severity, first
from k2eg_rx.operators import AlarmTransition, alarms

DEFAULT_PVS = ["pva://demo:temperature", "pva://demo:sum", *(f"ca://demo:bpm{number}" for number in range(1, 7))]


@dataclass(frozen=True, slots=True)
class Digest:
    """The transitions of a period, and for each PV in alarm at its end the last transition."""

    transitions: Sequence[AlarmTransition] = ()
    standing: Mapping[str, AlarmTransition] = field(default_factory=dict[str, AlarmTransition])


def digests(updates: Observable[PVUpdate], minimum: Severity, every: float) -> Observable[Digest]:
    """Returns a stream with a digest every `every` seconds, also of periods without alarms."""

    def accumulate(previous: Digest, transitions: Sequence[AlarmTransition]) -> Digest:
        newest = {**previous.standing, **{transition.name: transition for transition in transitions}}
        standing = {name: last for name, last in newest.items() if last.current >= minimum}
        return Digest(transitions, standing)

    return updates.pipe(alarms(minimum), ops.buffer_with_time(every), ops.scan(accumulate, Digest()))


def pv_line(name: str, digest: Digest, minimum: Severity) -> str:
    """Returns a PV's line: alarms raised, seconds in alarm, worst and current severity."""
    own = [transition for transition in digest.transitions if transition.name == name]
    # before a PV's first update its severity and duration are unknown: seconds is NaN
    known = [transition for transition in own if not math.isnan(transition.seconds)]
    ended = [transition for transition in known if transition.previous >= minimum]
    raised = sum(transition.current >= minimum for transition in own if transition not in ended)
    seconds = math.fsum(transition.seconds for transition in ended)
    severities = [transition.previous for transition in known] + [transition.current for transition in own]
    last = digest.standing.get(name)
    severities += [last.current] if last else []
    now = f"{last.current.name} since {format_time(last)}" if last else "over"
    worst = Severity(max(severities))
    return f"  {name:20} raised {raised:3}   in alarm {seconds:6.1f} s   worst {worst.name:8}   {now}"


def format_time(transition: AlarmTransition) -> str:
    """Returns the EPICS time of a transition, UTC."""
    if transition.timestamp is None:
        return "an unknown time"
    return f"{datetime.fromtimestamp(transition.timestamp / 1e9, UTC):%H:%M:%S}"


def digest_text(digest: Digest, minimum: Severity) -> str:
    """Returns the lines of a digest."""
    names = sorted({transition.name for transition in digest.transitions} | set(digest.standing))
    lines = [pv_line(name, digest, minimum) for name in names] or ["  no alarms"]
    return "\n".join([f"{datetime.now(UTC):%H:%M:%S} UTC, {len(digest.standing)} in alarm", *lines])


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to watch; can be repeated")
    parser.add_argument("--minimum", default="MINOR", choices=["MINOR", "MAJOR", "INVALID"])
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two digests")
    parser.add_argument("--count", type=int, default=6, help="number of digests")
    options = parser.parse_args()
    minimum = Severity[options.minimum]

    def show(digest: Digest) -> None:
        print(digest_text(digest, minimum), flush=True)

    with Client(options.environment, "example-alarms") as client:
        updates = client.monitor_many_stream(options.pv or DEFAULT_PVS)
        shown = digests(updates, minimum, options.every).pipe(ops.take(options.count))
        first(shown.pipe(ops.do_action(show), ops.last()))  # waits for the end


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example
        main()
