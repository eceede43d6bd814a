"""Reading of many topics after a stall."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from apache_kafka import ApacheKafka, ExternalKafka
from confluent_kafka import Producer

from .conftest import PATIENCE, ApacheBackend, Bench, RecordingReceiver

TOPICS = 20
RECORDS = 2_000  # of each topic
PERIOD = 100  # milliseconds


@pytest.mark.apache_kafka
def test_topics_stay_together_while_a_source_is_far_behind(apache_kafka: ApacheKafka | ExternalKafka) -> None:
    bench, receiver = Bench(ApacheBackend(apache_kafka)), RecordingReceiver()
    try:
        topics = [bench.topic() for _ in range(TOPICS)]
        source = bench.events(receiver)
        for ready in [source.read(topic) for topic in topics]:
            ready.result(PATIENCE)
        receiver.shut(source)
        start = int(time.time() * 1000) - RECORDS * PERIOD  # the broker deletes what is older than its retention
        producer = Producer({"bootstrap.servers": apache_kafka.address, "linger.ms": 20})
        for number in range(RECORDS):
            for topic in topics:
                producer.produce(topic, bytes(200), timestamp=start + number * PERIOD)
            producer.poll(0)
        producer.flush(PATIENCE)
        receiver.wait_until(source.is_behind, "the lag to be measured")
        receiver.open(source)
        records = receiver.wait(TOPICS * RECORDS)
    finally:
        bench.close()
    assert receiver.in_order()
    read, apart = Counter(dict.fromkeys(topics, 0)), 0
    for record in records:
        read[record.topic] += 1
        apart = max(apart, read[record.topic] - min(read.values()))
    assert apart < RECORDS * 0.6
