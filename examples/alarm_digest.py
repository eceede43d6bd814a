"""A digest of alarms: every few seconds, which PVs were in alarm, how often, for how long, and how badly.

    k2eg demo                        # in one terminal
    python examples/alarm_digest.py  # in another

For PVs that go in and out of alarm faster than anybody can read, as beam loss monitors do. The times are EPICS times,
so that they tell how long an alarm lasted where it was raised, however late its end came here. An alarm that goes on
from one digest to the next is told in both; its seconds count in the one in which its severity changes.
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
    """What happened in a period: its transitions, and by PV the one that led to the alarm it is in at the end."""

    transitions: Sequence[AlarmTransition] = ()
    standing: Mapping[str, AlarmTransition] = field(default_factory=dict[str, AlarmTransition])


def digests(updates: Observable[PVUpdate], minimum: Severity, every: float) -> Observable[Digest]:
    """Returns a digest every so many seconds, also when nothing happened."""

    def following(before: Digest, transitions: Sequence[AlarmTransition]) -> Digest:
        newest = {**before.standing, **{transition.name: transition for transition in transitions}}
        standing = {name: last for name, last in newest.items() if last.current >= minimum}
        return Digest(transitions, standing)

    return updates.pipe(alarms(minimum), ops.buffer_with_time(every), ops.scan(following, Digest()))


def of_pv(name: str, digest: Digest, minimum: Severity) -> str:
    """Returns the line of a PV: alarms raised, seconds in alarm, the worst severity, and the one it is in."""
    own = [transition for transition in digest.transitions if transition.name == name]
    # of a PV's first update it is not known what was before, nor for how long: its seconds are NaN
    known = [transition for transition in own if not math.isnan(transition.seconds)]
    ended = [transition for transition in known if transition.previous >= minimum]
    raised = sum(transition.current >= minimum for transition in own if transition not in ended)
    seconds = math.fsum(transition.seconds for transition in ended)
    severities = [transition.previous for transition in known] + [transition.current for transition in own]
    last = digest.standing.get(name)
    severities += [last.current] if last else []
    now = f"{last.current.name} since {time_of(last)}" if last else "over"
    worst = Severity(max(severities))
    return f"  {name:20} raised {raised:3}   in alarm {seconds:6.1f} s   worst {worst.name:8}   {now}"


def time_of(transition: AlarmTransition) -> str:
    """Returns when a transition was, UTC, by the clock of the IOC."""
    if transition.timestamp is None:
        return "an unknown time"
    return f"{datetime.fromtimestamp(transition.timestamp / 1e9, UTC):%H:%M:%S}"


def text(digest: Digest, minimum: Severity) -> str:
    """Returns the digest as it is shown."""
    names = sorted({transition.name for transition in digest.transitions} | set(digest.standing))
    lines = [of_pv(name, digest, minimum) for name in names] or ["  no alarms"]
    return "\n".join([f"{datetime.now(UTC):%H:%M:%S} UTC, {len(digest.standing)} in alarm", *lines])


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to watch; may be given more than once")
    parser.add_argument("--minimum", default="MINOR", choices=["MINOR", "MAJOR", "INVALID"])
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two digests")
    parser.add_argument("--count", type=int, default=6, help="how many digests")
    options = parser.parse_args()
    minimum = Severity[options.minimum]

    with Client(options.environment, "example-alarms") as client:
        updates = client.monitor_many_stream(options.pv or DEFAULT_PVS)
        shown = digests(updates, minimum, options.every).pipe(
            ops.take(options.count),
            ops.do_action(lambda digest: print(text(digest, minimum), flush=True)),
        )
        first(shown.pipe(ops.count()))  # waits for the end, on this thread


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        main()
