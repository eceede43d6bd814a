"""How long things take, beside the same done with bare confluent-kafka in the same run.

    python benchmarks/latency.py [--rounds 50] [--json FILE]

Starts the embedded stack (broker, IOC, gateway) and measures, as medians: making a client until it can receive
replies; a get; and the time from subscribing to a monitor until its first event. The bare figures do the least that
gets the same answer: one producer and one consumer with manually assigned partitions, and no library above them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from k2eg_rx import Client, Settings, first
from k2eg_rx.embedded.stack import EmbeddedStack

PV = "pva://demo:setpoint1"
TOPIC = "demo_setpoint1"
TIMEOUT = 10.0


class Bare:
    """A client of the least code: one producer, one consumer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        common = {"bootstrap.servers": settings.broker_url}
        self._producer = Producer(common | {"linger.ms": 0})
        self._consumer = Consumer(
            common | {"group.id": "bare", "enable.auto.commit": False, "fetch.wait.max.ms": 5, "log_level": 0}
        )
        self.reply_topic = settings.reply_topic
        self._producer.list_topics(self.reply_topic, timeout=TIMEOUT)
        self.read(self.reply_topic)

    def read(self, topic: str) -> list[TopicPartition]:
        """Adds a topic from its end on; returns what was assigned."""
        partitions = self._consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
        ends = self._consumer.offsets_for_times([TopicPartition(topic, number, -1) for number in partitions])
        self._consumer.incremental_assign(ends)
        return ends

    def send(self, **command: Any) -> str:
        """Sends a command and returns its id."""
        reply_id = uuid.uuid4().hex
        envelope = {"serialization": "msgpack", "reply_topic": self.reply_topic, "reply_id": reply_id}
        self._producer.produce(self._settings.command_topic, json.dumps(command | envelope).encode())
        return reply_id

    def until(self, wanted: Callable[[Message], bool]) -> None:
        """Polls until a message is the wanted one."""
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

    def monitor(self, uri: str, topic: str) -> None:
        """Waits for the first event of a monitor."""
        assigned = self.read(topic)
        self.send(command="monitor", pv_name=uri, activate=True, monitor_dest_topic=topic)
        self.until(lambda message: message.topic() == topic)
        self._consumer.incremental_unassign(assigned)

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()
        self._producer.flush(TIMEOUT)


def milliseconds(action: Callable[[], object]) -> float:
    """Returns how long an action took."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def construction(stack: EmbeddedStack, rounds: int) -> tuple[list[float], list[float]]:
    """Measures making a client until replies can be received."""
    ours: list[float] = []
    bare: list[float] = []
    for number in range(rounds):
        settings = stack.settings(f"construct-{number}")
        clients: list[Client] = []

        def make(settings: Settings = settings, clients: list[Client] = clients) -> None:
            clients.append(Client("embedded", "construct", settings=settings))
            first(clients[0].ready_stream())

        ours.append(milliseconds(make))
        clients[0].close()
        others: list[Bare] = []

        def make_bare(number: int = number, others: list[Bare] = others) -> None:
            others.append(Bare(stack.settings(f"construct-bare-{number}")))

        bare.append(milliseconds(make_bare))
        others[0].close()
    return ours, bare


def gets(stack: EmbeddedStack, rounds: int) -> tuple[list[float], list[float]]:
    """Measures reading a PV, after one read that connects it."""
    bare = Bare(stack.settings("get-bare"))
    with Client("embedded", "get", settings=stack.settings("get")) as client:
        first(client.get_stream(PV))
        bare.get(PV)
        ours_ms: list[float] = []
        bare_ms: list[float] = []
        for _ in range(rounds):
            ours_ms.append(milliseconds(lambda: first(client.get_stream(PV))))
            bare_ms.append(milliseconds(lambda: bare.get(PV)))
    bare.close()
    return ours_ms, bare_ms


def first_events(stack: EmbeddedStack, rounds: int) -> tuple[list[float], list[float]]:
    """Measures subscribing to a monitor until the first event, of a topic that exists."""
    bare = Bare(stack.settings("monitor-bare"))
    with Client("embedded", "monitor", settings=stack.settings("monitor")) as client:
        first(client.monitor_stream(PV))
        ours_ms: list[float] = []
        bare_ms: list[float] = []
        for _ in range(rounds):
            ours_ms.append(milliseconds(lambda: first(client.monitor_stream(PV))))
            bare_ms.append(milliseconds(lambda: bare.monitor(PV, TOPIC)))
    bare.close()
    return ours_ms, bare_ms


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, help="where to write the raw figures")
    options = parser.parse_args()
    with EmbeddedStack() as stack:
        measured = {
            "construction until ready": construction(stack, max(5, options.rounds // 5)),
            "get round trip": gets(stack, options.rounds),
            "monitor_stream to first event": first_events(stack, options.rounds),
        }
    print(f"{'median, ms':32}{'k2eg_rx':>10}{'bare':>10}{'ratio':>8}")
    for name, (ours, bare) in measured.items():
        medians = statistics.median(ours), statistics.median(bare)
        print(f"{name:32}{medians[0]:10.2f}{medians[1]:10.2f}{medians[0] / medians[1]:8.2f}")
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.platform(), "cpus": platform.processor()}
        raw = {name: {"k2eg_rx_ms": ours, "bare_ms": bare} for name, (ours, bare) in measured.items()}
        options.json.write_text(json.dumps({"machine": machine, "figures": raw}, indent=2))


if __name__ == "__main__":
    main()
