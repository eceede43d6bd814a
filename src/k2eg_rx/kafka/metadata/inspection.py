"""Looks at a cluster for a diagnosis: brokers, topics, this user's rights, and the groups that read a topic.

Thread safety: used by one thread. Every call blocks, for a few seconds at most.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import admin_properties, check_settings
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_gone, secrets_of
from k2eg_rx.kafka.connection.health import connection_failure
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.settings import Settings

_TIMEOUT = 5.0  # seconds for an answer, which takes milliseconds
_DEFAULT_PORT = 9092  # librdkafka's


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """What is known of a topic.

    Attributes:
        partitions: The number of partitions; 0 if it does not exist.
        operations: What this user may do with it, such as ``READ``; None if the broker does not tell.
        problem: Why it cannot be looked at, with advice; empty if it can.
    """

    partitions: int = 0
    operations: Collection[str] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GroupFinding:
    """A consumer group that reads a topic.

    Attributes:
        name: The group.
        members: The hosts of its members that read the topic, with their client ids.
    """

    name: str
    members: Sequence[str]


def bootstrap_addresses(settings: Settings) -> list[tuple[str, int]]:
    """Returns host and port of the brokers in ``kafka_broker_url``."""
    found: list[tuple[str, int]] = []
    for url in filter(None, (each.strip() for each in settings.broker_url.split(","))):
        host, colon, port = url.rpartition("://")[2].rpartition(":")
        has_port = colon and port.isdigit()
        found.append((host.strip("[]"), int(port)) if has_port else (f"{host}{colon}{port}", _DEFAULT_PORT))
    return found


def resolution_failure(host: str) -> str:
    """Returns why a host name has no address; empty if it has one."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as failure:
        return str(getattr(failure, "strerror", None) or failure)
    return ""


class KafkaInspection:
    """Answers questions about a cluster.

    Args:
        settings: The environment.

    Raises:
        TransportError: A property in [kafka] is invalid.
    """

    def __init__(self, settings: Settings) -> None:
        check_settings(settings)
        self._translator = ErrorTranslator(settings.broker_url, secrets_of(settings), [settings.command_topic])
        try:
            self._admin: Any = AdminClient(admin_properties(settings), logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka client") from failure
        self._has_controller = False

    def unreachable_brokers(self) -> tuple[int, list[str]]:
        """Returns the number of the cluster's brokers, and texts about those that cannot be reached.

        Raises:
            TransportError: Kafka did not answer.
        """
        brokers = self._metadata("__consumer_offsets").brokers.values()
        addresses = {broker.id: f"{broker.host}:{broker.port}" for broker in brokers}
        failures = {number: connection_failure(address) for number, address in addresses.items()}
        texts = [self._translator.advertised(n, addresses[n], failure) for n, failure in failures.items() if failure]
        return len(addresses), texts

    def _metadata(self, topic: str) -> Any:
        try:
            known = self._admin.list_topics(topic, timeout=_TIMEOUT)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot look at the cluster") from failure
        # librdkafka's mock cluster has no controller, which answers the questions of administrators
        self._has_controller = known.controller_id in known.brokers
        return known

    @property
    def is_embedded(self) -> bool:
        """Whether the cluster is one of the demo, which has no controller and creates a topic when it is used first."""
        return not self._has_controller

    def topic(self, name: str) -> TopicFinding:
        """Returns what is known of a topic.

        Raises:
            TransportError: Kafka did not answer.
        """
        known = self._metadata(name).topics[name]
        if known.error is not None:
            gone = is_gone(known.error)
            return TopicFinding(problem="" if gone else self._translator.reason(known.error, name))
        return TopicFinding(len(known.partitions), self._operations(name) if self._has_controller else None)

    def _operations(self, topic: str) -> Collection[str] | None:
        try:
            described: Mapping[str, Future[Any]] = self._admin.describe_topics(
                TopicCollection([topic]), include_authorized_operations=True, request_timeout=_TIMEOUT
            )
            operations = described[topic].result(_TIMEOUT + 1.0).authorized_operations
        except (KafkaException, TimeoutError):
            return None
        return {operation.name for operation in operations or ()} or None

    def has_append_time(self, topic: str) -> bool | None:
        """Returns whether Kafka sets the time stamps of a topic's records; None if it does not tell."""
        if not self._has_controller:
            return None
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            config = self._admin.describe_configs([resource], request_timeout=_TIMEOUT)[resource].result(_TIMEOUT + 1.0)
            return config["message.timestamp.type"].value == "LogAppendTime"
        except (KafkaException, TimeoutError, KeyError):
            return None

    def readers(self, topics: Collection[str]) -> dict[str, list[GroupFinding]] | None:
        """Returns the consumer groups whose members read each of some topics; None if the cluster does not tell.

        Raises:
            TransportError: Kafka did not answer, or refuses it.
        """
        if not self._has_controller:
            return None
        found: dict[str, list[GroupFinding]] = {topic: [] for topic in topics}
        try:
            listing = self._admin.list_consumer_groups(request_timeout=_TIMEOUT).result(_TIMEOUT + 1.0)
            names = [group.group_id for group in listing.valid]
            described: Mapping[str, Future[Any]] = (
                self._admin.describe_consumer_groups(names, request_timeout=_TIMEOUT) if names else {}
            )
            for name, future in described.items():
                if future.exception(_TIMEOUT + 1.0) is not None:
                    continue  # of a group that this user may not see
                members: dict[str, list[str]] = {}
                for member in future.result().members:
                    for topic in {part.topic for part in member.assignment.topic_partitions} & found.keys():
                        members.setdefault(topic, []).append(f"{member.host.lstrip('/')} ({member.client_id})")
                for topic, hosts in members.items():
                    found[topic].append(GroupFinding(name, sorted(hosts)))
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot list the consumer groups") from failure
        except TimeoutError:
            raise TransportError("cannot list the consumer groups: no answer") from None
        return found

    def create_command(self, topic: str) -> str:
        """Returns the shell command that creates a topic."""
        return self._translator.create_command(topic)
