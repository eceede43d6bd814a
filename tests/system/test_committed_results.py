"""Results of another program, read from a topic and put to a PV."""

from __future__ import annotations

import json
import uuid
from contextlib import closing

from confluent_kafka import Consumer, Producer, TopicPartition
from reactivex import operators as ops

from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.operators import PutReport, put_to
from k2eg_rx.quix import committed_results

from .conftest import TIMEOUT, Collected


def test_each_result_is_put_once_and_within_the_limits(stack: EmbeddedStack, client: Client) -> None:
    broker = {"bootstrap.servers": stack.broker_address}
    topic, group = f"results-{uuid.uuid4().hex[:8]}", f"corrector-{uuid.uuid4().hex[:8]}"
    producer = Producer(broker)
    while not (partitions := producer.list_topics(topic, TIMEOUT).topics[topic].partitions):
        pass  # the broker creates it
    with closing(Consumer({**broker, "group.id": group})) as consumer:  # the group reads from the beginning
        consumer.commit(offsets=[TopicPartition(topic, number, 0) for number in partitions], asynchronous=False)

    def add(mean: float) -> None:
        producer.produce(topic, json.dumps({"name": "demo:sine10", "mean": mean}), b"demo:sine10")
        producer.flush(TIMEOUT)

    def correcting() -> Collected[PutReport]:
        results = committed_results(client.settings, topic, group, max_age=3600.0)
        numbers = results.pipe(ops.map(lambda result: result.value["mean"]))
        return Collected(numbers.pipe(put_to(client, "pva://demo:quad", limits=(0.0, 5.0), rate=100.0)))

    first = correcting()
    for written, mean in enumerate((2.0, 9.0), 1):
        add(mean)
        first.until_count(written)
    first.subscription.dispose()
    assert [(report.wanted, report.value, report.error) for report in first.items] == [
        (2.0, 2.0, None),
        (9.0, 5.0, None),
    ]
    assert client.get("pva://demo:quad").value == 5.0

    client.put("pva://demo:quad", 1.0)
    add(3.0)
    second = correcting()  # goes on where the first one has ended
    assert [report.value for report in second.until_count(1)] == [3.0]
    second.subscription.dispose()
    assert client.get("pva://demo:quad").value == 3.0
