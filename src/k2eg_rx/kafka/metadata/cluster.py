"""Requests metadata, end offsets and permissions of topics from the cluster.

Thread safety: used by the thread of `OffsetResolver`; every call blocks, for a few seconds at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
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
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_final, is_gone, is_transient, kafka_error
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Partition, Span, TransientError

_log = get_logger(__name__)

_METADATA_TIMEOUT = 1.0  # seconds; an answer takes milliseconds, and without one the thread must continue
_OFFSETS_TIMEOUT = 3.0  # seconds; the broker may have to elect a leader first
_CREATE_TIMEOUT = 5.0

# More topics than this are requested together. A request for one topic takes about 0.5 ms; one for all topics costs
# some 15 us for each topic of the cluster, holding the GIL, and sites have thousands.
_SINGLE_REQUESTS = 32
# Requests in a row without a broker, after which the admin client is replaced: see `reconnect`. No other client can
# tell whether the cluster is up, so it is replaced during outages too, which takes milliseconds.
_DISCONNECTED_AFTER = 3
_PERMISSIONS_AT_ONCE = 5  # one round trip each, once a second
_OFFSETS_AT_ONCE = 1000  # partitions per request; their futures cost 50 us each, and other threads run in between

# A topic's number of partitions, 0 if it does not exist; None if it is unknown at the moment; or a permanent error.
TopicMetadata = int | TransportError | None
PartitionOffsets = dict[int, int]  # partition to offset


class Cluster:
    """Requests about topics.

    Args:
        settings: The environment.
        translator: Words errors.
        health: Receives answers, errors and timeouts; knows the missing permissions.
        command_topics: The topics whose lack the status reports.

    Attributes:
        cluster_id: The identity of the cluster that answered last; another one after its disks were replaced.

    Raises:
        TransportError: librdkafka rejects the settings.
    """

    def __init__(
        self, settings: Settings, translator: ErrorTranslator, health: Health, command_topics: Collection[str]
    ) -> None:
        self._settings = settings
        self._translator = translator
        self._health = health
        self._command_topics = dict.fromkeys(command_topics, "")  # with what is wrong with each
        self._admin: Any = self._client(create_topics=False)
        self._creator: Any = None
        self._failed_requests = 0  # in a row, for want of a broker
        # As for the consumers: records of a transaction that is open are received when it is committed.
        committed = settings.kafka_of_consumers.get("isolation.level", "read_committed") == "read_committed"
        self._isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        self.cluster_id: str | None = None

    def _client(self, *, create_topics: bool) -> Any:  # its futures are untyped
        properties = admin_properties(self._settings, create_topics=create_topics)
        properties["error_cb"] = self._health.on_error
        try:
            return AdminClient(properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka client") from failure

    def poll(self) -> None:
        """Runs librdkafka's error and log callbacks."""
        self._admin.poll(0)

    def close(self) -> None:
        """Destroys the clients on this thread: the garbage collector would block another thread for it."""
        self._admin = self._creator = None

    def probe(self) -> bool:
        """Sends a request to find out whether the cluster answers; also checks missing permissions."""
        for permission in islice(self._health.missing_permissions(), _PERMISSIONS_AT_ONCE):
            if self._has_permission(permission):
                self._health.allow(permission)
        answers = [self._list_topics(self._admin, topic) for topic in self._command_topics]
        return all(answer is not None for answer in answers)

    def _has_permission(self, permission: Permission) -> bool:
        options: dict[str, Any] = {"include_authorized_operations": True, "request_timeout": _METADATA_TIMEOUT}
        try:
            if permission.is_group:
                described = self._admin.describe_consumer_groups([permission.name], **options)
            else:
                described = self._admin.describe_topics(TopicCollection([permission.name]), **options)
            operations = described[permission.name].result().authorized_operations
        except KafkaException as failure:
            _log.debug("permissions unknown: name=%s error=%s", permission.name, failure)
            return False
        return AclOperation.READ in (operations or ())

    def partition_counts(self, topics: Collection[str]) -> dict[str, TopicMetadata] | None:
        """Returns the metadata of each topic; None if no broker answered."""
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
            answer = client.list_topics(*topic, timeout=_METADATA_TIMEOUT)
        except KafkaException as failure:
            client.poll(0)  # runs the error callback, which reports the cause
            self._health.on_no_answer()
            self._count_failed_request(failure)
            return None
        self._failed_requests = 0
        self.cluster_id = answer.cluster_id
        if len(topic) == 1 and topic[0] in self._command_topics:
            self._note_command_topic(topic[0], answer.topics)
        self._health.on_brokers({f"{broker.host}:{broker.port}": broker.id for broker in answer.brokers.values()})
        self._health.on_answer()
        return answer.topics

    def _note_command_topic(self, name: str, known: Mapping[str, KafkaTopicMetadata]) -> None:
        error = known[name].error if name in known else None
        missing = f"the command topic {name!r} does not exist; to create it: {self._translator.create_command(name)}"
        self._command_topics[name] = missing if error is not None and is_gone(error) else ""
        self._health.on_command_topic("; ".join(filter(None, self._command_topics.values())))

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
        """Returns the end offsets of topics, without those of which some offset is unknown at the moment."""
        ends: dict[str, PartitionOffsets] = {topic: {} for topic in partition_counts}
        partitions = (TopicPartition(topic, n) for topic, count in partition_counts.items() for n in range(count))
        while some := list(islice(partitions, _OFFSETS_AT_ONCE)):
            for partition, offset in self._offsets_of(some, OffsetSpec.latest()):
                if offset is None:
                    ends.pop(partition.topic, None)
                elif partition.topic in ends:
                    ends[partition.topic][partition.partition] = offset
        return ends

    def held_offsets(self, partitions: Collection[Partition]) -> dict[Partition, Span]:
        """Returns the offsets that partitions hold, without partitions of which they are unknown at the moment."""
        asked = [TopicPartition(*partition) for partition in partitions]
        if not asked:
            return {}
        pairs = zip(
            self._offsets_of(asked, OffsetSpec.earliest()), self._offsets_of(asked, OffsetSpec.latest()), strict=True
        )
        return {
            (partition.topic, partition.partition): Span(first, end)
            for (partition, first), (_, end) in pairs
            if first is not None and end is not None
        }

    def _offsets_of(
        self, partitions: Collection[TopicPartition], spec: Any
    ) -> Iterator[tuple[TopicPartition, int | None]]:
        asked: Mapping[TopicPartition, Future[Any]] = self._admin.list_offsets(
            dict.fromkeys(partitions, spec), isolation_level=self._isolation, request_timeout=_OFFSETS_TIMEOUT
        )
        for partition, future in asked.items():
            try:
                yield partition, future.result().offset
            except KafkaException as failure:
                _log.debug("no offset: partition=%s[%d] error=%s", partition.topic, partition.partition, failure)
                yield partition, None

    def trigger_auto_creation(self, topic: str) -> None:
        """Requests a topic's metadata with automatic creation allowed, if the broker is configured for it."""
        if self._creator is None:
            self._creator = self._client(create_topics=True)
        self._list_topics(self._creator, topic)

    def create(self, topic: str) -> Future[None]:
        """Creates a reply topic: one partition, an hour's retention.

        Returns:
            Done when the topic exists. Fails with `TransportError`; with `TransientError` if a later request may
            succeed.
        """
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
        text = f"topic {topic!r} is missing and could not be created: {reason}{advice}"
        return TransientError(text) if is_transient(kafka_error(failure)) else TransportError(text)
