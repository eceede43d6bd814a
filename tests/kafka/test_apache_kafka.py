"""The Apache Kafka of the tests: restarts, start failures, and its end with the tests."""

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

PATIENCE = 100.0  # seconds until a test fails; a passing test never waits that long

# Starts a broker, prints its process id, and waits to be killed.
START_AND_WAIT = """
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


def test_a_killed_broker_restarts_with_its_address_and_data(
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
    broker.suspend()
    with pytest.raises(KafkaException):
        _topics(broker.address, timeout=0.5)
    broker.resume()
    assert "kept" in _topics(broker.address)
    broker.suspend()
    broker.stop()
    assert broker.pid is None


def test_properties_and_listeners_are_configurable(
    make_apache_kafka: Callable[..., ApacheKafka],
) -> None:
    broker = make_apache_kafka({"auto.create.topics.enable": "false"}, {"SECOND": "PLAINTEXT"})
    second = broker.address_of("SECOND")
    assert second != broker.address
    metadata = AdminClient({"bootstrap.servers": second}).list_topics("missing", timeout=PATIENCE)
    assert [f"{known.host}:{known.port}" for known in metadata.brokers.values()] == [second]
    assert metadata.topics["missing"].error is not None


def test_a_failed_start_shows_the_log(kafka_distribution: Distribution, tmp_path: Path) -> None:
    broker = ApacheKafka(kafka_distribution, tmp_path, {"log.retention.ms": "soon"})
    with pytest.raises(BrokerError, match=r"Invalid value soon for configuration log\.retention\.ms"):
        broker.start()
    assert broker.pid is None


def test_an_exit_during_the_start_is_reported_at_once(kafka_distribution: Distribution, tmp_path: Path) -> None:
    broker = ApacheKafka(kafka_distribution, tmp_path, {"metric.reporters": "no.such.Class"})
    with pytest.raises(BrokerError, match=r"ended with code 1[\s\S]*no\.such\.Class"):
        broker.start()
    assert broker.pid is None


def test_the_broker_is_killed_with_the_tests(kafka_distribution: Distribution, tmp_path: Path) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with tests:
        assert tests.stdout is not None
        broker = os.pidfd_open(int(tests.stdout.readline()))
        assert not select.select([broker], [], [], 0)[0]
        tests.send_signal(signal.SIGKILL)
        assert select.select([broker], [], [], PATIENCE)[0], "the broker still runs"
    os.close(broker)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _write_script(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_missing_java_is_reported_in_one_line_with_the_remedy(bare_machine: Path) -> None:
    with pytest.raises(Unavailable, match=r"^no Apache Kafka: java is not found; install Java 17.*K2EG_TEST_KAFKA"):
        find_distribution()


def test_an_old_java_is_rejected(bare_machine: Path) -> None:
    _write_script(bare_machine / "java", """echo 'openjdk version "11.0.2" 2019' >&2""")
    with pytest.raises(Unavailable, match="java is 11"):
        find_distribution()


def test_a_maven_failure_is_reported_in_one_line(bare_machine: Path) -> None:
    _write_script(bare_machine / "java", """echo 'openjdk version "21" 2023' >&2""")
    with pytest.raises(Unavailable, match="mvn is not found"):
        find_distribution()
    _write_script(bare_machine / "mvn", "echo fine; echo '[ERROR] no network'; echo '[ERROR] help'; exit 1")
    with pytest.raises(Unavailable, match=r"mvn could not fetch it: \[ERROR\] no network; install"):
        find_distribution()


def test_the_class_path_is_resolved_again_only_if_a_jar_is_missing(bare_machine: Path) -> None:
    jar = bare_machine / "kafka.jar"
    jar.touch()
    calls = bare_machine / "calls"
    _write_script(bare_machine / "java", """echo 'openjdk version "21" 2023' >&2""")
    _write_script(
        bare_machine / "mvn",
        f'for last; do :; done; printf %s "{jar}" > "${{last#-Dmdep.outputFile=}}"; echo call >> "{calls}"',
    )
    notices: list[str] = []
    found = find_distribution(lambda: notices.append("fetching"))
    assert found.class_path == str(jar)
    assert find_distribution(lambda: notices.append("fetching")) == found
    assert (calls.read_text(), notices) == ("call\n", ["fetching"])
    found.class_archive.touch()
    jar.unlink()
    find_distribution()
    assert calls.read_text() == "call\ncall\n"
    assert not found.class_archive.exists()
