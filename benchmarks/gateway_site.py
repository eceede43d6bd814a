"""The setup of the gateway benchmark: EPICS source, IOC, gateway, p4p and client.

It also reads the published events from Kafka and checks their order.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gateway_processes import Process
from k2eg_rx import Client, Settings
from k2eg_rx.embedded import ServerPorts, SoftIoc, merge_client_environments, without_epics
from k2eg_rx.protocol.decode import REPEATED_HEADER
from k2eg_rx.pv import monitor_topic

TIMEOUT = 60.0
STATIC = 100  # PVs to read
SLOW = 1000
SLOW_RATE = 1  # per second, the records' SCAN
_TOPICS = 100  # created per request

_RECORD = """record(calc, "{name}") {{ field(INPA, "{name}") field(CALC, "A+1") field(SCAN, "1 second")
  field(EGU, "mm") field(HOPR, "100") field(LOPR, "-100") field(HIHI, "1e9") field(HHSV, "MAJOR") }}
"""


class Site:
    """The gateway and the processes around it.

    Args:
        broker: Kafka's address.
        running: Ends what is started here.
    """

    def __init__(self, broker: str, running: ExitStack) -> None:
        self._broker = broker
        mark = uuid.uuid4().hex[:8]
        self.fast, self.timed = f"bench{mark}:fast", f"bench{mark}:timed"
        self.static = [f"bench{mark}:static{number}" for number in range(STATIC)]
        self.slow = [f"bench{mark}:slow{number}" for number in range(SLOW)]
        self._commands, reply = f"bench{mark}-commands", f"bench{mark}-reply"
        source_ports, self._ioc_ports = ServerPorts.free(), ServerPorts.free()
        epics = source_ports.pva_client_environment
        both = merge_client_environments(epics, self._ioc_ports.pva_client_environment)
        ours = without_epics()
        self._admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
        running.callback(self._delete_topics)
        self.source = running.enter_context(
            Process(
                "source",
                {"pvs": [self.fast, self.timed, *self.static]},
                ours | source_ports.pva_server_environment | epics,
            )
        )
        self.gateway = running.enter_context(
            Process("gateway", {"broker": broker, "commands": self._commands}, ours | both)
        )
        self.peer = running.enter_context(Process("peer", {}, ours | epics))
        settings = Settings("benchmark", broker, self._commands, reply, {})
        self.client = running.enter_context(Client("benchmark", "benchmark", settings=settings))
        self._producer = Producer({"bootstrap.servers": broker})
        self._posted = 1  # 0 is a PV's initial value

    @contextmanager
    def records(self) -> Generator[None]:
        """Runs an IOC with the slow PVs within the context."""
        with tempfile.TemporaryDirectory(prefix="k2eg-benchmark-") as folder:
            database = Path(folder) / "slow.db"
            database.write_text("".join(_RECORD.format(name=name) for name in self.slow))
            with SoftIoc(database, ports=self._ioc_ports):
                yield

    def monitor(self, names: Sequence[str]) -> Consumer:
        """Monitors PVs; returns a consumer assigned to all their topics, from the first event on.

        The topics are there before, with one partition: a PV's events all go to one, by their key.
        """
        self._create([monitor_topic(name) for name in names])
        command = {"command": "multi-monitor", "activate": True, "pv_name_list": [f"pva://{name}" for name in names]}
        self._producer.produce(self._commands, json.dumps(command))
        self._producer.flush(TIMEOUT)
        consumer = Consumer(
            {
                "bootstrap.servers": self._broker,
                "group.id": "bare",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(monitor_topic(name), 0, 0) for name in names])
        return consumer

    def post(self, pv: str, rate: float, seconds: float) -> int:
        """Starts posting whole numbers to a PV; returns the first. `posted` waits for the end."""
        self.source.tell("post", pv=pv, first=self._posted, rate=rate, seconds=seconds)
        return self._posted

    def posted(self) -> dict[str, float]:
        """Waits for the end of posting; returns number of posts and seconds."""
        answer: dict[str, float] = self.source.answer()
        self._posted += int(answer["posts"])
        return answer

    def _create(self, topics: Sequence[str]) -> None:
        for begin in range(0, len(topics), _TOPICS):
            wanted = [NewTopic(topic, 1, 1) for topic in topics[begin : begin + _TOPICS]]
            for created in self._admin.create_topics(wanted, operation_timeout=TIMEOUT).values():
                created.result(TIMEOUT)
        missing, deadline = set(topics), time.monotonic() + TIMEOUT
        while missing:
            left = missing - self._admin.list_topics(timeout=TIMEOUT).topics.keys()
            if len(left) < len(missing):  # a busy broker makes a thousand topics in minutes
                missing, deadline = left, time.monotonic() + TIMEOUT
            elif time.monotonic() > deadline:
                raise SystemExit(f"the broker has not made {len(missing)} of {len(topics)} topics")
            else:
                time.sleep(0.1)

    def _delete_topics(self) -> None:
        ours = [topic for topic in self._admin.list_topics(timeout=TIMEOUT).topics if topic.startswith(self.fast[:13])]
        for begin in range(0, len(ours), _TOPICS):
            for deleted in self._admin.delete_topics(ours[begin : begin + _TOPICS]).values():
                with suppress(KafkaException):
                    deleted.result(TIMEOUT)


def _is_event(message: Message) -> bool:
    """Returns whether a record has a new value of a PV: not one about it, such as its connection, nor a repetition."""
    is_repeated = any(name == REPEATED_HEADER for name, _ in message.headers() or ())
    return not is_repeated and not (message.key() or b"").startswith(b"\0")


@dataclass(slots=True)
class Arrivals:
    """Events as read from Kafka: the records, each with the Unix time of its batch in nanoseconds."""

    events: list[tuple[int, Message]] = field(default_factory=list)

    def read(self, consumer: Consumer, enough: Callable[[Arrivals], bool]) -> None:
        """Reads events until a condition holds.

        Raises:
            SystemExit: It never is.
        """
        deadline = time.monotonic() + TIMEOUT
        while not enough(self):
            if time.monotonic() > deadline:
                raise SystemExit("the last events are missing")
            first = consumer.poll(0.05)
            if first is not None:  # `consume` waits for its whole timeout
                batch, now = [first, *consumer.consume(1000, 0)], time.time_ns()
                self.events += [(now, message) for message in batch if message.error() is None and _is_event(message)]

    def newest(self) -> int:
        """Returns the value of the last event, -1 if there is none."""
        if not self.events:
            return -1
        ((_, structure),) = msgpack.unpackb(self.events[-1][1].value()).items()
        return int(structure["value"])

    def values(self) -> dict[str, list[int]]:
        """Returns each PV's values, in the order of the topic.

        Raises:
            SystemExit: A value is older than the one before it, or there twice.
        """
        values: dict[str, list[int]] = defaultdict(list)
        for _, message in self.events:
            ((name, structure),) = msgpack.unpackb(message.value()).items()
            values[name].append(int(structure["value"]))
        for name, numbers in values.items():
            if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
                raise SystemExit(f"{name}: an older value came after a newer one")
        return values

    def age(self) -> float:
        """Returns the median age of the events when read, in milliseconds."""
        if not self.events:
            raise SystemExit("there are no events")
        ages: list[float] = []
        for nanoseconds, message in self.events[:: max(1, len(self.events) // 1000)]:
            ((_, structure),) = msgpack.unpackb(message.value()).items()
            stamp = structure["timeStamp"]
            ages.append((nanoseconds - stamp["secondsPastEpoch"] * 10**9 - stamp["nanoseconds"]) / 1e6)
        return statistics.median(ages)
