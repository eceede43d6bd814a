"""Many slow PVs: a topic for each of them, against one topic that they share.

    python benchmarks/shared_topic.py [--pvs 1000 5000] [--period 2] [--seconds 20] [--json FILE]

An IOC counts in every PV, one after the other or all at once as its scan threads do, a gateway publishes them, and a
client looks at the value of each event; all are processes of their own. A request to Kafka is a batch of records in the
log of the broker. Ratios are those of one run, each topic against the other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gateway_processes import Process
from k2eg_rx import Client, PVUpdate, Settings
from k2eg_rx.embedded import SoftIoc, without_epics
from measuring import apache_kafka, machine
from snapshots import Usage

TIMEOUT = 900.0
_RECORD = """record(calc, "{name}") {{ field(SCAN, "{period} second") field(INPA, "{name}") field(CALC, "A+1") }}
"""


def _run_client(settings: Settings, uris: Sequence[str], connection: Connection) -> None:
    """Runs in the client's process: reports when every PV has had a value; counts events until the end."""
    seen: set[str] = set()
    complete = threading.Event()
    events, values = 0, 0.0

    def look(update: PVUpdate) -> None:
        nonlocal events, values
        events += 1
        values += update.value
        if len(seen) < len(uris):
            seen.add(update.name)
            if len(seen) == len(uris):
                complete.set()

    with Client("benchmark", "many", settings=settings) as client:
        client.monitor_many_stream(uris).subscribe(look)
        connection.send(complete.wait(TIMEOUT))
        while connection.recv():
            connection.send(events)


def measure(pvs: int, arguments: argparse.Namespace, *, shared: bool) -> dict[str, float]:
    """Returns requests to Kafka and processor time per event, on a broker of its own."""
    mark = uuid.uuid4().hex[:8]
    names = [f"bench{mark}:{number}" for number in range(pvs)]
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="k2eg-benchmark-")))
        records = "".join(_RECORD.format(name=name, period=arguments.period) for name in names)
        (folder / "many.db").write_text(records)
        broker = running.enter_context(apache_kafka())
        ioc = running.enter_context(SoftIoc(folder / "many.db"))
        commands = f"bench{mark}-commands"
        place = {"broker": broker.address, "commands": commands}
        gateway = running.enter_context(Process("gateway", place, without_epics() | ioc.client_environment))
        topic = f"bench{mark}-events" if shared else ""
        settings = Settings("benchmark", broker.address, commands, f"bench{mark}-reply", events_topic=topic)
        connection, other = multiprocessing.get_context("spawn").Pipe()
        uris = [f"pva://{name}" for name in names]
        client = multiprocessing.get_context("spawn").Process(target=_run_client, args=(settings, uris, other))
        client.start()
        running.callback(client.join)
        running.callback(connection.send, False)
        if not connection.recv():
            raise SystemExit(f"not all of {pvs} PVs have values after {TIMEOUT:g} s")
        pattern = topic or f"bench{mark}_*"
        usages = {"client": Usage(client.pid or 0), "gateway": Usage(gateway.pid)}
        first, requests, began = _events(connection), broker.batches(pattern), time.monotonic()
        time.sleep(arguments.seconds)
        for usage in usages.values():
            usage.read()
        events, seconds = _events(connection) - first, time.monotonic() - began
        used = {f"{part} us": usage.result()["cores"] * seconds / events * 1e6 for part, usage in usages.items()}
        return {
            "events per second": events / seconds,
            "requests": (broker.batches(pattern) - requests) / events,
            **used,
        }


def _events(connection: Any) -> int:
    connection.send(True)
    events: int = connection.recv()
    return events


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pvs", type=int, nargs="+", default=[1000, 5000], help="(default 1000 5000)")
    parser.add_argument("--period", choices=("10", "5", "2", "1", ".5"), default="2", help="seconds (default 2)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of counting (default %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures")
    given = parser.parse_args(arguments)
    figures: dict[str, Any] = {"machine": machine()}
    print(f"{'PVs':>6}  {'per event':18}{'own topics':>12}{'shared':>12}{'ratio':>8}")
    for pvs in given.pvs:
        own, shared = (measure(pvs, given, shared=shared) for shared in (False, True))
        figures[str(pvs)] = {"own": own, "shared": shared}
        for name, figure in own.items():
            print(f"{pvs:>6}  {name:18}{figure:>12.3f}{shared[name]:>12.3f}{figure / shared[name]:>8.1f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
