"""A recurring snapshot of many fast PVs for minutes: what is lost, what it costs, and whether memory stays flat.

    python benchmarks/snapshots.py [--minutes 10] [--pvs 175] [--rate 120] [--window 1000] [--push 50]
        [--kafka HOST:PORT] [--json FILE]

An IOC counts in every PV, the gateway acquires them in a timed-buffered snapshot with partial pushes and a field
filter, a client assembles the iterations, and a bare Kafka consumer reads the same topic. IOC, gateway and client are
processes. "Missing in the topic" are steps of the counters that EPICS or the gateway merged; "missing in snapshots" are
samples that are in the topic but not in the client's snapshots. "gateway's us per message" is the processor time of its
process by the messages that it passed to Kafka; it depends less on the machine's other work than rates do. The exit
code is 1 unless both are zero and the topic has at least 95 % of the samples per second that were asked for: below
that, a backlog grows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
from confluent_kafka import Consumer, TopicPartition

from gateway_processes import Process
from k2eg_rx import Client, Settings, Snapshot, SnapshotProperties, SnapshotType
from k2eg_rx.embedded import SoftIoc, without_epics
from measuring import kafka, machine

FIELDS = ["value", "timeStamp", "alarm"]
TIMEOUT = 60.0
_SAMPLING = 2.0  # seconds between readings of memory
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_DATA, _TAIL = 1, 2  # message types
_KEPT_UP = 0.95  # of the samples asked for; the ends of the run are cut to whole iterations
_DROPPED = ("dropped_updates", "dropped_samples", "dropped_records", "undelivered")  # of the metrics

# An IOC's scan rates end at 10 Hz: a record starts itself again after the rest of the period and posts an event.
_CLOCK = """
record(ai, "{p}time") {{ field(DTYP, "Soft Timestamp") }}
record(calcout, "{p}rest") {{ field(INPA, "{p}time PP") field(CALC, "(FLOOR(A*{rate})+1)/{rate}-A")
  field(OUT, "{p}tick.ODLY NPP") field(FLNK, "{p}tick") }}
record(calcout, "{p}tick") {{ field(INPA, "{p}tick") field(CALC, "A+1") field(ODLY, "0.005") field(PRIO, "HIGH")
  field(OEVT, "bench") field(OUT, "{p}rest.PROC CA") }}
record(calcout, "{p}start") {{ field(SCAN, "1 second") field(INPA, "{p}tick.PACT") field(CALC, "A=0")
  field(OOPT, "When Non-zero") field(OUT, "{p}rest.PROC PP") }}
"""
_COUNTER = """record(calc, "{name}") {{ field(SCAN, "Event") field(EVNT, "bench") field(PRIO, "HIGH")
  field(INPA, "{name}") field(CALC, "A+1") field(EGU, "mm") field(HOPR, "100") field(HIHI, "1e9") }}
"""


@dataclass
class Samples:
    """The samples of iterations, by their number, and the steps that are missing between samples of a PV."""

    by_iteration: Counter[int] = field(default_factory=Counter[int])
    missing: int = 0
    _last: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, iteration: int, pv: str, value: float) -> None:
        """Adds the next sample of a PV. A repeat of the last value, of a PV without a new one, is none."""
        step = int(value)
        last = self._last.get(pv)
        self._last[pv] = step
        if step != last:
            self.by_iteration[iteration] += 1
            self.missing += 0 if last is None else step - last - 1


class Usage:
    """Processor time and memory of a process, read every two seconds."""

    def __init__(self, pid: int) -> None:
        self._stat, self._statm = Path(f"/proc/{pid}/stat"), Path(f"/proc/{pid}/statm")
        self._began, self._cpu = time.monotonic(), self._seconds()
        self.memory: list[float] = []

    def _seconds(self) -> float:
        values = self._stat.read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / _TICKS

    def read(self) -> None:
        """Reads the resident memory in MiB."""
        self.memory.append(int(self._statm.read_text().split()[1]) * _PAGE / 2**20)

    def result(self) -> dict[str, float]:
        """Returns the load in cores, and the memory in MiB: in the first and the last tenth, and the most."""
        tenth = max(1, len(self.memory) // 10)
        return {
            "cores": (self._seconds() - self._cpu) / (time.monotonic() - self._began),
            "first_mib": statistics.median(self.memory[:tenth]),
            "last_mib": statistics.median(self.memory[-tenth:]),
            "most_mib": max(self.memory),
        }


def _run_client(settings: Settings, properties: SnapshotProperties, connection: Connection) -> None:
    """Runs in the client's process: assembles snapshots until the end is asked for, then sends the counts."""
    samples, incomplete = Samples(), [0]

    def add(snapshot: Snapshot) -> None:
        incomplete[0] += not snapshot.complete or snapshot.error != 0
        for pv, structures in snapshot.data.items():
            for structure in structures:
                samples.add(snapshot.iteration, pv, structure["value"])
        if len(samples.by_iteration) == 1:
            connection.send("running")

    with Client("benchmark", "snapshots", settings=settings) as client:
        subscription = client.snapshot_recurring_stream(properties).subscribe(add)
        connection.recv()
        subscription.dispose()
    connection.send((dict(samples.by_iteration), samples.missing, incomplete[0]))


class Reader:
    """The bare consumer: reads the snapshot's topic from its beginning, on a thread."""

    def __init__(self, broker: str, topic: str) -> None:
        self.samples = Samples()
        self.tails: dict[int, int] = {}  # time stamps in milliseconds, by iteration
        self._consumer = Consumer({"bootstrap.servers": broker, "group.id": "bare", "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for record in self._consumer.consume(2000, 0.2):
                if record.error() is None:
                    self._add(msgpack.unpackb(record.value()))

    def _add(self, message: dict[str, Any]) -> None:
        iteration = message["iter_index"]
        if message["message_type"] == _TAIL:
            self.tails[iteration] = message["timestamp"]
        elif message["message_type"] == _DATA:
            pv, structure = next((name, value) for name, value in message.items() if isinstance(value, dict))
            self.samples.add(iteration, pv, structure["value"])

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()


def measure(broker: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the snapshot and returns the figures."""
    mark = uuid.uuid4().hex[:8]
    prefix, commands, name = f"bench{mark}:", f"bench{mark}-commands", f"bench{mark}"
    pvs = [f"{prefix}pv{number}" for number in range(arguments.pvs)]
    properties = SnapshotProperties(
        name,
        [f"pva://{pv}" for pv in pvs],
        time_window=arguments.window,
        sub_push_delay_msec=arguments.push,
        type=SnapshotType.TIMED_BUFFERED,
        pv_field_filter_list=FIELDS,
    )
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="k2eg-benchmark-")))
        (folder / "fast.db").write_text(
            _CLOCK.format(p=prefix, rate=arguments.rate) + "".join(_COUNTER.format(name=pv) for pv in pvs)
        )
        ioc = running.enter_context(SoftIoc(folder / "fast.db"))
        variables = without_epics() | ioc.client_environment
        gateway = running.enter_context(Process("gateway", {"broker": broker, "commands": commands}, variables))
        settings = Settings("benchmark", broker, commands, f"{name}-reply", {})
        connection, other = multiprocessing.get_context("spawn").Pipe()
        client = multiprocessing.get_context("spawn").Process(target=_run_client, args=(settings, properties, other))
        client.start()
        running.callback(client.kill)
        if not connection.poll(TIMEOUT):
            raise SystemExit("the first iteration does not come")
        connection.recv()
        reader = Reader(broker, name)
        running.callback(reader.close)
        begin = gateway.ask("numbers")
        usages = {"gateway": Usage(gateway.pid), "client": Usage(client.pid or 0), "ioc": Usage(ioc.pid or 0)}
        for _ in _seconds(arguments.minutes * 60):
            for usage in usages.values():
                usage.read()
        used = {part: usage.result() for part, usage in usages.items()}
        end = gateway.ask("numbers")
        connection.send("end")
        if not connection.poll(TIMEOUT):
            raise SystemExit("the client does not end")
        by_iteration, _, incomplete = connection.recv()
        figures = _figures(reader, by_iteration, incomplete, used=used, numbers=end, arguments=arguments)
        published = end["published"] - begin["published"]
        return {**figures, "gateway's us per message": (end["cpu"] - begin["cpu"]) / max(1, published) * 1e6}


def _seconds(duration: float) -> Iterator[None]:
    end = time.monotonic() + duration
    while time.monotonic() < end:
        yield
        time.sleep(_SAMPLING)


def _figures(
    reader: Reader,
    by_iteration: Mapping[int, int],
    incomplete: int,
    *,
    used: Mapping[str, Mapping[str, float]],
    numbers: Mapping[str, float],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT
    last = max(by_iteration)
    while last not in reader.tails and time.monotonic() < deadline:
        time.sleep(0.2)
    both = sorted(set(by_iteration) & set(reader.tails))
    in_topic = sum(reader.samples.by_iteration[iteration] for iteration in both)
    seconds = max(1, reader.tails[both[-1]] - reader.tails[both[0]]) / 1000
    in_snapshots = sum(by_iteration[iteration] for iteration in both)
    return {
        "machine": machine(),
        "asked": arguments.pvs * arguments.rate,
        "iterations": len(both),
        "iterations without snapshot": both[-1] - both[0] + 1 - len(both),
        "samples per second": (in_topic - reader.samples.by_iteration[both[0]]) / seconds,
        "samples in the topic": in_topic,
        "missing in the topic": reader.samples.missing,
        "missing in snapshots": in_topic - in_snapshots,
        "incomplete snapshots": incomplete,
        "dropped by the gateway": sum(numbers[name] for name in _DROPPED),
        "used": used,
    }


def _print(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(f"{name:32}{value:>14,.0f}")
    for part, used in figures["used"].items():
        print(
            f"{part:10}{used['cores'] * 100:>6.0f} % of a core, memory {used['first_mib']:.0f} MiB at first,"
            f" {used['last_mib']:.0f} at last, {used['most_mib']:.0f} at most"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default %(default)s)")
    parser.add_argument("--pvs", type=int, default=175, help="(default %(default)s)")
    parser.add_argument("--rate", type=int, default=120, help="updates a second of each PV (default %(default)s)")
    parser.add_argument("--window", type=int, default=1000, help="milliseconds of an iteration (default %(default)s)")
    parser.add_argument("--push", type=int, default=50, help="milliseconds between pushes (default %(default)s)")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a running broker instead of one of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures")
    given = parser.parse_args(arguments)
    with kafka(given.kafka) as broker:
        figures = measure(broker, given)
    _print(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    lost = ("iterations without snapshot", "missing in the topic", "missing in snapshots", "incomplete snapshots")
    kept_up = figures["samples per second"] >= _KEPT_UP * figures["asked"]
    sys.exit(0 if kept_up and not any(figures[name] for name in lost) else 1)


if __name__ == "__main__":
    main()
