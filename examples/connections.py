"""Prints which PVs are not connected, and each loss and return with the time that it took.

    k2eg demo                       # in one terminal
    python examples/connections.py  # in another

A PV that disconnects sends nothing: its last value looks current for ever. The gateway publishes its connection beside
its values, so a program needs no time-out to see the difference.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from datetime import UTC, datetime

from reactivex import operators as ops

from k2eg_rx import Client, ConnectionEvent, PVState, first

DEFAULT_PVS = ["pva://demo:sine1", "ca://demo:sum", "pva://demo:missing"]


def line(event: ConnectionEvent, before: ConnectionEvent | None) -> str:
    """Returns the line of a change: the state, since when, where or why, and how long the state before has lasted."""
    since = datetime.fromtimestamp(event.since / 1e9, UTC)
    where = event.host if event.is_connected else event.reason
    lasted = "" if before is None else f", {before.state.value} for {(event.since - before.since) / 1e9:.1f} s before"
    return f"{since:%H:%M:%S} {event.uri:24} {event.state.value:16} {where}{lasted}".rstrip()


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV to watch; can be repeated")
    parser.add_argument("--count", type=int, default=1_000_000, help="number of changes")
    options = parser.parse_args()
    uris = options.pv or DEFAULT_PVS
    known: dict[str, ConnectionEvent] = {}

    def is_change(event: ConnectionEvent) -> bool:
        return event.uri not in known or known[event.uri].state is not event.state

    def show(event: ConnectionEvent) -> None:
        print(line(event, known.get(event.uri)), flush=True)
        known[event.uri] = event

    with Client(options.environment, "example-connections") as client:
        changes = client.connection_stream(uris).pipe(ops.filter(is_change), ops.take(options.count))
        first(changes.pipe(ops.do_action(show), ops.last()))  # waits for the end
    missing = [uri for uri in uris if uri not in known or known[uri].state is not PVState.CONNECTED]
    print(f"{len(uris) - len(missing)} of {len(uris)} connected; not connected: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example
        main()
