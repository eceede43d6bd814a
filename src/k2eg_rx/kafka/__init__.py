"""Kafka transport over librdkafka; the only package that uses confluent_kafka.

`KafkaTransport` makes the sources, the sink and the group presence of one client or gateway:

- ``transport``, ``producer`` (with ``in_flight`` and ``waiting``), ``presence``: the transport, its `RecordSink` and
  its `Presence`
- ``consumer``: poll loop, topic sources, consumer groups, history
- ``metadata``: topics, partitions and offsets; creation of topics
- ``connection``: configuration, errors, connection state and log of librdkafka clients
"""

from typing import TYPE_CHECKING

from k2eg_rx.kafka.connection.health import connection_failure
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer.poll_loop import PollLoop
from k2eg_rx.kafka.transport import KafkaTransport
from k2eg_rx.lazy_names import lazy_names

if TYPE_CHECKING:
    from k2eg_rx.kafka.metadata.inspection import (
        GroupFinding,
        KafkaInspection,
        TopicFinding,
        bootstrap_addresses,
        resolution_failure,
    )
    from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin

__all__ = [
    "GroupFinding",
    "KafkaInspection",
    "KafkaTopicAdmin",
    "KafkaTransport",
    "PollLoop",
    "StatusEvents",
    "TopicFinding",
    "bootstrap_addresses",
    "connection_failure",
    "resolution_failure",
]

# What clients do not need.
_LATER = {
    "metadata.inspection": (
        "GroupFinding",
        "KafkaInspection",
        "TopicFinding",
        "bootstrap_addresses",
        "resolution_failure",
    ),
    "metadata.topic_admin": ("KafkaTopicAdmin",),
}

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _LATER)
