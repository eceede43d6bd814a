"""Fixtures of the transport contract: each transport behind the same handles."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import queue
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

import confluent_kafka
import pytest
from apache_kafka import ApacheKafka, ExternalKafka
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx.embedded.broker import EmbeddedBroker
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.settings import Settings
from k2eg_rx.testing import MemoryBroker, MemoryTransport, VirtualClock
from k2eg_rx.transport.interfaces import Receiver, Record, RecordSink, RecordSource, Transport, TransportError

PATIENCE = 100.0  # seconds until a test fails; a passing test never waits that long


class RecordingReceiver(Receiver):
    """A receiver that keeps its records, and can be made not ready."""

    def __init__(self, *, ready: bool = True) -> None:
        self.changed = threading.Condition()
        self.records: list[Record] = []
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.asked = 0
        self._ready = ready
        self.on_receive: Callable[[Sequence[Record]], None] = lambda records: None

    def ready(self) -> bool:
        with self.changed:
            self.asked += 1
            self.changed.notify_all()
            return self._ready

    def open(self, source: RecordSource) -> None:
        self._ready = True
        source.wake()

    def shut(self, source: RecordSource) -> None:
        """Makes the receiver not ready; returns when the source has noticed."""
        with self.changed:
            self._ready = False
            asked = self.asked
        source.wake()
        self.wait_until(lambda: self.asked > asked, "the source to ask")

    def receive(self, records: Sequence[Record]) -> None:
        with self.changed:
            self.records.extend(records)
            self.batches.append(len(records))
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()
        self.on_receive(records)

    def wait(self, count: int = 1, timeout: float = PATIENCE) -> list[Record]:
        """Waits for a number of records; returns all of them."""
        self.wait_until(lambda: len(self.records) >= count, f"{count} records", timeout)
        return list(self.records)

    def wait_for(self, value: bytes) -> Record:
        """Waits for a record with that value."""
        self.wait_until(lambda: any(record.value == value for record in self.records), repr(value[:40]))
        return next(record for record in self.records if record.value == value)

    def wait_until(self, happened: Callable[[], bool], what: str = "it", timeout: float = PATIENCE) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, timeout):
                last = [(*record[:3], (record.value or b"")[:40]) for record in self.records[-3:]]
                pytest.fail(f"waited for {what}; got {len(self.records)} records, the last {last}")

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    def in_order(self) -> bool:
        """Returns whether each partition's records arrived in order, without gap or duplicate."""
        offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
        for record in self.records:
            offsets[record.topic, record.partition].append(record.offset)
        return all(seen == list(range(seen[0], seen[0] + len(seen))) for seen in offsets.values())


class Backend(Protocol):
    """A broker under the test's control; it skips a test that needs what it cannot do."""

    def transport(self, **kafka: str) -> Transport: ...
    def create_topic(self, topic: str, partitions: int = 1, /) -> None: ...
    def delete_topic(self, topic: str, /) -> None: ...
    def go_down(self) -> None: ...
    def come_up(self) -> None: ...
    def close(self) -> None: ...


class MemoryBackend:
    def __init__(self) -> None:
        self.broker = MemoryBroker(partitions=4)
        self.create_topic = self.broker.create_topic
        self.delete_topic = self.broker.delete_topic
        self.go_down = self.broker.go_down
        self.come_up = self.broker.come_up

    def transport(self, **kafka: str) -> Transport:
        return MemoryTransport(self.broker)

    def close(self) -> None:
        self.broker.come_up()


class SteppedBackend(MemoryBackend):
    """The memory transport driven by a virtual clock, as in a scripted gateway; a thread advances the clock."""

    driver = "k2eg-virtual-time"

    def __init__(self) -> None:
        super().__init__()
        self._clock = VirtualClock()
        self._running = contextlib.ExitStack()
        self._running.enter_context(self._clock.running(speed=1.0))

    def transport(self, **kafka: str) -> Transport:
        return MemoryTransport(self.broker, self._clock)

    def close(self) -> None:
        super().close()
        self._running.close()


class MockCluster:
    """librdkafka's mock cluster, with functions that the Python package does not expose."""

    _library: ctypes.CDLL | None = None

    def __init__(self) -> None:
        self.broker = EmbeddedBroker()
        self.address = self.broker.address
        client = self.broker._client
        assert client is not None
        # a confluent_kafka client is an object header of two words, followed by the librdkafka handle
        self._handle = ctypes.cast(id(client) + 2 * ctypes.sizeof(ctypes.c_void_p), ctypes.POINTER(ctypes.c_void_p))[0]
        self._cluster = self._call("rd_kafka_handle_mock_cluster", self._handle, result=ctypes.c_void_p)
        self._closed = threading.Event()
        self._stir = threading.Thread(target=self._keep_awake, args=(client,), daemon=True)
        self._stir.start()
        self._on_cluster("rd_kafka_mock_group_initial_rebalance_delay_ms", ctypes.c_int32(20))

    def _keep_awake(self, client: Producer) -> None:
        """Sends requests: the cluster's thread sometimes handles the calls below only with its next request."""
        while not self._closed.wait(0.1):
            with contextlib.suppress(KafkaException):  # it is down
                client.list_topics("nothing", timeout=0.5)

    def _call(self, name: str, pointer: int, *arguments: object, result: type | None = ctypes.c_int) -> int:
        if MockCluster._library is None:
            libraries = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
            MockCluster._library = ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))
        function = MockCluster._library[name]
        function.restype = result
        return function(ctypes.c_void_p(pointer), *arguments)

    def _on_cluster(self, name: str, *arguments: object) -> None:
        assert self._call(name, self._cluster, *arguments) == 0 or name.endswith("_delay_ms"), name

    def transport(self, **kafka: str) -> Transport:
        # members learn of a rebalance by heartbeat; the mock cluster's takes a session's time less a second
        quick = {"fetch.wait.max.ms": "5", "heartbeat.interval.ms": "100", "session.timeout.ms": "2000"}
        return KafkaTransport(kafka_settings(self.address, quick | kafka))

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        self._on_cluster("rd_kafka_mock_topic_create", topic.encode(), ctypes.c_int(partitions), ctypes.c_int(1))

    def delete_topic(self, topic: str) -> None:
        self._on_cluster("rd_kafka_mock_topic_delete", topic.encode())

    def lose_records(self, topic: str, before: int) -> None:
        """Does nothing: the cluster keeps only the last 5 MiB of a partition."""

    def refuse_topic(self, topic: str, code: int) -> None:
        self._call("rd_kafka_mock_topic_set_error", self._cluster, topic.encode(), ctypes.c_int(code))

    def refuse_commits(self, count: int) -> None:
        """Fails the next commits as Kafka does while a group rebalances."""
        commits = ctypes.c_int16(8)  # the API key of OffsetCommit
        refusals = (ctypes.c_int * count)(*[KafkaError.REBALANCE_IN_PROGRESS] * count)
        self._call("rd_kafka_mock_clear_request_errors", self._cluster, commits, result=None)
        self._call("rd_kafka_mock_push_request_errors_array", self._cluster, commits, ctypes.c_size_t(count), refusals)

    def refuse_records(self, seconds: float) -> None:
        """Fails the next request to store records, as a broker that is about to lead the partition; answers late."""
        self._on_cluster(
            "rd_kafka_mock_broker_push_request_error_rtts",
            ctypes.c_int32(1),
            ctypes.c_int16(0),  # the API key of Produce
            ctypes.c_size_t(1),
            ctypes.c_int(KafkaError.NOT_LEADER_FOR_PARTITION),
            ctypes.c_int(round(seconds * 1000)),
        )

    def answer_after(self, seconds: float) -> None:
        """Delays every answer; requests are carried out at once."""
        self._on_cluster("rd_kafka_mock_broker_set_rtt", ctypes.c_int32(1), ctypes.c_int(round(seconds * 1000)))

    def go_down(self) -> None:
        self._on_cluster("rd_kafka_mock_broker_set_down", ctypes.c_int32(1))

    def come_up(self) -> None:
        self._on_cluster("rd_kafka_mock_broker_set_up", ctypes.c_int32(1))

    def close(self) -> None:
        self._closed.set()
        self._stir.join()
        self.broker.close()


class ApacheBackend:
    """An Apache Kafka broker, shared by all tests."""

    def __init__(self, broker: ApacheKafka | ExternalKafka) -> None:
        self._broker = broker
        self._admin = AdminClient({"bootstrap.servers": broker.address}, logger=logging.getLogger("contract"))

    def transport(self, **kafka: str) -> Transport:
        quick = {"heartbeat.interval.ms": "100"}  # how soon a member learns of a rebalance
        return KafkaTransport(kafka_settings(self._broker.address, quick | kafka))

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        try:
            self._admin.create_topics([NewTopic(topic, partitions)])[topic].result(PATIENCE)
        except KafkaException as error:  # librdkafka repeats a request whose reply it has not received
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def delete_topic(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(PATIENCE)

    def lose_records(self, topic: str, before: int) -> None:
        """Deletes the records before an offset, as retention does."""
        partition = TopicPartition(topic, 0, before)
        self._admin.delete_records([partition])[partition].result(PATIENCE)

    def go_down(self) -> None:
        if not isinstance(self._broker, ApacheKafka):
            pytest.skip("the tests do not stop a broker that they have not started")
        self._broker.stop()

    def come_up(self) -> None:
        if isinstance(self._broker, ApacheKafka):
            self._broker.start()

    def close(self) -> None:
        self.come_up()


def kafka_settings(address: str, kafka: dict[str, str]) -> Settings:
    return Settings("contract", address, "commands", "contract-reply", kafka)


class Bench:
    """A backend and the parts made with it, which `close` closes."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._numbers = itertools.count()
        self._parts: list[Callable[[float], None]] = []
        self._mark = uuid.uuid4().hex[:8]
        self.transport = self.another_transport()
        self._sink = self.sink()

    def threads(self, *names: str) -> set[str]:
        """Returns the names of a transport's threads, or of the one that drives it."""
        return {self.backend.driver} if isinstance(self.backend, SteppedBackend) else set(names)

    def another_transport(self, **kafka: str) -> Transport:
        transport = self.backend.transport(**kafka)
        self._parts.append(transport.close)
        return transport

    def topic(self, partitions: int | None = 1, name: str = "t") -> str:
        """Returns a unique topic's name; creates the topic unless `partitions` is None."""
        topic = f"{name}-{self._mark}-{next(self._numbers)}"
        if partitions is not None:
            self.backend.create_topic(topic, partitions)
        return topic

    def events(
        self, receiver: Receiver, group_name: str | None = None, transport: Transport | None = None
    ) -> RecordSource:
        source = (transport or self.transport).events(receiver, group_name)
        self._parts.append(source.close)
        return source

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        source, ready = self.transport.replies(receiver, topic)
        self._parts.append(source.close)
        return source, ready

    def sink(self, transport: Transport | None = None) -> RecordSink:
        sink = (transport or self.transport).sink()
        self._parts.append(sink.close)
        return sink

    def send(self, topic: str, *values: bytes | str, key: bytes | None = None) -> None:
        """Sends records and waits for their delivery."""
        reports: queue.SimpleQueue[TransportError | None] = queue.SimpleQueue()
        for value in values:
            encoded = value if isinstance(value, bytes) else value.encode()
            self._sink.send(topic, encoded, key=key, on_delivery=reports.put)
        for _ in values:
            assert reports.get(timeout=PATIENCE) is None

    def close(self) -> None:
        for close in reversed(self._parts):
            close(5.0)
        self.backend.close()


def _bench(backend: Backend) -> Iterator[Bench]:
    bench = Bench(backend)
    try:
        yield bench
    finally:
        bench.close()


_APACHE = pytest.param("apache", marks=pytest.mark.apache_kafka)


@pytest.fixture(params=["memory", "stepped", "mock", _APACHE])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each transport."""
    if request.param == "memory":
        yield from _bench(MemoryBackend())
    elif request.param == "stepped":
        yield from _bench(SteppedBackend())
    elif request.param == "mock":
        yield from _bench(MockCluster())
    else:
        yield from _bench(ApacheBackend(request.getfixturevalue("apache_kafka")))


@pytest.fixture(params=["mock", _APACHE])
def kafka_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each Kafka broker, for what the memory transport does not have."""
    if request.param == "mock":
        yield from _bench(MockCluster())
    else:
        yield from _bench(ApacheBackend(request.getfixturevalue("apache_kafka")))


@pytest.fixture
def mock_bench() -> Iterator[Bench]:
    """The mock cluster, for faults that only it can inject."""
    yield from _bench(MockCluster())


@pytest.fixture(params=[_APACHE])
def apache_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Apache Kafka, for what the mock cluster does differently."""
    yield from _bench(ApacheBackend(request.getfixturevalue("apache_kafka")))


@pytest.fixture
def make_receiver() -> type[RecordingReceiver]:
    """The class of receivers."""
    return RecordingReceiver


@pytest.fixture
def receiver() -> RecordingReceiver:
    """A receiver."""
    return RecordingReceiver()
