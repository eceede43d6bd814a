"""Topic creation by a gateway: requests within Kafka's limit, and the wait until the broker knows the topics."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin
from k2eg_rx.settings import Settings

RECORDS = 10_000  # metadata records that Kafka's controller accepts in one request


class FakeAdmin:
    """An admin client that creates topics, which the broker knows at the third look-up."""

    def __init__(self, *_properties: object, **_logger: object) -> None:
        self.created: dict[str, NewTopic] = {}
        self.requests: list[int] = []
        self.lookups: Counter[str] = Counter()
        self.error = KafkaError.NOT_LEADER_FOR_PARTITION  # of the first two look-ups
        self.metadata_requests = 0

    def create_topics(self, topics: list[Any], **_timeout: float) -> dict[str, Future[None]]:
        self.requests.append(sum(1 + topic.num_partitions + len(topic.config) for topic in topics))
        self.created.update({topic.topic: topic for topic in topics})
        done: Future[None] = Future()
        done.set_result(None)
        return dict.fromkeys((topic.topic for topic in topics), done)

    def list_offsets(self, request: dict[TopicPartition, OffsetSpec], **_timeout: float) -> dict[Any, Future[None]]:
        return {partition: self._look_up(partition.topic) for partition in request}

    def list_topics(self, **_timeout: float) -> None:
        self.metadata_requests += 1

    def _look_up(self, topic: str) -> Future[None]:
        self.lookups[topic] += 1
        answer: Future[None] = Future()
        if self.lookups[topic] < 3:
            answer.set_exception(KafkaException(KafkaError(self.error)))
        else:
            answer.set_result(None)
        return answer


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    admin = FakeAdmin()
    monkeypatch.setattr("k2eg_rx.kafka.metadata.topic_admin.AdminClient", lambda *_properties, **_logger: admin)
    return admin


def create(topics: dict[str, int]) -> None:
    assert KafkaTopicAdmin(Settings("faults", "nowhere:1", "commands", "replies")).create(topics) == {}


def test_many_topics_are_created_in_requests_within_kafkas_limit(admin: FakeAdmin) -> None:
    wanted = {f"topic{number}": 3 for number in range(4321)}
    create(wanted)
    assert {name: topic.num_partitions for name, topic in admin.created.items()} == wanted
    assert max(admin.requests) < RECORDS


def test_creation_ends_when_the_broker_knows_the_topics(admin: FakeAdmin) -> None:
    create({"a": 3, "b": 1})
    assert admin.lookups == {"a": 3, "b": 3}


def test_metadata_is_requested_if_the_client_knows_no_leader(admin: FakeAdmin) -> None:
    create({"a": 3})
    assert admin.metadata_requests == 0
    admin.error = KafkaError._NOENT
    create({"b": 3})
    assert (admin.lookups["b"], admin.metadata_requests) == (3, 2)


def test_a_forbidden_look_up_is_not_repeated(admin: FakeAdmin) -> None:
    admin.error = KafkaError.TOPIC_AUTHORIZATION_FAILED
    create({"a": 3})
    assert admin.lookups == {"a": 1}


def test_the_wait_for_the_broker_times_out(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2eg_rx.kafka.metadata.topic_admin._MAKING", 0.0)
    create({"a": 3})
    assert admin.lookups == {"a": 1}
