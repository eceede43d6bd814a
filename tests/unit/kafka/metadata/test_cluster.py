"""Requests about topics: which command topics are missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.metadata.cluster import Cluster
from k2eg_rx.settings import Settings

TOPICS = ("commands", "website-commands")


class Kafka:
    """The answers of Kafka, and what is reported of them."""

    def __init__(self) -> None:
        self.topics = {"commands"}
        self.reports: list[str] = []

    def list_topics(self, topic: str, timeout: float) -> Any:
        error = None if topic in self.topics else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        found = SimpleNamespace(error=error, partitions={})
        return SimpleNamespace(cluster_id="one", topics={topic: found}, brokers={})

    def missing_permissions(self) -> list[Any]:
        return []

    def on_command_topic(self, missing: str) -> None:
        self.reports.append(missing)

    def on_brokers(self, brokers: Any) -> None: ...
    def on_answer(self) -> None: ...
    def on_error(self, error: Any) -> None: ...


def test_each_command_topic_that_is_missing_is_reported_until_it_is_there() -> None:
    kafka = Kafka()
    settings = Settings("test", "127.0.0.1:1", "commands", "replies")
    translator = ErrorTranslator("127.0.0.1:1", (), TOPICS)
    cluster = Cluster(settings, translator, kafka, TOPICS)  # type: ignore[arg-type]
    cluster._admin = kafka
    assert cluster.probe()
    assert kafka.reports[-1].startswith("the command topic 'website-commands' does not exist; to create it: ")
    assert kafka.reports[-1].endswith("--config message.timestamp.type=LogAppendTime")
    kafka.topics.update(TOPICS)
    assert cluster.probe()
    assert kafka.reports[-1] == ""
