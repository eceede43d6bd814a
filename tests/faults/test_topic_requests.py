"""A gateway that needs many topics at once asks for them in requests that Kafka takes (10,000 records of metadata)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from k2eg_rx.kafka.topics import KafkaTopicAdmin
from k2eg_rx.settings import Settings

RECORDS = 10_000  # the limit of Kafka's controller


def test_many_topics_are_made_in_requests_that_kafka_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    requests: list[int] = []

    class Admin:
        def __init__(self, *_properties: object, **_logger: object) -> None:
            pass

        def create_topics(self, topics: list[Any], **_timeout: float) -> dict[str, Future[None]]:
            requests.append(sum(1 + topic.num_partitions + len(topic.config) for topic in topics))
            asked.update({topic.topic: topic.num_partitions for topic in topics})
            done: Future[None] = Future()
            done.set_result(None)
            return dict.fromkeys((topic.topic for topic in topics), done)

    monkeypatch.setattr("k2eg_rx.kafka.topics.AdminClient", Admin)
    wanted = {f"topic{number}": 3 for number in range(4321)}
    assert KafkaTopicAdmin(Settings("faults", "nowhere:1", "commands", "replies")).create(wanted) == {}
    assert asked == wanted
    assert max(requests) < RECORDS
