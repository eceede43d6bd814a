"""What a gateway needs of Kafka's administration: topics that are made, and who listens to which.

In: names of topics. Out: topics; numbers of group members. Every call blocks, for a few seconds at most, and is made on
one thread, the gateway's for topics (`k2eg_rx.gateway.commands.topics`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,  # pyright: ignore[reportPrivateImportUsage] - documented there
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import RETENTION_MS, admin_properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, kafka_error, secrets_in
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.settings import Settings

_log = logging.getLogger(__name__)

_RETENTION_BYTES = 50 * 1024 * 1024  # per partition, the deployed gateway's
# Seconds; an answer takes some 50 ms, on a busy broker a second for each hundred topics, and one that does not know the
# request never answers.
_REQUEST_TIMEOUT = 10.0
_WAIT = _REQUEST_TIMEOUT + 1.0
# Kafka refuses a request as a whole that makes more than 10,000 metadata records; a topic is six: itself, three
# partitions and two properties.
_TOPICS_AT_ONCE = 500
# A controller says that a topic is made before the broker has made its files: at once for one, at some 250 a second for
# many. Records for those that are not there yet cost it a refusal each, ten times a second.
_MAKING = 10.0  # seconds that this is waited for, at most
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # between two looks, which take a few ms for one topic, 50 ms for 500
_NOT_YET = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._NOENT,  # librdkafka has no leader to ask
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
_NO_ANSWER = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})


class KafkaTopicAdmin:
    """Kafka's administration for a gateway (its `TopicAdmin`).

    Args:
        settings: The environment.

    Raises:
        TransportError: A property in [kafka] is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._translator = ErrorTranslator(settings.broker_url, secrets_in(settings.kafka))
        self._admin: Any = self._make()

    def _make(self) -> Any:
        try:
            return AdminClient(admin_properties(self._settings), logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka client") from failure

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        """Creates the topics (name: partitions) that are not there yet, with an hour's retention and 50 MiB.

        When it returns they can be written to, unless the broker takes very long.

        Returns:
            The topics that Kafka refused, with why and what to do about it.

        Raises:
            TransportError: Kafka did not answer.
        """
        refused: dict[str, str] = {}
        names = iter(topics.items())
        while some := dict(islice(names, _TOPICS_AT_ONCE)):
            refused.update(self._create(some))
        return refused

    def _create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        config = {"retention.ms": str(RETENTION_MS), "retention.bytes": str(_RETENTION_BYTES)}
        new = [NewTopic(topic, num_partitions=partitions, config=config) for topic, partitions in topics.items()]
        try:
            created: Mapping[str, Future[None]] = self._admin.create_topics(new, request_timeout=_REQUEST_TIMEOUT)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot create topics") from failure
        refused: dict[str, str] = {}
        made: list[str] = []
        for topic, future in created.items():
            try:
                future.result(_WAIT)
                made.append(topic)
            except TimeoutError:
                self._admin = self._make()
                raise TransportError("cannot create topics: no answer") from None
            except KafkaException as failure:
                code = kafka_error(failure).code()
                if code in _NO_ANSWER:
                    self._admin = self._make()  # librdkafka may have lost its brokers for good: see `lifeline`
                    raise self._translator.error(failure, "cannot create topics") from failure
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused[topic] = self._translator.reason(failure, topic)
        self._wait_for(made)
        return refused

    def _wait_for(self, topics: Collection[str]) -> None:
        """Returns when the broker has what the controller says it has, or does not say so in time."""
        deadline, pause = time.monotonic() + _MAKING, _FIRST_PAUSE
        with contextlib.suppress(KafkaException):  # made they are, as far as the controller is concerned
            while (topics := self._not_there(topics)) and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _not_there(self, topics: Collection[str]) -> list[str]:
        """Those of some topics whose first partition has no leader yet; the others come with it."""
        if not topics:
            return []
        latest = OffsetSpec.latest()
        asked: Mapping[TopicPartition, Future[Any]] = self._admin.list_offsets(
            {TopicPartition(topic, 0): latest for topic in topics}, request_timeout=_MAKING
        )
        missing: dict[str, int] = {}
        for partition, future in asked.items():
            try:
                future.result(_WAIT)
            except (KafkaException, TimeoutError) as failure:
                if isinstance(failure, KafkaException) and (code := kafka_error(failure).code()) in _NOT_YET:
                    missing[partition.topic] = code
        if KafkaError._NOENT in missing.values():
            self._admin.list_topics(timeout=_MAKING)  # else librdkafka would not look for a leader again for seconds
        return list(missing)

    def listeners(self) -> Mapping[str, int] | None:
        """Returns how many members the consumer groups have that are assigned each topic; None if that is unknown."""
        try:
            listing = self._admin.list_consumer_groups(request_timeout=_REQUEST_TIMEOUT).result(_WAIT)
            groups = [group.group_id for group in listing.valid]
            if listing.errors or not groups:
                return None if listing.errors else {}
            described: Mapping[str, Future[Any]] = self._admin.describe_consumer_groups(
                groups, request_timeout=_REQUEST_TIMEOUT
            )
            counts: Counter[str] = Counter()
            for future in described.values():
                members = future.result(_WAIT).members
                topics = {part.topic for member in members for part in member.assignment.topic_partitions}
                counts.update(dict.fromkeys(topics, len(members)))
        except (KafkaException, TimeoutError) as failure:
            _log.debug("the consumer groups are unknown: %s", failure)
            self._admin = self._make()
            return None
        return counts

    def close(self) -> None:
        """Ends it."""
        self._admin = None
