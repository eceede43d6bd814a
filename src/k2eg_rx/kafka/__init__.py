"""Kafka, through librdkafka: the only place that knows confluent_kafka."""

from k2eg_rx.kafka.connection.configuration import check_group_name
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.kafka.consumer.poll_loop import PollLoop
from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin
from k2eg_rx.kafka.transport import KafkaTransport

__all__ = [
    "KafkaTopicAdmin",
    "KafkaTransport",
    "PollLoop",
    "StatusEvents",
    "check_group_name",
]
