"""Latency of gets, client construction and first events, compared with a minimal client.

    python benchmarks/latency.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

A get is compared with produce and consume of command and reply. Construction of a client until it can receive replies,
and the time from subscribing to a monitor until its first event, are compared with a client that joins a consumer group
for its reply topic and re-subscribes for each PV. A responder replies at once, so EPICS and gateway are not included.
The broker's ``group.initial.rebalance.delay.ms`` is 0; Kafka's default adds 3 s to each first join.
"""

from __future__ import annotations

import json
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, Producer, TopicPartition

from k2eg_rx import Client, Settings, first
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, Laboratory, laboratory
from measuring import Row, at_most, run

GETS = 200  # per round
STARTS = 5


class Bare:
    """A minimal client: one producer, one consumer.

    Args:
        settings: The environment.
        group: Given, the consumer is a member of that group and subscribes; else its partition is assigned.
    """

    def __init__(self, settings: Settings, group: str | None = None) -> None:
        self._settings = settings
        self._producer = Producer({"bootstrap.servers": settings.broker_url, "linger.ms": 0, "log_level": 0})
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.broker_url,
                "group.id": group or "bare",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "log_level": 0,
            }
        )
        self._assigned: set[str] = set()
        if group:
            self.subscribe([])
        else:
            self._consumer.assign([TopicPartition(settings.reply_topic, 0, OFFSET_END)])
            self._consumer.poll(0.5)  # resolves the end offset

    def subscribe(self, topics: list[str]) -> None:
        """Reads topics in addition to the reply topic; returns when they are assigned."""
        wanted = {self._settings.reply_topic, *topics}

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            for partition in partitions:
                if partition.topic != self._settings.reply_topic:
                    partition.offset = OFFSET_BEGINNING  # from the end it would miss events before the end is resolved
            consumer.assign(partitions)
            self._assigned = {partition.topic for partition in partitions}

        self._assigned = set()
        self._consumer.subscribe(sorted(wanted), on_assign=assigned)
        deadline = time.monotonic() + TIMEOUT
        while not wanted <= self._assigned:
            self._consumer.poll(0.01)
            if time.monotonic() > deadline:
                raise SystemExit("the group assigned nothing")

    def send(self, **command: Any) -> str:
        """Sends a command and returns its id."""
        reply_id = uuid.uuid4().hex
        envelope = {"serialization": "msgpack", "reply_topic": self._settings.reply_topic, "reply_id": reply_id}
        self._producer.produce(self._settings.command_topic, json.dumps(command | envelope).encode())
        self._producer.poll(0)
        return reply_id

    def until(self, wanted: Callable[[Message], bool]) -> None:
        """Polls until a message matches."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.5)
            if message is not None and message.error() is None and wanted(message):
                return
        raise SystemExit("no answer")

    def get(self, uri: str) -> None:
        """Reads a PV."""
        reply_id = self.send(command="get", pv_name=uri).encode()
        self.until(lambda message: reply_id in (message.value() or b""))

    def monitor(self, name: str) -> None:
        """Waits for the first event of a monitor."""
        topic = monitor_topic(name)
        self.subscribe([topic])
        self.send(command="monitor", pv_name=f"pva://{name}", activate=True, monitor_dest_topic=topic)
        self.until(lambda message: message.topic() == topic)

    def close(self) -> None:
        """Closes producer and consumer."""
        self._consumer.close()
        self._producer.flush(TIMEOUT)


def milliseconds(action: Callable[[], object]) -> float:
    """Returns the duration of an action in milliseconds."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def _gets(place: Laboratory) -> tuple[float, float]:
    bare = Bare(place.settings())
    with Client("bench", "get", settings=place.settings()) as client:
        uri = "pva://bench:value"
        first(client.get_stream(uri))
        bare.get(uri)
        pairs = [
            (milliseconds(lambda: first(client.get_stream(uri))), milliseconds(lambda: bare.get(uri)))
            for _ in range(GETS)
        ]
    bare.close()
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def _construction(place: Laboratory) -> tuple[float, float]:
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(STARTS):
        settings, clients = place.settings(), list[Client]()

        def make(settings: Settings = settings, clients: list[Client] = clients) -> None:
            clients.append(Client("bench", "construct", settings=settings))
            first(clients[0].ready_stream())

        ours.append(milliseconds(make))
        clients[0].close()
        other, bare = place.settings(), list[Bare]()
        theirs.append(milliseconds(lambda other=other, bare=bare: bare.append(Bare(other, f"join-{uuid.uuid4().hex}"))))
        bare[0].close()
    return statistics.median(ours), statistics.median(theirs)


def _first_events(place: Laboratory) -> tuple[float, float]:
    names = place.new_pvs(2 * STARTS)
    bare = Bare(place.settings(), f"join-{uuid.uuid4().hex}")
    with Client("bench", "monitor", settings=place.settings()) as client:
        first(client.ready_stream())
        pairs = [
            (
                milliseconds(lambda: first(client.monitor_stream(f"pva://{mine}"))),  # noqa: B023 - called at once
                milliseconds(lambda: bare.monitor(other)),  # noqa: B023
            )
            for mine, other in zip(names[::2], names[1::2], strict=True)
        ]
    bare.close()
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the rows of get, construction and first event."""
    measured: dict[str, list[tuple[float, float]]] = {"get": [], "construction": [], "first event": []}
    with laboratory(kafka, first_events=True) as place:
        for _ in range(rounds):
            measured["get"].append(_gets(place))
            measured["construction"].append(_construction(place))
            measured["first event"].append(_first_events(place))
    columns = {name: tuple(zip(*pairs, strict=True)) for name, pairs in measured.items()}
    joining = "consumer-group join"
    return [
        Row("get round trip", "ms", *columns["get"], against="produce + consume echo", target=at_most(1.3)),
        Row("construction until replies can be received", "ms", *columns["construction"], against=joining),
        Row("monitor_stream to first event", "ms", *columns["first event"], against=joining),
    ]


if __name__ == "__main__":
    run("latency", measure)
