"""A gateway that needs many topics at once asks for them in requests that Kafka takes (10,000 records of metadata), and
waits until the broker has them: it is behind its controller."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin
from k2eg_rx.settings import Settings

RECORDS = 10_000  # the limit of Kafka's controller


class Admin:
    """An administration that makes topics, each there at the third look."""

    def __init__(self, *_properties: object, **_logger: object) -> None:
        self.made: dict[str, NewTopic] = {}
        self.requests: list[int] = []
        self.looks: Counter[str] = Counter()
        self.missing = KafkaError.NOT_LEADER_FOR_PARTITION
        self.looks_at_all = 0

    def create_topics(self, topics: list[Any], **_timeout: float) -> dict[str, Future[None]]:
        self.requests.append(sum(1 + topic.num_partitions + len(topic.config) for topic in topics))
        self.made.update({topic.topic: topic for topic in topics})
        done: Future[None] = Future()
        done.set_result(None)
        return dict.fromkeys((topic.topic for topic in topics), done)

    def list_offsets(self, asked: dict[TopicPartition, OffsetSpec], **_timeout: float) -> dict[Any, Future[None]]:
        return {partition: self._look(partition.topic) for partition in asked}

    def list_topics(self, **_timeout: float) -> None:
        self.looks_at_all += 1

    def _look(self, topic: str) -> Future[None]:
        self.looks[topic] += 1
        answer: Future[None] = Future()
        if self.looks[topic] < 3:
            answer.set_exception(KafkaException(KafkaError(self.missing)))
        else:
            answer.set_result(None)
        return answer


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    admin = Admin()
    monkeypatch.setattr("k2eg_rx.kafka.metadata.topic_admin.AdminClient", lambda *_properties, **_logger: admin)
    return admin


def create(topics: dict[str, int]) -> None:
    assert KafkaTopicAdmin(Settings("faults", "nowhere:1", "commands", "replies")).create(topics) == {}


def test_many_topics_are_made_in_requests_that_kafka_takes(admin: Admin) -> None:
    wanted = {f"topic{number}": 3 for number in range(4321)}
    create(wanted)
    assert {name: topic.num_partitions for name, topic in admin.made.items()} == wanted
    assert max(admin.requests) < RECORDS


def test_topics_are_made_when_the_broker_has_them(admin: Admin) -> None:
    create({"a": 3, "b": 1})
    assert admin.looks == {"a": 3, "b": 3}


def test_a_client_that_knows_no_leader_is_made_to_look_for_one(admin: Admin) -> None:
    create({"a": 3})
    assert admin.looks_at_all == 0
    admin.missing = KafkaError._NOENT
    create({"b": 3})
    assert (admin.looks["b"], admin.looks_at_all) == (3, 2)


def test_who_may_not_look_does_not_wait(admin: Admin) -> None:
    admin.missing = KafkaError.TOPIC_AUTHORIZATION_FAILED
    create({"a": 3})
    assert admin.looks == {"a": 1}


def test_a_broker_that_never_has_them_is_not_waited_for_for_ever(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2eg_rx.kafka.metadata.topic_admin._MAKING", 0.0)
    create({"a": 3})
    assert admin.looks == {"a": 1}
