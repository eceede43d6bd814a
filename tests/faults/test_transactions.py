"""History and live updates of a topic with a transaction that is open when a client subscribes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import monitor_topic

HOUR = timedelta(hours=1)
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


class Topic:
    """The topic of a PV, with a producer that writes to it at once and one that does so in transactions."""

    def __init__(self, broker: str, name: str) -> None:
        self._name, self._topic = name, monitor_topic(name)
        admin = AdminClient({"bootstrap.servers": broker})
        admin.create_topics([NewTopic(self._topic, 1)])[self._topic].result(PATIENCE)
        self._plain = Producer({"bootstrap.servers": broker})
        self.transactions = Producer({"bootstrap.servers": broker, "transactional.id": name})
        self.transactions.init_transactions(PATIENCE)

    def write(self, values: Sequence[int], *, in_transaction: bool = False) -> None:
        """Writes updates."""
        producer = self.transactions if in_transaction else self._plain
        for value in values:
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}
            alarm = {"severity": 0, "status": 0, "message": ""}
            body = pack({self._name: {"value": value, "alarm": alarm, "timeStamp": stamp}})
            producer.produce(self._topic, body, self._name, headers=[("k2eg-ser-type", b"Msgpack")])
        assert producer.flush(PATIENCE) == 0


def written(collector: Any) -> list[int]:
    """Returns the values that a collector has got, without the gateway's own."""
    return [value for values in collector.values.values() for value in values if value >= 100]


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "aborted"])
@pytest.mark.parametrize("place", ["beginning", "end"])
def test_since_includes_a_transaction_that_is_open_at_the_subscription(
    site: Any, make_collector: Any, place: str, committed: bool
) -> None:
    gateway = site.gateway()
    gateway.pause()  # what comes after the first value is written here
    (uri,) = site.uris(1)
    topic = Topic(site.broker, uri.removeprefix("pva://"))
    before = [*range(100, 105)] if place == "end" else []
    topic.write(before)
    topic.transactions.begin_transaction()
    topic.write(range(200, 205), in_transaction=True)

    subscribed, later = make_collector(), make_collector()
    client = site.client()
    client.monitor_stream(uri, since=HOUR).subscribe(subscribed.on_next, subscribed.on_end, subscribed.on_end)
    topic.write(range(300, 305))
    if before:
        subscribed.wait_until(lambda: set(before) <= set(written(subscribed)), "what is before the transaction")
    if committed:
        topic.transactions.commit_transaction(PATIENCE)
    else:
        topic.transactions.abort_transaction(PATIENCE)
    topic.write([400])

    site.client().monitor_stream(uri, since=HOUR).subscribe(later.on_next, later.on_end, later.on_end)
    expected = [*before, *(range(200, 205) if committed else ()), *range(300, 305), 400]
    for collector in (subscribed, later):
        collector.wait_until(lambda collector=collector: 400 in written(collector), "the last value")
        assert written(collector) == expected
        assert collector.ends == []
