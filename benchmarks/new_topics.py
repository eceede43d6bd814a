"""Counts records of new topics that were reported as delivered and are not in Kafka.

    python benchmarks/new_topics.py [--topics 400] [--records 20] [--kafka HOST:PORT]

The records of each topic are sent as soon as it exists: by confluent_kafka alone, with five requests on the way (its
default) and with one, and by this library's sink. A broker that is about to lead a new partition refuses the first
request and may take the second; see docs/decisions/0042-first-records-of-a-topic.md. The exit code is 1 if the sink
lost any.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx import Settings
from k2eg_rx.kafka import KafkaTransport
from measuring import kafka

TIMEOUT = 60.0  # seconds
PAUSE = 0.0003  # seconds between records, so that they go in several requests

Send = Callable[[str, bytes], None]


def _in_kafka(broker: str, topics: Sequence[str]) -> int:
    """Returns how many records the topics have."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, 0), TIMEOUT)[1] for topic in topics)
    finally:
        consumer.close()


def _measure(broker: str, topics: Sequence[str], records: Sequence[bytes], send: Send) -> None:
    """Creates the topics one after the other, and sends to each one as soon as it exists."""
    admin: Any = AdminClient({"bootstrap.servers": broker})
    for topic in topics:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(TIMEOUT)
        for record in records:
            send(topic, record)
            time.sleep(PAUSE)


def bare(broker: str, topics: Sequence[str], records: Sequence[bytes], requests: int) -> tuple[int, int]:
    """Sends by confluent_kafka; returns the records that were reported as delivered, and those in Kafka."""
    reports: Counter[bool] = Counter()
    settings = {"enable.idempotence": True, "linger.ms": 0, "max.in.flight.requests.per.connection": requests}
    producer = Producer({"bootstrap.servers": broker, **settings})

    def send(topic: str, value: bytes) -> None:
        producer.produce(topic, value, on_delivery=lambda error, _: reports.update([error is None]))
        producer.poll(0)

    _measure(broker, topics, records, send)
    producer.flush(TIMEOUT)
    return reports[True], _in_kafka(broker, topics)


def ours(broker: str, topics: Sequence[str], records: Sequence[bytes]) -> tuple[int, int]:
    """Sends by the library's sink; returns as `bare`."""
    reports: Counter[bool] = Counter()
    transport = KafkaTransport(Settings("benchmark", broker, "benchmark-commands", "benchmark-reply", {}))
    sink = transport.sink()

    def send(topic: str, value: bytes) -> None:
        sink.send(topic, value, on_delivery=lambda error: reports.update([error is None]))

    _measure(broker, topics, records, send)
    sink.close(TIMEOUT)
    transport.close(TIMEOUT)
    return reports[True], _in_kafka(broker, topics)


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=int, default=400)
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--kafka", metavar="HOST:PORT")
    arguments = parser.parse_args()
    records = [str(number).encode() for number in range(arguments.records)]
    cases: dict[str, Callable[[str, Sequence[str], Sequence[bytes]], tuple[int, int]]] = {
        "confluent_kafka, five requests on the way": partial(bare, requests=5),
        "confluent_kafka, one request on the way": partial(bare, requests=1),
        "k2eg_rx": ours,
    }
    lost = 0
    with kafka(arguments.kafka) as broker:
        for name, case in cases.items():
            mark = uuid.uuid4().hex[:8]
            topics = [f"benchmark-{mark}-{number}" for number in range(arguments.topics)]
            delivered, stored = case(broker, topics, records)
            lost = delivered - stored
            print(f"{name:<42} {delivered:>7,} delivered {stored:>7,} in Kafka {lost:>5,} lost", flush=True)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
