"""The broker that other tests rest on: it keeps what it was told, and does not outlive the tests."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_kafka import ApacheKafka, BrokerError
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka_distribution import Distribution, Unavailable, find_distribution

PATIENCE = 60.0  # seconds until something that should happen is missing

# Starts a broker and says its process id; then waits to be killed.
ORPHANING = """
import sys
from pathlib import Path
from apache_kafka import ApacheKafka
from kafka_distribution import find_distribution
print(ApacheKafka(find_distribution(), Path(sys.argv[1])).start().pid, flush=True)
sys.stdin.read()
"""


def _send(address: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": address})
    producer.produce(topic, b"record")
    assert producer.flush(PATIENCE) == 0


def _topics(address: str, timeout: float = PATIENCE) -> set[str]:
    return set(AdminClient({"bootstrap.servers": address}).list_topics(timeout=timeout).topics)


def test_a_broker_that_is_killed_comes_back_at_its_address_with_its_data(
    make_apache_kafka: Callable[..., ApacheKafka],
) -> None:
    broker = make_apache_kafka()
    _send(broker.address, "kept")
    broker.kill()
    assert broker.pid is None
    with pytest.raises(KafkaException):
        _topics(broker.address, timeout=0.1)
    broker.start()
    assert "kept" in _topics(broker.address)
    broker.freeze()
    with pytest.raises(KafkaException):
        _topics(broker.address, timeout=0.5)
    broker.thaw()
    assert "kept" in _topics(broker.address)
    broker.freeze()
    broker.stop()
    assert broker.pid is None


def test_a_broker_has_the_properties_and_the_listeners_that_it_is_given(
    make_apache_kafka: Callable[..., ApacheKafka],
) -> None:
    broker = make_apache_kafka({"auto.create.topics.enable": "false"}, {"SECOND": "PLAINTEXT"})
    second = broker.address_of("SECOND")
    assert second != broker.address
    metadata = AdminClient({"bootstrap.servers": second}).list_topics("missing", timeout=PATIENCE)
    assert [f"{known.host}:{known.port}" for known in metadata.brokers.values()] == [second]
    assert metadata.topics["missing"].error is not None


def test_a_broker_that_does_not_start_shows_its_log(kafka_distribution: Distribution, tmp_path: Path) -> None:
    broker = ApacheKafka(kafka_distribution, tmp_path, {"log.retention.ms": "soon"})
    with pytest.raises(BrokerError, match=r"Invalid value soon for configuration log\.retention\.ms"):
        broker.start()
    assert broker.pid is None


def test_a_broker_that_ends_while_it_starts_is_not_waited_for(kafka_distribution: Distribution, tmp_path: Path) -> None:
    broker = ApacheKafka(kafka_distribution, tmp_path, {"metric.reporters": "no.such.Class"})
    with pytest.raises(BrokerError, match=r"ended with code 1[\s\S]*no\.such\.Class"):
        broker.start()
    assert broker.pid is None


def test_a_broker_ends_when_the_tests_are_killed(kafka_distribution: Distribution, tmp_path: Path) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", ORPHANING, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with tests:
        assert tests.stdout is not None
        broker = os.pidfd_open(int(tests.stdout.readline()))
        assert not select.select([broker], [], [], 0)[0]
        tests.send_signal(signal.SIGKILL)
        assert select.select([broker], [], [], PATIENCE)[0], "the broker goes on"
    os.close(broker)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for programs, which is all that is found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _put(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_java_one_line_says_how_to_get_it(bare_machine: Path) -> None:
    with pytest.raises(Unavailable, match=r"^no Apache Kafka: java is not found; install Java 17.*K2EG_TEST_KAFKA"):
        find_distribution()


def test_an_old_java_is_refused(bare_machine: Path) -> None:
    _put(bare_machine / "java", """echo 'openjdk version "11.0.2" 2019' >&2""")
    with pytest.raises(Unavailable, match="java is 11"):
        find_distribution()


def test_a_failure_of_maven_is_told_in_one_line(bare_machine: Path) -> None:
    _put(bare_machine / "java", """echo 'openjdk version "21" 2023' >&2""")
    with pytest.raises(Unavailable, match="mvn is not found"):
        find_distribution()
    _put(bare_machine / "mvn", "echo fine; echo '[ERROR] no network'; echo '[ERROR] help'; exit 1")
    with pytest.raises(Unavailable, match=r"mvn could not fetch it: \[ERROR\] no network; install"):
        find_distribution()


def test_the_class_path_is_looked_up_once_and_again_when_a_jar_is_gone(bare_machine: Path) -> None:
    jar = bare_machine / "kafka.jar"
    jar.touch()
    calls = bare_machine / "calls"
    _put(bare_machine / "java", """echo 'openjdk version "21" 2023' >&2""")
    _put(
        bare_machine / "mvn",
        f'for last; do :; done; printf %s "{jar}" > "${{last#-Dmdep.outputFile=}}"; echo call >> "{calls}"',
    )
    told: list[str] = []
    found = find_distribution(lambda: told.append("fetching"))
    assert found.class_path == str(jar)
    assert find_distribution(lambda: told.append("fetching")) == found
    assert (calls.read_text(), told) == ("call\n", ["fetching"])
    found.class_archive.touch()
    jar.unlink()
    find_distribution()
    assert calls.read_text() == "call\ncall\n"
    assert not found.class_archive.exists()
