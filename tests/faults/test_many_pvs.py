"""Two thousand monitored PVs in one client: at a site that has been running for a while, and at a new one, whose topics
the gateway has to make first."""

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

MANY = 2000
SIX_THOUSAND_PARTITIONS = 400.0  # seconds until the broker has made them, with all else that it has to do meanwhile
PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
ASK = 0.2  # seconds between questions: a broker does not tell when it has made its files
MEMORY = Path("/dev/shm")


@pytest.fixture
def roomy_broker(make_apache_kafka: Callable[..., ApacheKafka]) -> Iterator[ApacheKafka]:
    """A broker that keeps its files in memory, if the system has files there: else each partition waits for a disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, ignore_cleanup_errors=True) as folder:
        broker = make_apache_kafka({"log.dirs": f"{folder}/data"})
        yield broker
        broker.kill()  # it would take its time to write down where it was


def make_topics(broker: str, topics: Sequence[str]) -> None:
    """Makes topics, and returns when they can be read."""
    admin = AdminClient({"bootstrap.servers": broker})
    for made in admin.create_topics([NewTopic(topic, 1) for topic in topics], request_timeout=PATIENCE).values():
        made.result(PATIENCE)
    asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    deadline = time.monotonic() + PATIENCE
    while any(known.exception() for known in admin.list_offsets(asked, request_timeout=PATIENCE).values()):
        assert time.monotonic() < deadline, "the broker makes topics"
        time.sleep(ASK)


@pytest.mark.parametrize("topics", ["there", "missing"])
def test_two_thousand_monitored_pvs_in_one_client(
    roomy_broker: ApacheKafka, make_site: Callable[[str], Any], witness: Any, topics: str
) -> None:
    site = make_site(roomy_broker.address)
    uris = site.uris(MANY)
    if topics == "there":
        make_topics(site.broker, [uri.removeprefix("pva://").replace(":", "_") for uri in uris])
    gateway = site.gateway(rate=0.5)
    client = site.client()
    client.monitor_many_stream(uris).subscribe(witness.see, witness.end, witness.end)
    witness.wait_until(lambda: len(witness.values) == MANY, "all PVs", SIX_THOUSAND_PARTITIONS)
    assert client.status.monitors == MANY
    witness.wait_for_progress(2)
    witness.wait_for_last(gateway.quiet())
    assert witness.ends == []
    for values in witness.values.values():
        assert values == list(range(values[0], values[0] + len(values)))
