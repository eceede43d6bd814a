"""What the cluster knows of topics: whether they are there, how many partitions they have, where they end.

In: names of topics. Out: counts and offsets. Every call asks the broker and waits, but not for long; all on one
thread, that of `OffsetResolver`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclOperation,  # pyright: ignore[reportPrivateImportUsage] - documented there
    AdminClient,
    NewTopic,  # pyright: ignore[reportPrivateImportUsage] - documented there
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)
from confluent_kafka.admin import (
    TopicMetadata as KafkaTopicMetadata,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import RETENTION_MS, admin_properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_final, is_gone, kafka_error
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.settings import Settings

_log = logging.getLogger(__name__)

_METADATA_TIMEOUT = 1.0  # seconds; an answer takes milliseconds, and with no answer the thread has to get on
_OFFSETS_TIMEOUT = 3.0  # the broker may have to find a leader first
_CREATE_TIMEOUT = 5.0

# A question about one topic is a round trip of about half a millisecond; one about all of them costs some 15 us a
# topic of the cluster while Python stands still. Sites have thousands, hence rather many single ones.
_SINGLE_REQUESTS = 32
# Questions in a row that found no broker to be put to, after which a new client is asked: see `lifeline`. Nobody but
# this client can tell whether there is one, so an outage has it replaced as often; that takes milliseconds.
_DISCONNECTED_AFTER = 3
_PERMISSIONS_AT_ONCE = 5  # a round trip each, once a second
_OFFSETS_AT_ONCE = 1000  # partitions; their futures cost 50 us each, and others want to run in between

# A topic's partition count, 0 if there is no such topic; None if the broker does not know at the moment; or why it is
# of no use to ask again.
TopicMetadata = int | TransportError | None
PartitionOffsets = dict[int, int]  # partition to offset


class Cluster:
    """Asks a cluster about topics.

    Args:
        settings: Which cluster.
        failures: Puts errors into words.
        health: Gets to know of answers and of silence.

    Raises:
        TransportError: The settings are of no use to librdkafka.
    """

    def __init__(self, settings: Settings, translator: ErrorTranslator, health: Health) -> None:
        self._settings = settings
        self._translator = translator
        self._health = health
        self._admin: Any = self._client(create_topics=False)
        self._creator: Any = None
        self._failed_requests = 0  # questions in a row for which there was no broker

    def _client(self, *, create_topics: bool) -> Any:  # what its futures hold has no types

        properties = admin_properties(self._settings, create_topics=create_topics)
        properties["error_cb"] = self._health.on_error
        try:
            return AdminClient(properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka client") from failure

    def poll(self) -> None:
        """Lets librdkafka report errors and write logs."""
        self._admin.poll(0)

    def close(self) -> None:
        """Ends the clients, here and now: left to the garbage collector they would stop some other thread for that."""
        self._admin = self._creator = None

    def probe(self) -> bool:
        """Asks the cluster anything at all; whether there was an answer. Also asks for rights that were missing."""
        for permission in islice(self._health.missing_permissions(), _PERMISSIONS_AT_ONCE):
            if self._has_permission(permission):
                self._health.allow(permission)
        return self._list_topics(self._admin, self._settings.command_topic) is not None

    def _has_permission(self, permission: Permission) -> bool:
        options: dict[str, Any] = {"include_authorized_operations": True, "request_timeout": _METADATA_TIMEOUT}
        try:
            if permission.is_group:
                described = self._admin.describe_consumer_groups([permission.name], **options)
            else:
                described = self._admin.describe_topics(TopicCollection([permission.name]), **options)
            operations = described[permission.name].result().authorized_operations
        except KafkaException as failure:
            _log.debug("the rights to %s are unknown: %s", permission.name, failure)
            return False
        return AclOperation.READ in (operations or ())

    def partition_counts(self, topics: Collection[str]) -> dict[str, TopicMetadata] | None:
        """Returns what is known of each topic; None if no broker answered."""
        if len(topics) > _SINGLE_REQUESTS:
            known = self._list_topics(self._admin)
            return None if known is None else {topic: self._topic_metadata(topic, known.get(topic)) for topic in topics}
        metadata: dict[str, TopicMetadata] = {}
        for topic in topics:
            known = self._list_topics(self._admin, topic)
            if known is None:
                return None
            metadata[topic] = self._topic_metadata(topic, known.get(topic))
        return metadata

    def _list_topics(self, client: Any, *topic: str) -> Mapping[str, KafkaTopicMetadata] | None:
        try:
            known: Mapping[str, KafkaTopicMetadata] = client.list_topics(*topic, timeout=_METADATA_TIMEOUT).topics
        except KafkaException as failure:
            client.poll(0)  # librdkafka tells the cause apart from the effect, by its error callback
            self._health.on_no_answer()
            self._count_failed_request(failure)
            return None
        self._failed_requests = 0
        self._health.on_answer()
        return known

    def _count_failed_request(self, failure: KafkaException) -> None:
        self._failed_requests = self._failed_requests + 1 if kafka_error(failure).code() == KafkaError._TRANSPORT else 0
        if self._failed_requests >= _DISCONNECTED_AFTER:
            self._failed_requests, self._creator = 0, None
            self._admin = self._client(create_topics=False)

    def _topic_metadata(self, topic: str, metadata: KafkaTopicMetadata | None) -> TopicMetadata:
        if metadata is None:
            return 0
        error = metadata.error
        if error is None:
            return len(metadata.partitions)
        if is_gone(error):
            return 0
        if is_final(error):
            return self._translator.error(error, f"cannot read {topic!r}", topic)
        return None

    def end_offsets(self, partition_counts: Mapping[str, int]) -> dict[str, PartitionOffsets]:
        """Returns the end of each partition of topics; a topic is left out if one of them is not known now."""
        ends: dict[str, PartitionOffsets] = {topic: {} for topic in partition_counts}
        partitions = (TopicPartition(topic, n) for topic, count in partition_counts.items() for n in range(count))
        while some := list(islice(partitions, _OFFSETS_AT_ONCE)):
            for partition, offset in self._end_offsets_of(some):
                if offset is None:
                    ends.pop(partition.topic, None)
                elif partition.topic in ends:
                    ends[partition.topic][partition.partition] = offset
        return ends

    def _end_offsets_of(self, partitions: Collection[TopicPartition]) -> Iterator[tuple[TopicPartition, int | None]]:
        asked: Mapping[TopicPartition, Future[Any]] = self._admin.list_offsets(
            dict.fromkeys(partitions, OffsetSpec.latest()), request_timeout=_OFFSETS_TIMEOUT
        )
        for partition, future in asked.items():
            try:
                yield partition, future.result().offset
            except KafkaException as failure:
                _log.debug("no end offset of %s[%d]: %s", partition.topic, partition.partition, failure)
                yield partition, None

    def trigger_auto_creation(self, topic: str) -> None:
        """Asks for a topic in the way that makes a broker create it, if the broker does that."""
        if self._creator is None:
            self._creator = self._client(create_topics=True)
        self._list_topics(self._creator, topic)

    def create(self, topic: str) -> Future[None]:
        """Creates a topic for replies: one partition, an hour's retention. The future fails with `TransportError`."""
        new = NewTopic(topic, num_partitions=1, config={"retention.ms": str(RETENTION_MS)})
        created: Future[None] = Future()

        def finish(done: Future[Any]) -> None:
            failure = done.exception()
            if failure is None:
                created.set_result(None)
            elif not isinstance(failure, KafkaException):
                created.set_exception(failure)
            elif kafka_error(failure).code() == KafkaError.TOPIC_ALREADY_EXISTS:
                created.set_result(None)
            else:
                created.set_exception(self._not_created(topic, failure))

        try:
            self._admin.create_topics([new], request_timeout=_CREATE_TIMEOUT)[topic].add_done_callback(finish)
        except KafkaException as failure:
            created.set_exception(self._not_created(topic, failure))
        return created

    def _not_created(self, topic: str, failure: KafkaException) -> TransportError:
        reason = self._translator.reason(failure, topic)
        command = self._translator.create_command(topic)
        advice = "" if command in reason else f"; to create it: {command}"
        return TransportError(f"topic {topic!r} is missing and could not be created: {reason}{advice}")
