"""The setup of the client benchmarks: topics, a responder, settings and events produced beforehand."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from k2eg_rx import Settings
from k2eg_rx.protocol import pack
from k2eg_rx.pv import monitor_topic
from responder import HEADER, PARTITIONS, responder, structure

TIMEOUT = 30.0
_BODIES = 1000  # distinct, so that decoders cannot cache results
_LEAST_BODIES = 200  # of a PV: an event that is one of the last ones again is looked at as one that a gateway repeats


def send(producer: Producer, topic: str, key: bytes, value: bytes, *, timestamp: int = 0) -> None:
    """Sends an event when the producer has room; `timestamp` is Kafka's, in milliseconds, by default now."""
    while True:
        try:
            producer.produce(topic, value, key=key, headers=HEADER, timestamp=timestamp)
        except BufferError:
            producer.poll(0.1)
        else:
            return


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A broker with a responder on it.

    Attributes:
        address: The broker.
        command_topic: Where the responder listens.
    """

    address: str
    command_topic: str

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def settings(self) -> Settings:
        """Returns settings with a unique reply topic."""
        reply_topic = f"bench-{uuid.uuid4().hex[:12]}-reply"
        self.create([reply_topic], partitions=1)
        return Settings(
            environment_id="bench", broker_url=self.address, command_topic=self.command_topic, reply_topic=reply_topic
        )

    def create(self, topics: Iterable[str], partitions: int = PARTITIONS) -> None:
        """Creates topics and waits until the broker knows them."""
        admin = self._admin()
        missing = set(topics)
        for created in admin.create_topics([NewTopic(topic, partitions, 1) for topic in missing]).values():
            created.result(TIMEOUT)
        while missing:
            known = admin.list_topics(timeout=TIMEOUT).topics
            missing = {topic for topic in missing if topic not in known or len(known[topic].partitions) < partitions}

    def delete(self, topics: Iterable[str]) -> None:
        """Deletes topics."""
        admin = self._admin()  # kept: its futures are cancelled with it
        for deleted in admin.delete_topics(list(topics)).values():
            deleted.result(TIMEOUT)

    def new_pvs(self, count: int, partitions: int = PARTITIONS) -> list[str]:
        """Returns unique PV names whose topics exist."""
        mark = uuid.uuid4().hex[:8]
        names = [f"bench:{mark}:{number}" for number in range(count)]
        self.create(map(monitor_topic, names), partitions)
        return names

    def produce(self, names: Sequence[str], count: int, *, in_turn: bool = True) -> None:
        """Produces `count` events of full NTScalars.

        Args:
            names: The PVs.
            count: The number of events.
            in_turn: Whether the PVs have events in turn, else all events of one after those of another: a broker takes
                these of 1,000 PVs in a tenth of the time, and a consumer that is behind reads both in this order.
        """
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 20, "batch.num.messages": 1000})
        topics = [monitor_topic(name) for name in names]
        keys = [name.encode() for name in names]
        rounds = min(max(_LEAST_BODIES, _BODIES // len(names)), count // len(names) + 1)
        structures = [pack(structure(float(number))) for number in range(rounds)]
        heads = [b"\x81" + pack(name) for name in names]  # of a map of one entry
        each = -(-count // len(names))
        for number in range(count):
            turn, place = divmod(number, len(names)) if in_turn else divmod(number, each)[::-1]
            send(producer, topics[place], keys[place], heads[place] + structures[turn % rounds])
            if number % 1000 == 0:
                producer.poll(0)
        if producer.flush(TIMEOUT):
            raise SystemExit("events could not be produced")


@contextmanager
def laboratory(address: str, *, first_events: bool = False) -> Iterator[Laboratory]:
    """Runs a laboratory on a broker; on request its responder publishes a first event per monitor."""
    command_topic = f"bench-{uuid.uuid4().hex[:12]}-commands"
    place = Laboratory(address, command_topic)
    place.create([command_topic], partitions=1)
    with responder(address, command_topic, first_events=first_events):
        yield place


@contextmanager
def measured_process(target: Callable[..., None], *arguments: object) -> Iterator[Callable[[], float]]:
    """Yields a function that lets a process measure itself and returns the figure.

    Args:
        target: What runs there. It gets a pipe beside its arguments: each true value that comes asks for a figure, a
            false one ends it.
        arguments: Its arguments.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()

    def measured() -> float:
        ours.send(True)
        return ours.recv()

    try:
        yield measured
        ours.send(False)
        process.join(TIMEOUT)
    finally:
        process.kill()


class BareReader:
    """A minimal reader of PVs' topics: one consumer, assigned at their ends, in one loop."""

    batch = 500

    def __init__(self, address: str, names: Sequence[str], properties: dict[str, str]) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": address, "group.id": "bare", "enable.auto.commit": False, **properties}
        )
        everything = [TopicPartition(monitor_topic(name), number) for name in names for number in range(PARTITIONS)]
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        latest: OffsetSpec = OffsetSpec.latest()  # pyright: ignore[reportAssignmentType] - its stubs say it may be None
        ends = admin.list_offsets(dict.fromkeys(everything, latest))
        self._consumer.assign(
            [TopicPartition(at.topic, at.partition, end.result(TIMEOUT).offset) for at, end in ends.items()]
        )

    def batches(self) -> Iterator[list[Message]]:
        """Yields batches of messages."""
        while True:
            messages = (each for each in self._consumer.consume(self.batch, 0.1) if each.error() is None)
            yield [each for each in messages if not (each.key() or b"").startswith(b"\0")]  # else about connections

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()
