"""`k2eg_rx.quix` in the environment that quixstreams needs: processes on Apache Kafka that are killed at random."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from apache_kafka import ApacheKafka, ExternalKafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from environments import PROJECT, Unavailable, environment
from own_gateway import own_gateway
from reactivex import operators as ops
from reactivex.testing import TestScheduler

from k2eg_rx import Client, PVAddress, PVUpdate, Settings, first
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import without_epics
from k2eg_rx.operators import Window, window_statistics
from k2eg_rx.protocol import repeats
from k2eg_rx.quix import CommittedResult, committed_results
from k2eg_rx.transport import Record

EXAMPLE = PROJECT.parent / "examples" / "distributed_statistics.py"
RESULTS = "pv-statistics"  # of the example
GRACE = 1.0  # seconds; of the example
EVENTS, PARTITIONS = "quix-events", 12  # of the gateway
NAMES = [f"quix:{number}" for number in range(300)]
KEYS: dict[bytes | None, PVAddress] = {name.encode(): PVAddress.parse(f"pva://{name}") for name in NAMES}
RECORD = 'record(calc, "{}") {{ field(SCAN, ".5 second") field(CALC, "RNDM*10") }}\n'
WORKERS, KILLS, SEED = 2, 2, 15
SECONDS = 150.0  # until something that should happen is missing

Key = tuple[str, int]  # a PV's name, and the start of a window in milliseconds

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of an environment with quixstreams and what the core needs."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    try:
        return environment("quix", [*project["dependencies"], *project["optional-dependencies"]["quix"]])
    except Unavailable as missing:
        pytest.skip(str(missing))


@contextmanager
def served(folder: Path) -> Generator[None]:
    """Serves the PVs, by an IOC and a gateway of the environment `site`."""
    (folder / "records.db").write_text("".join(map(RECORD.format, NAMES)))
    with SoftIoc(folder / "records.db") as ioc, own_gateway(without_epics(os.environ) | ioc.client_environment):
        yield


class Worker:
    """A process that runs the example; the one that follows a killed one has its state."""

    def __init__(self, python: Path, folder: Path, number: int) -> None:
        self._log = folder / f"worker{number}.txt"
        self._command = [str(python), str(EXAMPLE), "site", "pvs.txt", "--state", f"state{number}"]
        self._folder = folder
        self.start()

    def start(self) -> None:
        variables = os.environ | {"PYTHONPATH": str(PROJECT.parent / "src")}
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=variables, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ends the process as a service manager does."""
        self._process.terminate()

    def ended(self) -> str:
        """Waits for the end of the process; returns what it has logged."""
        # One that was started just now does not handle the signal yet.
        assert self._process.wait(SECONDS) in (0, -signal.SIGTERM), self._log.read_text()
        return self._log.read_text()


class Results:
    """The committed results, as a stream emits them."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self.keys: set[Key] = set()
        self.errors: list[Exception] = []
        self._changed = threading.Condition()

    def add(self, result: CommittedResult) -> None:
        with self._changed:
            assert result.key == result.value["name"]
            self.found.append(result.value)
            self.keys.add((result.value["name"], result.value["start"]))
            self._changed.notify_all()

    def until(self, happened: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.errors or happened(), SECONDS), len(self.found)
        assert not self.errors


def by_key(results: Sequence[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Returns results by PV and start; no window may be there twice."""
    counts = Counter((result["name"], result["start"]) for result in results)
    assert [key for key, count in counts.items() if count > 1] == [], "a window was emitted twice"
    return {(result["name"], result["start"]): result for result in results}


def windows_of(events: Sequence[Record]) -> dict[Key, Window]:
    """Returns the windows of events, as this library computes them."""
    updates: list[PVUpdate] = []
    last: dict[bytes | None, Record] = {}
    for event in events:
        if event.key in KEYS:
            if event.key not in last or not repeats(event, last[event.key]):
                updates.append(PVUpdate(KEYS[event.key], event))
            last[event.key] = event
    assert len(updates) < len(events), "no event was published again, which a frame has to leave out"
    still = TestScheduler()  # by a real clock, PVs would be silent for a while on a busy machine
    statistics = window_statistics(1.0, grace=GRACE, scheduler=still)
    windows = first(rx.from_iterable(updates).pipe(statistics, ops.to_list()))
    assert [window for window in windows if window.late] == []
    return {(window.name, window.start // 10**6): window for window in windows}


def committed_in(broker: str, topic: str, partitions: int) -> list[Record]:
    """Returns the committed records of a topic."""
    about = {"bootstrap.servers": broker, "group.id": "quix-check", "isolation.level": "read_committed"}
    consumer = Consumer(about | {"enable.partition.eof": True, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    records: list[Record] = []
    unread = set(range(partitions))
    try:
        while unread:
            message = consumer.poll(SECONDS)
            assert message is not None
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                unread.discard(message.partition() or 0)
            else:
                headers: Any = message.headers() or ()
                records.append(Record(topic, 0, message.offset() or 0, message.key(), message.value(), headers))
    finally:
        consumer.close()
    return records


@contextmanager
def committing(broker: str, group: str) -> Generator[Consumer]:
    """Yields a consumer that knows the offsets of a group, and is no member."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group})
    try:
        yield consumer
    finally:
        consumer.close()


def test_a_result_is_emitted_after_its_transaction_and_its_offset_are_committed(
    apache_kafka: ApacheKafka | ExternalKafka,
) -> None:
    broker, topic, group = apache_kafka.address, "quix-transactions", "quix-puts"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, 1)])[topic].result()
    with committing(broker, group) as consumer:  # so that the group does not begin at the end
        consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
    settings = Settings("test", broker, "quix-commands", "quix-reply", {"isolation.level": "read_uncommitted"})
    results, offsets = Results(), list[tuple[int, int]]()

    def add(result: CommittedResult) -> None:
        with committing(broker, group) as consumer:
            (committed,) = consumer.committed([TopicPartition(topic, 0)], SECONDS)
        offsets.append((result.record.offset, committed.offset))
        results.add(result)

    subscription = committed_results(settings, topic, group, max_age=3600.0).subscribe(add, results.errors.append)
    producer = Producer({"bootstrap.servers": broker, "transactional.id": "quix-test"})
    producer.init_transactions(SECONDS)

    def produce(start: int) -> None:
        producer.begin_transaction()
        producer.produce(topic, json.dumps({"name": "x", "start": start}), b"x")
        producer.flush(SECONDS)

    for start in range(3):
        produce(start)
        if start == 1:
            producer.abort_transaction(SECONDS)
        else:
            producer.commit_transaction(SECONDS)
    results.until(lambda: ("x", 2) in results.keys)
    produce(3)  # its transaction is open
    subscription.dispose()
    producer.abort_transaction(SECONDS)
    assert [result["start"] for result in results.found] == [0, 2]
    assert [committed > offset for offset, committed in offsets] == [True, True]


def test_statistics_of_two_processes_that_are_killed(
    apache_kafka: ApacheKafka | ExternalKafka, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("pvs.txt").write_text("\n".join(f"pva://{name}" for name in NAMES))
    Path("site.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={apache_kafka.address}\nk2eg_cmd_topic=quix-commands\nevents_topic={EVENTS}\n"
    )
    results, chance = Results(), random.Random(SEED)
    with ExitStack() as running:
        client = running.enter_context(Client("site", "quix-test"))
        stream = committed_results(client.settings, RESULTS, "quix-test-results", max_age=3600.0)
        running.enter_context(stream.subscribe(results.add, results.errors.append))
        with served(tmp_path):
            workers = [Worker(python, tmp_path, number) for number in range(WORKERS)]
            for worker in workers:
                running.callback(worker.kill)
            for number in range(KILLS + 1):
                wanted = len(results.found) + chance.randrange(1, 2 * len(NAMES))
                results.until(lambda wanted=wanted: len(results.found) >= wanted)
                if number < KILLS:
                    worker = chance.choice(workers)
                    worker.kill()
                    worker.start()
        expected = windows_of(committed_in(apache_kafka.address, EVENTS, PARTITIONS))
        last = {window.name: window.timestamps[-1] or 0 for window in expected.values()}  # those of a PV are in order
        closed = {key for key, window in expected.items() if last[window.name] - window.end >= (GRACE + 0.001) * 1e9}
        results.until(lambda: results.keys >= closed)
        for worker in workers:
            worker.terminate()
        logged = [worker.ended() for worker in workers]
    found = by_key([json.loads(record.value or b"") for record in committed_in(apache_kafka.address, RESULTS, 1)])
    assert len(found) > 2 * len(NAMES)
    assert {key[0] for key in found} == set(NAMES)
    assert (closed - set(found), set(found) - set(expected)) == (set(), set())
    for key, result in found.items():
        window = expected[key]
        assert (result["count"], result["min"], result["max"]) == (len(window), window.min, window.max), key
        assert result["mean"] == pytest.approx(window.mean, rel=1e-12), key
    assert by_key(results.found).keys() >= closed  # each once, too
    assert not any("Traceback" in text for text in logged), logged
