"""A fleet of gateways: each event once, a member that is killed, a rolling restart, and 10,000 PVs.

    python benchmarks/fleet.py [load kill rolling many] [--pvs 300] [--period .1] [--many 10000] [--json FILE]

An IOC counts in every PV ten times a second by default, `k2eg gateway` processes of one group publish them on Apache
Kafka, and a bare consumer reads what is in the topics: a step of a counter that is missing was lost, one that is there
again was published twice. A client of this project monitors the PVs on their own topics, another one on a topic that
they share; both get values meanwhile, and one has a recurring and a triggered snapshot.

    load     three members; events, gets and triggers are counted
    kill     one of three is killed: how long its PVs and those of the others were silent
    rolling  three new members replace three, one after the other
    many     many slow PVs in one topic: restart of one gateway, a second one that is added, memory
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gateway_processes import Process
from k2eg_rx import Client, Settings, SnapshotProperties, first
from k2eg_rx.embedded import SoftIoc, without_epics
from k2eg_rx.pv import monitor_topic
from measuring import apache_kafka, machine

TIMEOUT = 300.0
MEMBERS = 3
_AT_ONCE = 1000  # PVs in a command, topics in a request
_STEADY = 2.0  # seconds after the first PV has another owner; all of a killed one's have it by then
_MANY_PERIOD = 10.0  # seconds between two values of each of many PVs
_RECORD = """record(calc, "{name}") {{ field(SCAN, "{period} second") field(INPA, "{name}") field(CALC, "A+1") }}
"""


class Reader:
    """Reads the events in some topics, by topic and PV: the counter, when it arrived, and the owner's epoch."""

    def __init__(self, broker: str, topics: Sequence[str]) -> None:
        self.events: dict[tuple[str, str], list[tuple[int, float, str]]] = defaultdict(list)
        properties = {"bootstrap.servers": broker, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
        self._consumer = Consumer({**properties, "fetch.wait.max.ms": 20})
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in topics])
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            for message in self._consumer.consume(1000, 0.05):
                headers: dict[str, Any] = dict(message.headers() or ())
                if message.error() is None and "k2eg-ser-type" in headers and "k2eg-repeated" not in headers:
                    ((name, structure),) = msgpack.unpackb(message.value() or b"").items()
                    event = int(structure["value"]), time.monotonic(), headers.get("k2eg-epoch", b"").decode()
                    self.events[message.topic() or "", name].append(event)

    def counts(self) -> dict[str, float]:
        """Returns how many events there are, and how many are missing, there twice, or after a newer one."""
        numbers = [[number for number, _, _ in each] for each in list(self.events.values())]
        found = {"events": 0, "missing": 0, "twice": 0, "after a newer one": 0}
        for each in numbers:
            distinct = set(each)
            found["events"] += len(each)
            found["missing"] += max(distinct) - min(distinct) + 1 - len(distinct)
            found["twice"] += len(each) - len(distinct)
            found["after a newer one"] += sum(later < earlier for earlier, later in pairwise(each))
        return dict(found)

    def close(self) -> None:
        """Ends reading."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()


class Laboratory:
    """Broker, IOC and gateways of one scenario.

    Args:
        running: Ends what is started here.
        pvs: The number of PVs.
        period: Seconds between two values, a SCAN of EPICS.
    """

    def __init__(self, running: ExitStack, pvs: int, period: str) -> None:
        self._running = running
        self.mark = f"bench{uuid.uuid4().hex[:8]}"
        self.names = [f"{self.mark}:{number}" for number in range(pvs)]
        self.uris = [f"pva://{name}" for name in self.names]
        self.events_topic = f"{self.mark}-events"
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="k2eg-benchmark-")))
        (folder / "pvs.db").write_text("".join(_RECORD.format(name=name, period=period) for name in self.names))
        self.broker = running.enter_context(apache_kafka()).address
        self._ioc = running.enter_context(SoftIoc(folder / "pvs.db"))
        self._admin = AdminClient({"bootstrap.servers": self.broker})
        self.create([f"{self.mark}-commands"], 2 * MEMBERS)
        self.create([self.events_topic])

    def create(self, topics: Sequence[str], partitions: int = 1) -> None:
        """Creates topics."""
        for begin in range(0, len(topics), _AT_ONCE):
            wanted = [NewTopic(topic, partitions) for topic in topics[begin : begin + _AT_ONCE]]
            for created in self._admin.create_topics(wanted, operation_timeout=TIMEOUT).values():
                created.result(TIMEOUT)

    def gateway(self) -> Process:
        """Starts a gateway."""
        place = {"broker": self.broker, "commands": f"{self.mark}-commands"}
        return self._running.enter_context(Process("gateway", place, without_epics() | self._ioc.client_environment))

    def client(self, name: str, events_topic: str = "") -> Client:
        """Returns a client."""
        settings = Settings(
            "benchmark", self.broker, f"{self.mark}-commands", f"{name}-reply", events_topic=events_topic
        )
        return self._running.enter_context(Client("benchmark", name, settings=settings, timeout=TIMEOUT))

    def reader(self, topics: Sequence[str]) -> Reader:
        """Returns a reader of topics that exist."""
        return self._running.enter_context(closing(Reader(self.broker, topics)))


def wait_until(happened: Callable[[], bool], what: str) -> float:
    """Waits until a condition holds; returns the seconds."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > TIMEOUT:
            raise SystemExit(f"no {what} within {TIMEOUT:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def live(gateway: Process) -> int:
    """Returns the number of partitions that a gateway publishes."""
    return int(gateway.ask("numbers")["live"])


class Load:
    """Members that publish to clients and readers, with gets and snapshots."""

    def __init__(self, running: ExitStack, arguments: argparse.Namespace) -> None:
        self.site = Laboratory(running, arguments.pvs, arguments.period)
        self.topics = [monitor_topic(name) for name in self.site.names]
        self.site.create(self.topics)
        self.members = [self.site.gateway() for _ in range(MEMBERS)]
        self.own, self.shared = self.site.reader(self.topics), self.site.reader([self.site.events_topic])
        self.clients = [self.site.client("own"), self.site.client("shared", self.site.events_topic)]
        wait_until(lambda: all(live(member) for member in self.members), "partitions for each member")
        for client in self.clients:
            client.monitor_many_stream(self.site.uris, capacity=1_000_000).subscribe(lambda _: None)
        names = f"{self.site.mark}-recurring", f"{self.site.mark}-triggered"
        self.recurring, self.triggered = list[int](), list[int]()
        for name, numbers in zip(names, (self.recurring, self.triggered), strict=True):
            properties = SnapshotProperties(
                snapshot_name=name,
                pv_uri_list=self.site.uris[:10],
                time_window=200,
                triggered=numbers is self.triggered,
            )
            stream = self.clients[0].snapshot_recurring_stream(properties)
            stream.subscribe(lambda snapshot, numbers=numbers: numbers.append(snapshot.iteration))
        self.name = names[1]
        self.gets = self.triggers = 0
        wait_until(lambda: len(self.own.events) == arguments.pvs and bool(self.recurring), "values of all PVs")
        first(self.clients[0].snapshot_activation_stream(self.name))

    def work(self, seconds: float) -> None:
        """Gets values and triggers the snapshot for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for client in self.clients:
                first(client.get_stream(self.site.uris[self.gets % len(self.site.uris)]))
                self.gets += 1
            first(self.clients[1].snapshot_trigger_stream(self.name))
            self.triggers += 1
            time.sleep(0.1)

    def results(self) -> dict[str, float]:
        """Returns what is in the topics, and what was done."""
        time.sleep(2.0)
        numbers = [*self.recurring]
        return {
            **{f"own topics: {name}": count for name, count in self.own.counts().items()},
            **{f"shared topic: {name}": count for name, count in self.shared.counts().items()},
            "gets": self.gets,
            "triggers": self.triggers,
            "iterations of the triggered snapshot": len(self.triggered),
            "iterations of the recurring snapshot": len(numbers),
            "numbers that it left out": numbers[-1] - numbers[0] + 1 - len(set(numbers)),
            "numbers that are there twice": len(numbers) - len(set(numbers)),
        }


def load(arguments: argparse.Namespace) -> dict[str, float]:
    """Counts events of three members."""
    with ExitStack() as running:
        under = Load(running, arguments)
        under.work(arguments.seconds)
        return under.results()


def kill(arguments: argparse.Namespace) -> dict[str, float]:
    """Kills one of three members."""
    with ExitStack() as running:
        under = Load(running, arguments)
        under.work(3.0)
        before = {key: events[-1][2] for key, events in list(under.own.events.items())}
        os.kill(under.members[0].pid, signal.SIGKILL)
        killed = time.monotonic()

        def has_moved() -> bool:
            return any(under.own.events[key][-1][2] != epoch for key, epoch in before.items())

        def are_back() -> bool:
            return all(events[-1][1] > moved for events in list(under.own.events.values()))

        wait_until(has_moved, "event of another owner")
        moved = time.monotonic() + _STEADY
        wait_until(are_back, "events of all PVs")
        silent: dict[bool, list[float]] = {True: [], False: []}
        for key, epoch in before.items():
            events = [event for event in under.own.events[key] if event[1] > killed - 1.0]
            gaps = [later[1] - earlier[1] for earlier, later in pairwise(events)]
            silent[events[-1][2] != epoch].append(max(gaps, default=0.0))
        return {
            "PVs of the killed one": len(silent[True]),
            "silent, longest, s": max(silent[True], default=0.0),
            "the others silent, longest, s": max(silent[False], default=0.0),
            **under.results(),
        }


def rolling(arguments: argparse.Namespace) -> dict[str, float]:
    """Replaces three members, one after the other."""
    with ExitStack() as running:
        under = Load(running, arguments)
        for member in under.members:
            added = under.site.gateway()
            under.work(1.0)
            wait_until(lambda added=added: live(added) > 0, "partitions for the new member")
            under.work(2.0)
            member.__exit__(None, None, None)
            under.work(2.0)
        return under.results()


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def many(arguments: argparse.Namespace) -> dict[str, float]:
    """Many slow PVs: a restart, a second member, memory, and the size of the state topic."""
    with ExitStack() as running:
        site = Laboratory(running, arguments.many, f"{_MANY_PERIOD:g}")
        member = site.gateway()
        wait_until(lambda: live(member) > 0, "partitions")
        empty = _resident(member.pid)
        producer = Producer({"bootstrap.servers": site.broker})
        for begin in range(0, len(site.uris), _AT_ONCE):
            command = {
                "command": "multi-monitor",
                "activate": True,
                "uri_keys": True,
                "pv_name_list": site.uris[begin : begin + _AT_ONCE],
                "monitor_dest_topic": site.events_topic,
            }
            producer.produce(f"{site.mark}-commands", json.dumps(command).encode())
        producer.flush(TIMEOUT)

        def has_all(gateway: Process) -> bool:
            return int(gateway.ask("numbers")["pvs_connected"]) >= arguments.many

        wait_until(lambda: has_all(member), "values of all PVs")
        time.sleep(_MANY_PERIOD)
        full = _resident(member.pid)
        member.__exit__(None, None, None)
        began = time.monotonic()
        member = site.gateway()
        wait_until(lambda: has_all(member), "values of all PVs after a restart")
        restarted = time.monotonic() - began
        total, began = live(member), time.monotonic()
        added = site.gateway()
        started = time.monotonic() - began
        wait_until(lambda: live(added) >= total // 2, "half of the partitions for the second member")
        return {
            "PVs": arguments.many,
            "all are back after a restart, s": restarted,
            "a second member reads commands after, s": started,
            "it has half of the partitions after, s": time.monotonic() - began,
            "memory of a gateway without PVs, MB": empty,
            "memory of a gateway with all PVs, MB": full,
            "memory of a PV, kB": (full - empty) * 1024 / arguments.many,
        }


SCENARIOS = {"load": load, "kill": kill, "rolling": rolling, "many": many}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the scenarios and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], help="(default: all)")
    parser.add_argument("--pvs", type=int, default=300, help="100 or more share a topic (default %(default)s)")
    parser.add_argument(
        "--period",
        choices=(".1", ".2", ".5", "1"),
        default=".1",
        help="seconds between two values of a PV (default %(default)s)",
    )
    parser.add_argument("--many", type=int, default=10_000, help="slow PVs (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of counting (default %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures")
    given = parser.parse_args(arguments)
    figures: dict[str, Any] = {"machine": machine()}
    for name in given.scenarios or SCENARIOS:
        figures[name] = SCENARIOS[name](given)
        print(name)
        for what, figure in figures[name].items():
            print(f"    {what:44}{figure:>12,.1f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
