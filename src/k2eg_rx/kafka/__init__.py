"""Kafka, through librdkafka: the only place that knows confluent_kafka."""
