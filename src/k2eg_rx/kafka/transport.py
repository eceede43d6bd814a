"""Kafka as a `Transport`: makes sources, sink, history and presence from an environment's settings.

Thread safety: all methods may be called from any thread. The transport owns two threads: ``k2eg-offsets`` resolves
offsets and probes the cluster, ``k2eg-status`` calls status listeners. Each part has a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

from k2eg_rx.kafka.connection.configuration import (
    Properties,
    check_settings,
    events_properties,
    group_properties,
    history_properties,
    presence_properties,
    replies_properties,
    sink_properties,
)
from k2eg_rx.kafka.connection.errors import ErrorTranslator, secrets_of
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.connection.tls import TLSDiagnosis
from k2eg_rx.kafka.consumer.group import GroupPollLoop
from k2eg_rx.kafka.consumer.history import KafkaHistory
from k2eg_rx.kafka.consumer.poll_loop import IDLE_POLL_TIMEOUT, POLL_TIMEOUT, PollLoop
from k2eg_rx.kafka.consumer.source import ExactSource, GroupSource
from k2eg_rx.kafka.metadata.cluster import Cluster
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_creation import TopicCreation
from k2eg_rx.kafka.presence import KafkaPresence
from k2eg_rx.kafka.producer import KafkaSink
from k2eg_rx.settings import Settings
from k2eg_rx.transport import History, Presence, Receiver, RecordSink, RecordSource, TransportStatus


class KafkaTransport:
    """A transport to a Kafka cluster.

    Making it and its parts does not wait for a broker; the status reports whether one is reachable. Meanwhile the
    futures of `read` stay pending, and records to send wait for ``message.timeout.ms``.

    Args:
        settings: The environment.
        command_topics: Command topics beside that of the environment, which a gateway reads.

    Raises:
        TransportError: A property in [kafka] is unknown or invalid.
    """

    def __init__(self, settings: Settings, command_topics: Collection[str] = ()) -> None:
        check_settings(settings)
        self._settings = settings
        all_command_topics = tuple(dict.fromkeys((settings.command_topic, *command_topics)))
        self._translator = ErrorTranslator(settings.broker_url, secrets_of(settings), all_command_topics)
        self._status_events = StatusEvents()
        self._health = Health(
            self._status_events,
            self._translator,
            tls_diagnosis=TLSDiagnosis(settings.kafka_of_producers).diagnose,
            required_topics=(*all_command_topics, settings.reply_topic),
        )
        self._cluster = Cluster(settings, self._translator, self._health, all_command_topics)
        self._resolver = OffsetResolver(self._cluster, lambda: self._health.needs_probe)
        self._health.on_suspicion = self._resolver.wake
        self._resolver.start()

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic, and the future of `read(topic)`. Creates the topic if it is missing."""
        source = self._exact_source("k2eg-replies", replies_properties(self._settings), receiver, IDLE_POLL_TIMEOUT)
        creation = TopicCreation(topic, self._cluster, self._translator.create_command(topic))
        return source, source.read(topic, creation)

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics; see `Transport.events`.

        Raises:
            ValueError: The group name is empty.
        """
        if group_name is None:
            return self._exact_source("k2eg-events", events_properties(self._settings), receiver, POLL_TIMEOUT)
        properties = group_properties(self._settings, group_name)
        return GroupSource(
            self._resolver,
            lambda source: GroupPollLoop(
                "k2eg-events",
                properties,
                receiver=receiver,
                listener=source,
                health=self._health,
                translator=self._translator,
            ),
        )

    def _exact_source(self, name: str, properties: Properties, receiver: Receiver, poll_timeout: float) -> ExactSource:
        return ExactSource(
            self._resolver,
            lambda source: PollLoop(
                name,
                properties,
                receiver=receiver,
                listener=source,
                health=self._health,
                translator=self._translator,
                poll_timeout=poll_timeout,
            ),
        )

    def history(self, topics: Sequence[str]) -> History:
        """Returns a reader of the topics' history with its own consumer; see `Transport.history`.

        Raises:
            TransportError: A property in [kafka] is invalid for a consumer.
        """
        properties = history_properties(self._settings, len(topics))
        return KafkaHistory(topics, properties, self._health, self._translator)

    def sink(self, *, linger: float = 0.0) -> RecordSink:
        """Returns a sink; see `Transport.sink`. A ``linger.ms`` in [kafka] replaces `linger`.

        Raises:
            TransportError: A property in [kafka] is invalid for a producer.
        """
        return KafkaSink(sink_properties(self._settings, linger), self._health, self._translator)

    def presence(self, topic: str, app_name: str) -> Presence:
        """Returns a member of the application's consumer group that is subscribed to the topic and reads nothing."""
        return KafkaPresence(presence_properties(self._settings, app_name), topic, self._health, self._translator)

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Adds a listener, which is called with the current status and then with each change, on ``k2eg-status``."""
        self._status_events.listen(listener)

    def close(self, timeout: float) -> None:
        """Stops the transport's own threads; pending reads fail. Idempotent."""
        self._resolver.close(timeout)
        self._status_events.close(timeout)
