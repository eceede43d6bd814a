"""Topics that are deleted, created again, forbidden or lose records."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata import topic_creation as creation

from .conftest import MemoryBackend

PATIENCE = 100.0
UNKNOWN_TOPIC_OR_PART, TOPIC_AUTHORIZATION_FAILED = 3, 29


class Log(logging.Handler):
    """Collects the log, and waits for words in it."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._text = ""

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self._text += record.getMessage() + "\n"
            self._changed.notify_all()

    def wait_for(self, words: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: words in self._text, PATIENCE), self._text


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("k2eg_rx.kafka")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def _check_deleted_and_created_again(bench, receiver, log, group_name):
    topic = bench.topic(partitions=3)
    bench.events(receiver, group_name).read(topic).result(PATIENCE)
    bench.send(topic, "one", key=b"a")  # to partition 0, the only one of the new topic
    receiver.wait_for(b"one")
    bench.backend.delete_topic(topic)
    if not isinstance(bench.backend, MemoryBackend):
        log.wait_for(f"topic {topic} is gone")
    bench.backend.create_topic(topic, 1)
    sink = bench.sink(bench.another_transport())  # the first one has metadata of three partitions
    sink.send(topic, b"two")
    receiver.wait_for(b"two")
    assert receiver.values == [b"one", b"two"]


def test_a_topic_created_again_is_read_from_its_beginning(bench, receiver, log):
    _check_deleted_and_created_again(bench, receiver, log, None)


@pytest.mark.parametrize("bench", ["memory", pytest.param("apache", marks=pytest.mark.apache_kafka)], indirect=True)
def test_a_group_reads_a_topic_created_again_from_its_beginning(bench, receiver, log):
    """Not on the mock cluster, which keeps a group's committed offsets of deleted topics."""
    _check_deleted_and_created_again(bench, receiver, log, "sharing")


def test_deleting_a_topic_does_not_affect_another(kafka_bench, receiver, log):
    deleted, kept = kafka_bench.topic(), kafka_bench.topic()
    source = kafka_bench.events(receiver)
    source.read(deleted).result(PATIENCE)
    source.read(kept).result(PATIENCE)
    kafka_bench.send(deleted, "last")
    receiver.wait_for(b"last")
    kafka_bench.backend.delete_topic(deleted)
    log.wait_for(f"topic {deleted} is gone")
    kafka_bench.send(kept, "after the deletion")
    receiver.wait_for(b"after the deletion")


@pytest.mark.parametrize("group_name", [None, "late"])
def test_records_deleted_before_they_were_read_are_logged_and_the_rest_is_read(kafka_bench, receiver, log, group_name):
    topic = kafka_bench.topic()
    transport = kafka_bench.another_transport(**{"queued.max.messages.kbytes": "500", "fetch.max.bytes": "1000000"})
    source = kafka_bench.events(receiver, group_name, transport)
    source.read(topic).result(PATIENCE)
    kafka_bench.send(topic, "first")
    receiver.wait_for(b"first")
    receiver.shut(source)
    kafka_bench.send(topic, *(os.urandom(100_000) for _ in range(100)))
    kafka_bench.send(topic, "last")
    kafka_bench.backend.lose_records(topic, before=100)
    receiver.open(source)
    receiver.wait_for(b"last")
    log.wait_for(f"records of {topic}[0] were deleted before they were read")
    offsets = [record.offset for record in receiver.records]
    assert offsets == sorted(set(offsets))
    assert len(offsets) < 102


def test_a_forbidden_topic_is_an_error_until_it_is_allowed(mock_bench, receiver):
    topic, other = mock_bench.topic(), mock_bench.topic()
    mock_bench.backend.refuse_topic(topic, TOPIC_AUTHORIZATION_FAILED)
    source = mock_bench.events(receiver)
    with pytest.raises(TransportError, match=f"{topic}.*ACL"):
        source.read(topic).result(PATIENCE)
    mock_bench.backend.refuse_topic(topic, 0)
    source.read(topic).result(PATIENCE)
    source.read(other).result(PATIENCE)
    mock_bench.send(topic, "allowed now")
    receiver.wait_for(b"allowed now")


def test_a_reply_topic_that_cannot_be_created_is_an_error_with_the_command(mock_bench, receiver, monkeypatch):
    monkeypatch.setattr(creation, "_LIMIT", 1.0)
    topic = mock_bench.topic(name="reply")
    mock_bench.backend.refuse_topic(topic, UNKNOWN_TOPIC_OR_PART)
    source, ready = mock_bench.replies(receiver, topic)
    with pytest.raises(TransportError, match=f"kafka-topics.sh .* --create --topic {topic}"):
        ready.result(PATIENCE)
    mock_bench.backend.refuse_topic(topic, 0)
    source.read(topic).result(PATIENCE)


def test_a_deleted_reply_topic_is_created_again(kafka_bench, receiver, log):
    topic = kafka_bench.topic(None, name="reply")
    _, ready = kafka_bench.replies(receiver, topic)
    ready.result(PATIENCE)
    kafka_bench.send(topic, "one")
    receiver.wait_for(b"one")
    kafka_bench.backend.delete_topic(topic)
    log.wait_for(f"topic {topic} is gone")
    kafka_bench.send(topic, "two")
    receiver.wait_for(b"two")


def test_presence_joins_when_its_topic_is_created(kafka_bench, log):
    topic = kafka_bench.topic(None)
    presence = kafka_bench.transport.presence(topic, "application")
    kafka_bench.backend.create_topic(topic)
    kafka_bench.send(topic, "not read")
    presence.close(5.0)


def test_clients_print_nothing(kafka_bench, receiver, log, capfd):
    topic = kafka_bench.topic()
    kafka_bench.events(receiver).read(topic).result(PATIENCE)
    presence = kafka_bench.transport.presence(topic, "application")
    changed = threading.Event()
    kafka_bench.transport.on_status(lambda status: changed.set() if status.reason else None)
    kafka_bench.backend.go_down()
    assert changed.wait(PATIENCE)
    presence.close(5.0)
    kafka_bench.close()
    assert capfd.readouterr() == ("", "")
