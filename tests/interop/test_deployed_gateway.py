"""What the deployed gateway does that this project's client has to bear, with a stand-in; see `recorded_gateway`."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apache_kafka import ApacheKafka, ExternalKafka
from confluent_kafka import Producer
from recorded_gateway import RecordedGateway

from k2eg_rx import Client, Settings, SnapshotProperties

TIMEOUT = 60.0  # seconds until something that should happen is missing


class Collected:
    """The items of a stream, which a test waits for."""

    def __init__(self, stream: Any) -> None:
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self._changed = threading.Condition()
        self.subscription = stream.subscribe(self._add, self._fail)

    def _add(self, item: Any) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def until(self, happened: Callable[[list[Any]], object]) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.errors or happened(self.items), TIMEOUT), self.items[-3:]
        assert not self.errors
        return list(self.items)


class Site:
    """A stand-in and clients of it."""

    def __init__(self, broker: str, gateway: RecordedGateway, commands: str, prefix: str) -> None:
        self.broker = broker
        self.gateway = gateway
        self.commands = commands
        self.prefix = prefix

    def uri(self, name: str) -> str:
        return f"pva://{self.prefix}{name}"

    def client(self, **options: Any) -> Client:
        application = f"{self.commands}-app"
        settings = Settings("site", self.broker, self.commands, f"{application}-reply")
        return Client("site", application, settings=settings, **options)


@pytest.fixture
def make_site(apache_kafka: ApacheKafka | ExternalKafka) -> Iterator[Callable[..., Site]]:
    """Starts a stand-in with PVs of its own; takes its options."""
    started: list[RecordedGateway] = []

    def make(**options: Any) -> Site:
        mark = uuid.uuid4().hex[:8]
        commands, prefix = f"bear-{mark}", f"bear:{mark}:"
        gateway = RecordedGateway(apache_kafka.address, commands, [prefix], **options).start()
        started.append(gateway)
        return Site(apache_kafka.address, gateway, commands, prefix)

    yield make
    for gateway in started:
        gateway.close()


def test_old_values_after_activations_of_others_are_not_handed_over(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.gateway.topic_seconds = 0.0
    uri, activations = site.uri("count1"), 15
    producer = Producer({"bootstrap.servers": site.broker, "linger.ms": 0})
    with site.client() as client:
        seen = Collected(client.monitor_stream(uri))
        seen.until(lambda items: len(items) >= 3)
        topic = f"{site.prefix}count1".replace(":", "_")
        for number in range(activations):
            command = {"command": "monitor", "pv_name": uri, "monitor_dest_topic": topic, "activate": True}
            reply = {"reply_topic": f"{site.commands}-others-reply", "reply_id": str(number)}
            producer.produce(site.commands, json.dumps(command | reply | {"serialization": "msgpack"}))
        assert producer.flush(TIMEOUT) == 0
        assert site.gateway.refreshed.wait_for(activations, TIMEOUT)
        newest = seen.items[-1].value
        values = [update.value for update in seen.until(lambda items: items[-1].value > newest + 2)]
    assert all(before < after for before, after in itertools.pairwise(values)), values


def test_a_slow_multi_monitor_is_no_error(make_site: Callable[..., Site]) -> None:
    """The reply comes when all topics are made, long after the client's timeout; events flow meanwhile."""
    site = make_site()
    site.gateway.topic_seconds = 0.5
    names = ["count1", "count2", "count3", "still1", "still2", "still3"]
    with site.client(timeout=1.0) as client:
        seen = Collected(client.monitor_many_stream([site.uri(name) for name in names]))
        items = seen.until(lambda items: {update.name for update in items} == {site.prefix + n for n in names})
    assert {update.value for update in items} >= {41.0, 42.0, 43.0}


@pytest.mark.parametrize("unit", ["milliseconds", "nanoseconds"])
def test_time_stamps_of_iterations_are_told_apart_by_their_size(make_site: Callable[..., Site], unit: str) -> None:
    site = make_site(numbered=True, nanoseconds=unit == "nanoseconds")
    properties = SnapshotProperties("times", [site.uri("count1")], time_window=200)
    with site.client() as client:
        began = time.time_ns()
        seen = Collected(client.snapshot_recurring_stream(properties))
        snapshot = seen.until(lambda items: len(items) >= 2)[1]
    for stamp in (snapshot.timestamp, snapshot.header_timestamp):
        assert abs(stamp - began) < 3600 * 10**9, stamp
