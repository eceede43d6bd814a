"""A thousand monitored PVs in one client, with existing topics and with topics that the gateway creates."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from apache_kafka import ApacheKafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

MANY = 1000
CREATION_LIMIT = 400.0  # seconds in which a busy broker creates 3000 partitions
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
POLL_INTERVAL = 0.2  # seconds between requests; a broker does not report when a new topic can be read
MEMORY = Path("/dev/shm")


@pytest.fixture
def broker_in_memory(make_apache_kafka: Callable[..., ApacheKafka]) -> Iterator[ApacheKafka]:
    """A broker with its files in memory if possible: on a disk each partition waits for writes."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, ignore_cleanup_errors=True) as folder:
        broker = make_apache_kafka({"log.dirs": f"{folder}/data"})
        yield broker
        broker.kill()  # a shutdown would write checkpoints of all partitions


def create_topics(broker: str, topics: Sequence[str]) -> None:
    """Creates topics; returns when they can be read."""
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics([NewTopic(topic, 1) for topic in topics], request_timeout=PATIENCE).values():
        future.result(PATIENCE)
    request: dict[TopicPartition, Any] = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    deadline = time.monotonic() + PATIENCE
    while any(future.exception() for future in admin.list_offsets(request, request_timeout=PATIENCE).values()):
        assert time.monotonic() < deadline, "topics cannot be read"
        time.sleep(POLL_INTERVAL)


@pytest.mark.parametrize("topics", ["existing", "missing"])
def test_a_thousand_monitored_pvs_in_one_client(
    broker_in_memory: ApacheKafka, make_site: Callable[[str], Any], collector: Any, topics: str
) -> None:
    site = make_site(broker_in_memory.address)
    uris = site.uris(MANY)
    if topics == "existing":
        create_topics(site.broker, [uri.removeprefix("pva://").replace(":", "_") for uri in uris])
    gateway = site.gateway(rate=0.5)
    client = site.client()
    client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: len(collector.values) == MANY, "all PVs", CREATION_LIMIT)
    assert client.status.monitors == MANY
    collector.wait_for_progress(2)
    collector.wait_for_last_values(gateway.pause())
    assert collector.ends == []
    for values in collector.values.values():
        assert values == list(range(values[0], values[0] + len(values)))
