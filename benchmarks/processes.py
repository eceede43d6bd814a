"""A gateway of one process against one of several: events and gets, per second and per core of its processes.

    python benchmarks/processes.py [--processes 1 2] [--pvs 1000] [--seconds 10] [--json FILE]

An IOC counts in every PV ten times a second, `k2eg gateway --processes N` publishes them to a shared topic on Apache
Kafka, and a bare consumer counts the events there; then a client asks for values, a hundred gets under way. IOC,
gateway and broker are processes that share the machine's cores with this one: a machine of two cores is full before two
gateways are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx import Client, load_settings
from k2eg_rx.embedded import SoftIoc, without_epics
from measuring import apache_kafka, machine
from snapshots import Usage

TIMEOUT = 300.0
IN_FLIGHT = 100
_PARTITIONS = 12
_RECORD = """record(calc, "{name}") {{ field(SCAN, ".1 second") field(INPA, "{name}") field(CALC, "A+1") }}
"""


@contextmanager
def gateway(folder: Path, processes: int, variables: dict[str, str]) -> Iterator[list[int]]:
    """Runs ``k2eg gateway`` in the environment ``site``; yields the ids of its processes."""
    words = ["-m", "k2eg.cli", "-e", "site", "gateway", "--processes", str(processes)]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([sys.executable, *words], env=variables, stderr=log)
    try:
        while (folder / "log").read_bytes().count(b"gateway started") < processes:
            if running.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.1)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        yield [int(pid) for pid in children[-processes:]] if processes > 1 else [running.pid]
    finally:
        running.terminate()
        running.wait()


def _events(broker: str, topic: str, seconds: float) -> int:
    """Returns the number of events that arrive in a topic within some seconds."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex, "auto.offset.reset": "latest"})
    consumer.subscribe([topic])
    while not consumer.consume(1, 1.0):
        pass
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        count += len(consumer.consume(1000, 0.1))
    consumer.close()
    return count


def _gets(client: Client, uris: Sequence[str], seconds: float) -> int:
    """Returns the number of gets that are answered within some seconds, a hundred under way."""
    done, stop, free = [0], threading.Event(), threading.Semaphore(IN_FLIGHT)

    def answered(_: object) -> None:
        done[0] += not stop.is_set()
        free.release()

    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        free.acquire()
        number += 1
        client.get_stream(uris[number % len(uris)], TIMEOUT).subscribe(answered, answered)
    stop.set()
    return done[0]


def measure(processes: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns the figures of a gateway, on a broker of its own."""
    mark = uuid.uuid4().hex[:8]
    names = [f"bench{mark}:{number}" for number in range(arguments.pvs)]
    uris = [f"pva://{name}" for name in names]
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="k2eg-benchmark-")))
        (folder / "many.db").write_text("".join(_RECORD.format(name=name) for name in names))
        broker = running.enter_context(apache_kafka()).address
        events = f"bench{mark}-events"
        topics = [NewTopic(f"bench{mark}-commands", _PARTITIONS), NewTopic(events, _PARTITIONS)]
        admin = AdminClient({"bootstrap.servers": broker})
        for created in admin.create_topics(topics).values():
            created.result(TIMEOUT)
        (folder / "site.ini").write_text(
            f"[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic=bench{mark}-commands\nevents_topic={events}\n"
            f"[gateway]\ngroup=bench{mark}\n"
        )
        ioc = running.enter_context(SoftIoc(folder / "many.db"))
        variables = without_epics(os.environ) | ioc.client_environment
        variables["K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"] = str(folder)
        pids = running.enter_context(gateway(folder, processes, variables))
        client = running.enter_context(
            Client("site", "bench", settings=load_settings("site", "bench", folder), timeout=60.0)
        )
        monitors = client.monitor_many_stream(uris, overflow="latest").subscribe(lambda _: None)
        client.values_ready_stream(uris, TIMEOUT).run()
        monitors.dispose()  # the gateway goes on: the client is there
        figures: dict[str, float] = {}
        for name, count in (
            ("events", lambda: _events(broker, events, arguments.seconds)),
            ("gets", lambda: _gets(client, uris, arguments.seconds)),
        ):
            usages = [Usage(pid) for pid in pids]
            began, number = time.monotonic(), count()
            seconds = time.monotonic() - began
            for usage in usages:
                usage.read()
            cores = sum(usage.result()["cores"] for usage in usages)
            figures |= {
                f"{name}/s": number / seconds,
                f"{name}/s/core": number / seconds / cores,
                f"{name}: cores": cores,
            }
        return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="(default 1 2)")
    parser.add_argument("--pvs", type=int, default=1000, help="(default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of counting (default %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures")
    given = parser.parse_args(arguments)
    found: dict[str, Any] = {str(processes): measure(processes, given) for processes in given.processes}
    print(f"{'processes':18}" + "".join(f"{name:>12}" for name in found))
    for name in next(iter(found.values())):
        print(f"{name:18}" + "".join(f"{figures[name]:>12,.2f}" for figures in found.values()))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
