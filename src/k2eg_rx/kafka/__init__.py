"""Kafka, through librdkafka: the only place that knows confluent_kafka."""

from k2eg_rx.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]
