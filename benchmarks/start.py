"""Time from the construction of a client until 2,000 PVs have their first event.

    python benchmarks/start.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

The gateway serves a PVAccess server that posts nothing, so a first event is a PV's initial value. One row is for topics
that exist; one for topics that the gateway creates first, compared with an administration client that creates as many
topics and waits until they can be written to.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from gateway_processes import Process
from k2eg_rx import Client, PVUpdate, Settings
from k2eg_rx.embedded import ServerPorts, without_epics
from k2eg_rx.pv import monitor_topic
from measuring import Row, run
from responder import PARTITIONS

PVS = 2000
_AT_ONCE = 500  # topics per request; Kafka accepts 10,000 metadata records
_TIMEOUT = 120.0
_POLL_SECONDS = 0.1  # between two queries of the cluster


class Topics:
    """Creates and deletes the topics of a round's PVs."""

    def __init__(self, broker: str, names: Sequence[str]) -> None:
        self._admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
        self._names = names

    def make(self) -> float:
        """Creates the topics; returns the seconds until each partition can be written to."""
        since = time.perf_counter()
        for some in self._portions():
            new = [NewTopic(name, PARTITIONS, 1) for name in some]
            for made in self._admin.create_topics(new, request_timeout=_TIMEOUT).values():
                made.result(_TIMEOUT)
        self._until(lambda leaders: all(leaders.get(name, 0) == PARTITIONS for name in self._names))
        while any(known.exception() for known in self._admin.list_offsets(self._ends()).values()):
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - since

    def _ends(self) -> dict[TopicPartition, Any]:
        latest = OffsetSpec.latest()
        return {TopicPartition(name, number): latest for name in self._names for number in range(PARTITIONS)}

    def delete(self) -> None:
        """Deletes the topics and waits for it. No gateway may be running that uses them."""
        for some in self._portions():
            for deleted in self._admin.delete_topics(some, request_timeout=_TIMEOUT).values():
                deleted.result(_TIMEOUT)
        self._until(lambda leaders: not leaders.keys() & set(self._names))

    def _portions(self) -> Iterator[list[str]]:
        for begin in range(0, len(self._names), _AT_ONCE):
            yield list(self._names[begin : begin + _AT_ONCE])

    def _until(self, enough: Callable[[dict[str, int]], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            known = self._admin.list_topics(timeout=_TIMEOUT).topics
            if enough({name: sum(p.leader >= 0 for p in topic.partitions.values()) for name, topic in known.items()}):
                return
            time.sleep(_POLL_SECONDS)
        raise SystemExit("the broker has not made or deleted the topics")


@contextmanager
def _site(broker: str) -> Iterator[tuple[Settings, list[str]]]:
    """Yields settings with a running gateway, and the names of its PVs."""
    mark = uuid.uuid4().hex[:8]
    names = [f"bench:{mark}:{number}" for number in range(PVS)]
    settings = Settings("bench", broker, f"bench-{mark}-commands", f"bench-{mark}-reply", {})
    ports = ServerPorts.free()
    environment = without_epics() | ports.pva_client_environment
    with ExitStack() as running:
        running.enter_context(Process("source", {"pvs": names}, environment | ports.pva_server_environment))
        arguments = {"broker": broker, "commands": settings.command_topic}
        running.enter_context(Process("gateway", arguments, environment))
        yield settings, names


def _first_events(settings: Settings, names: Sequence[str]) -> float:
    """Returns the seconds until each PV has its first event."""
    missing = set(names)
    done = threading.Event()

    def see(update: PVUpdate) -> None:
        missing.discard(update.name)
        if not missing:
            done.set()

    since = time.perf_counter()
    with Client("bench", "start", settings=settings, timeout=_TIMEOUT) as client:
        client.monitor_many_stream([f"pva://{name}" for name in names]).subscribe(see)
        if not done.wait(_TIMEOUT):
            raise SystemExit(f"{len(missing)} PVs had no event")
        return time.perf_counter() - since


def _there(broker: str) -> float:
    with _site(broker) as (settings, names):
        topics = Topics(broker, [monitor_topic(name) for name in names])
        topics.make()
        took = _first_events(settings, names)
    topics.delete()
    return took


def _missing(broker: str) -> tuple[float, float]:
    with _site(broker) as (settings, names):
        took = _first_events(settings, names)
    Topics(broker, [monitor_topic(name) for name in names]).delete()
    bare = Topics(broker, [f"bench-{uuid.uuid4().hex}" for _ in range(PVS)])
    made = bare.make()
    bare.delete()
    return took, made


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the rows for existing and for missing topics."""
    there = tuple(_there(kafka) for _ in range(rounds))
    ours, bare = zip(*(_missing(kafka) for _ in range(rounds)), strict=True)
    return [
        Row(f"{PVS:,} PVs, topics there, all first events", "s", there),
        Row(f"{PVS:,} PVs, topics missing, all first events", "s", ours, bare, against="create_topics of as many"),
    ]


if __name__ == "__main__":
    run("start", measure)
