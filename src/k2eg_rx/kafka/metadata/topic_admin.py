"""Topic administration for a gateway: creates and deletes topics, counts the members of consumer groups.

Thread safety: used by one thread, the gateway's for topics. Every call blocks for a few seconds at most.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage] - documented there
    ConfigEntry,  # pyright: ignore[reportPrivateImportUsage] - documented there
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage] - documented there
    NewPartitions,  # pyright: ignore[reportPrivateImportUsage] - documented there
    NewTopic,  # pyright: ignore[reportPrivateImportUsage] - documented there
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import RETENTION_MS, admin_properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_gone, kafka_error, secrets_of
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# Of a topic that keeps the last record of each key. Segments are small, because only closed ones are compacted.
_COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.bytes": str(4 * 1024 * 1024),
    "segment.ms": str(3_600_000),
}
_RETENTION_BYTES = 50 * 1024 * 1024  # per partition, the deployed gateway's
# Seconds. An answer takes some 50 ms, on a busy broker a second for each hundred topics; a broker that does not know
# the request does not answer.
_REQUEST_TIMEOUT = 10.0
_ELECTION = 2.0  # seconds that a cluster may be without a controller
_WAIT = _REQUEST_TIMEOUT + 1.0
_SLICE = 2.5  # seconds of a request for metadata, which is repeated then: `close` cannot end it
_CHECK = 0.5  # seconds between looks whether this object was closed, while an answer is awaited
# Kafka rejects a request that makes more than 10,000 metadata records; a topic makes six: itself, three partitions and
# two properties.
_TOPICS_AT_ONCE = 500
# The controller reports a topic as created before the broker has created its files: at once for one topic, at some 250
# a second for many. Until then, the broker rejects each record for it, ten times a second.
_MAKING = 10.0  # seconds to wait for the files at most
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # seconds between checks, which take a few ms for one topic, 50 ms for 500
_NOT_YET = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._NOENT,  # librdkafka knows no leader
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
_NO_ANSWER = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
_CLOSED = "topics cannot be administered: the connection to Kafka is closed"
_NO_CONTROLLER = "this cluster does not create topics on request: it has no controller"


class KafkaTopicAdmin:
    """Topic administration over Kafka; a `TopicAdmin`.

    Args:
        settings: The environment.
        ignored_groups: A regular expression; groups whose whole name matches do not count as listeners, except those
            of command topics, which are gateways.
        command_topics: Command topics beside that of the environment.

    Raises:
        TransportError: A property in [kafka] is invalid.
    """

    def __init__(self, settings: Settings, ignored_groups: str = "", command_topics: Collection[str] = ()) -> None:
        self._settings = settings
        self._command_topics = frozenset((settings.command_topic, *command_topics))
        self._ignored_groups = re.compile(ignored_groups)
        self._translator = ErrorTranslator(settings.broker_url, secrets_of(settings), self._command_topics)
        self._admin: Any = self._make()  # None once closed
        self._closed = False

    def _make(self) -> Any:
        try:
            return AdminClient(admin_properties(self._settings), logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka client") from failure

    @property
    def _client(self) -> Any:
        if (admin := self._admin) is None:
            raise TransportError(_CLOSED)
        return admin

    def _renew(self) -> None:
        """Makes a new client, unless this object was closed: it would outlive the process's other threads."""
        if not self._closed:
            self._admin = self._make()
        if self._closed:  # meanwhile
            self._admin = None

    def _list_topics(self) -> Any:
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        while True:
            try:
                return self._client.list_topics(timeout=_SLICE)
            except KafkaException as failure:
                if kafka_error(failure).code() not in _NO_ANSWER or time.monotonic() >= deadline:
                    raise

    def _answer(self, future: Future[Any]) -> Any:
        """Returns the result of a request.

        Raises:
            KafkaException: The request failed.
            TimeoutError: There was no answer.
            TransportError: This object was closed meanwhile.
        """
        return self._end_of(future).result()

    def _end_of(self, future: Future[Any]) -> Future[Any]:
        deadline = time.monotonic() + _WAIT
        while not wait([future], _CHECK).done:
            if time.monotonic() >= deadline:
                raise TimeoutError
            if self._closed:
                raise TransportError(_CLOSED)
        return future

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        """Creates the missing ones of some topics, with an hour's retention and 50 MiB per partition.

        Waits until they can be written to, for at most ten seconds.

        Args:
            topics: The number of partitions of each topic.

        Returns:
            The topics that Kafka rejected, each with the reason and advice.

        Raises:
            TransportError: Kafka did not answer.
        """
        refused: dict[str, str] = {}
        names = iter(topics.items())
        while some := dict(islice(names, _TOPICS_AT_ONCE)):
            refused.update(self._create(some))
        return refused

    def create_compacted(self, topic: str, partitions: int, replication: int) -> str:
        """Creates a compacted topic if it does not exist. One that Kafka has made automatically is completed.

        Args:
            topic: Its name.
            partitions: Its number of partitions.
            replication: Its replication factor; 0 for the broker's default.

        Returns:
            Why Kafka rejects it, with advice; an empty string if it exists.

        Raises:
            TransportError: Kafka did not answer.
        """
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replication or -1, config=dict(_COMPACTED))
        if not self._has_controller():
            return _NO_CONTROLLER
        refusal = self._request_new([new]).get(topic, "")
        if not refusal:
            self._complete(topic, partitions)
        return refusal

    def _has_controller(self) -> bool:
        """Returns whether the cluster has a controller, which creates topics; one that is being elected is waited for.

        librdkafka's mock cluster has none.
        """
        deadline = time.monotonic() + _ELECTION
        try:
            while (known := self._list_topics()).controller_id not in known.brokers:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LONGEST_PAUSE)
        except KafkaException as failure:
            raise self._no_answer(failure, "cannot look for the cluster's controller") from failure
        return True

    def _complete(self, topic: str, partitions: int) -> None:
        """Sets up a topic that is not compacted, as those are that Kafka makes for a producer."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            config = self._answer(self._client.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT)[resource])
            if "compact" in config["cleanup.policy"].value:
                return
            _log.warning("topic was made automatically, setting it up: topic=%s partitions=%d", topic, partitions)
            for name, value in _COMPACTED.items():
                entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                resource.add_incremental_config(entry)
            changes = self._client.incremental_alter_configs([resource], request_timeout=_REQUEST_TIMEOUT)
            self._answer(changes[resource])
            known = self._client.describe_topics(TopicCollection([topic]), request_timeout=_REQUEST_TIMEOUT)
            if len(self._answer(known[topic]).partitions) < partitions:
                more = [NewPartitions(topic, partitions)]
                self._answer(self._client.create_partitions(more, request_timeout=_REQUEST_TIMEOUT)[topic])
        except (KafkaException, TimeoutError) as failure:
            if isinstance(failure, KafkaException) and kafka_error(failure).code() not in _NO_ANSWER:
                _log.debug("topic not set up: topic=%s error=%s", topic, failure)
                return  # not allowed, perhaps, which does not matter for a topic that was set up by hand
            raise self._no_answer(failure, f"cannot set up topic {topic!r}") from failure

    def _create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        config = {"retention.ms": str(RETENTION_MS), "retention.bytes": str(_RETENTION_BYTES)}
        return self._request_new(
            [NewTopic(topic, num_partitions=partitions, config=config) for topic, partitions in topics.items()]
        )

    def _request_new(self, new: list[NewTopic]) -> Mapping[str, str]:
        try:
            created: Mapping[str, Future[None]] = self._client.create_topics(new, request_timeout=_REQUEST_TIMEOUT)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot create topics") from failure
        refused: dict[str, str] = {}
        made: list[str] = []
        for topic, future in created.items():
            try:
                self._answer(future)
                made.append(topic)
            except TimeoutError:
                self._renew()
                raise TransportError("cannot create topics: no answer") from None
            except KafkaException as failure:
                code = kafka_error(failure).code()
                if code in _NO_ANSWER:
                    self._renew()  # it may have lost its brokers permanently: see `reconnect`
                    raise self._not_created(failure) from failure
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused[topic] = self._translator.reason(failure, topic)
        self._wait_for(made)
        return refused

    def _not_created(self, failure: KafkaException) -> TransportError:
        if "controller" in kafka_error(failure).str():  # librdkafka waits as long for one as for a broker that is down
            with contextlib.suppress(TransportError):
                if not self._has_controller():
                    return TransportError(f"cannot create topics: {_NO_CONTROLLER}")
        return self._translator.error(failure, "cannot create topics")

    def _wait_for(self, topics: Collection[str]) -> None:
        """Waits until the broker can accept records for the topics."""
        deadline, pause = time.monotonic() + _MAKING, _FIRST_PAUSE
        with contextlib.suppress(KafkaException):  # the controller has created them; only the wait fails
            while (topics := self._not_there(topics)) and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _not_there(self, topics: Collection[str]) -> list[str]:
        """Returns the topics whose first partition has no leader yet; the other partitions follow it."""
        if not topics:
            return []
        latest = OffsetSpec.latest()
        asked: Mapping[TopicPartition, Future[Any]] = self._client.list_offsets(
            {TopicPartition(topic, 0): latest for topic in topics}, request_timeout=_MAKING
        )
        missing: dict[str, int] = {}
        for partition, future in asked.items():
            try:
                self._answer(future)
            except (KafkaException, TimeoutError) as failure:
                if isinstance(failure, KafkaException) and (code := kafka_error(failure).code()) in _NOT_YET:
                    missing[partition.topic] = code
        if KafkaError._NOENT in missing.values():
            self._list_topics()  # otherwise librdkafka looks for a leader only after seconds
        return list(missing)

    def listeners(self) -> Mapping[str, int] | None:
        """Returns the number of consumer group members per assigned topic; None if it is unknown."""
        try:
            listing = self._answer(self._client.list_consumer_groups(request_timeout=_REQUEST_TIMEOUT))
            groups = [group.group_id for group in listing.valid]
            if listing.errors or not groups:
                return None if listing.errors else {}
            described: Mapping[str, Future[Any]] = self._client.describe_consumer_groups(
                groups, request_timeout=_REQUEST_TIMEOUT
            )
            counts: Counter[str] = Counter()
            for group, future in described.items():
                members = self._answer(future).members
                topics = {part.topic for member in members for part in member.assignment.topic_partitions}
                if self._ignored_groups.fullmatch(group):
                    topics &= self._command_topics
                counts.update(dict.fromkeys(topics, len(members)))
        except (KafkaException, TimeoutError) as failure:
            _log.debug("consumer groups unknown: error=%s", failure)
            self._renew()
            return None
        return counts

    def end_offsets(self, topics: Collection[str]) -> Mapping[str, int]:
        """Returns the sum of the end offsets of each topic; those that do not exist are left out.

        Raises:
            TransportError: Kafka did not answer.
        """
        try:
            known: Mapping[str, Future[Any]] = self._client.describe_topics(
                TopicCollection(list(topics)), request_timeout=_REQUEST_TIMEOUT
            )
            partitions = [
                TopicPartition(topic, partition.id)
                for topic, future in known.items()
                if not self._is_of_no_topic(future)
                for partition in future.result().partitions
            ]
            if not partitions:
                return {}
            latest = OffsetSpec.latest()
            asked: Mapping[TopicPartition, Future[Any]] = self._client.list_offsets(
                dict.fromkeys(partitions, latest), request_timeout=_REQUEST_TIMEOUT
            )
            ends: Counter[str] = Counter()
            for partition, future in asked.items():
                ends[partition.topic] += self._answer(future).offset
        except (KafkaException, TimeoutError) as failure:
            raise self._no_answer(failure, "cannot look up the ends of topics") from failure
        return ends

    def _is_of_no_topic(self, future: Future[Any]) -> bool:
        error = self._end_of(future).exception()
        return isinstance(error, KafkaException) and is_gone(kafka_error(error))

    def delete(self, topics: Collection[str]) -> Mapping[str, str]:
        """Deletes topics; returns those that Kafka refused to delete, each with the reason.

        Raises:
            TransportError: Kafka did not answer.
        """
        refused: dict[str, str] = {}
        try:
            deleted: Mapping[str, Future[None]] = self._client.delete_topics(
                list(topics), request_timeout=_REQUEST_TIMEOUT
            )
            for topic, future in deleted.items():
                error = self._end_of(future).exception()
                if isinstance(error, KafkaException) and kafka_error(error).code() in _NO_ANSWER:
                    raise error
                if isinstance(error, KafkaException) and not is_gone(kafka_error(error)):
                    refused[topic] = self._translator.reason(error, topic)
        except (KafkaException, TimeoutError) as failure:
            raise self._no_answer(failure, "cannot delete topics") from failure
        return refused

    def _no_answer(self, failure: KafkaException | TimeoutError, what: str) -> TransportError:
        self._renew()
        if isinstance(failure, KafkaException):
            return self._translator.error(failure, what)
        return TransportError(f"{what}: no answer")

    def close(self) -> None:
        """Releases the admin client. A request that is running keeps it until it ends."""
        self._closed = True
        self._admin = None
