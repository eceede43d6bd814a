"""Kafka transport over librdkafka; the only package that uses confluent_kafka.

`KafkaTransport` makes the sources, the sink and the group presence of one client or gateway:

- ``transport``, ``producer`` (with ``in_flight``), ``presence``: the transport, its `RecordSink` and its `Presence`
- ``consumer``: poll loop, topic sources, consumer groups, history
- ``metadata``: topics, partitions and offsets; creation of topics
- ``connection``: configuration, errors, connection state and log of librdkafka clients
"""

from importlib import import_module
from typing import TYPE_CHECKING

from k2eg_rx.kafka.connection.health import connection_failure
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer.poll_loop import PollLoop
from k2eg_rx.kafka.transport import KafkaTransport

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

_LATER = {
    "inspection": ("GroupFinding", "KafkaInspection", "TopicFinding", "bootstrap_addresses", "resolution_failure"),
    "topic_admin": ("KafkaTopicAdmin",),
}
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:  # what clients do not need is imported when it is used first
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.metadata.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
