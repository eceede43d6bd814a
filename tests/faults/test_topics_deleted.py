"""A PV's topic is deleted, and created again with more partitions or by the gateway, with and without updates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

SILENCE = 3.0  # seconds without events until the client repeats a monitor command
POLL_INTERVAL = 0.2  # seconds between requests; Kafka does not report new topics
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


def finish(requests: Mapping[str, Future[Any]], *, ignored: int | None = None) -> None:
    """Waits for the results of requests; ignores one error code."""
    for future in requests.values():
        try:
            future.result(PATIENCE)
        except KafkaException as failure:
            if failure.args[0].code() != ignored:
                raise


def recreate(admin: AdminClient, topic: str, partitions: int) -> None:
    """Deletes and creates a topic; repeats that if a publishing gateway has created it in between."""
    while True:
        finish(admin.delete_topics([topic]), ignored=KafkaError.UNKNOWN_TOPIC_OR_PART)
        finish(admin.create_topics([NewTopic(topic, partitions)]), ignored=KafkaError.TOPIC_ALREADY_EXISTS)
        if len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == partitions:
            return


@pytest.mark.parametrize("paused", [True, False], ids=["paused", "counting"])
def test_a_topic_created_again_with_more_partitions_is_read(site: Any, collector: Any, paused: bool) -> None:
    admin = AdminClient({"bootstrap.servers": site.broker})
    gateway = site.gateway()
    client = site.client(silence=SILENCE)
    deleted, other = site.uris(2)
    client.monitor_many_stream([deleted, other]).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: len(collector.values) == 2, "both PVs")
    collector.wait_for_progress()
    if paused:
        collector.wait_for_last_values(gateway.pause())
    recreate(admin, deleted.removeprefix("pva://").replace(":", "_"), 5)
    gateway.resume()
    collector.wait_for_progress(20)
    collector.wait_for_last_values(gateway.pause())
    assert collector.ends == []
    values = collector.values[deleted.removeprefix("pva://")]
    # The PV's key selects another partition of the new topic; there is no order between partitions, and updates that
    # were deleted with the topic are lost.
    assert len(values) == len(set(values)), "values repeat"
    untouched = collector.values[other.removeprefix("pva://")]
    assert untouched == list(range(untouched[0], untouched[0] + len(untouched)))


@pytest.mark.parametrize("paused", [True, False], ids=["paused", "counting"])
def test_a_deleted_topic_is_created_by_the_gateway(
    make_apache_kafka: Any, make_site: Any, collector: Any, paused: bool
) -> None:
    """Without automatic creation, and without repeated commands, which by default are sent after 60 s."""
    broker = make_apache_kafka({"auto.create.topics.enable": "false"})
    site = make_site(broker.address)
    admin = AdminClient({"bootstrap.servers": site.broker})
    finish(admin.create_topics([NewTopic(f"commands-{site.name}", 1)]))
    gateway = site.gateway()
    client = site.client(silence=10 * PATIENCE)
    (uri,) = site.uris(1)
    topic = uri.removeprefix("pva://").replace(":", "_")
    client.monitor_stream(uri).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: bool(collector.values), "the PV")
    collector.wait_for_progress()
    if paused:
        collector.wait_for_last_values(gateway.pause())
    finish(admin.delete_topics([topic]))
    if paused:  # the client notices, and repeats its command
        deadline = time.monotonic() + PATIENCE
        while topic not in admin.list_topics(timeout=PATIENCE).topics:
            assert time.monotonic() < deadline, "the topic is not created"
            time.sleep(POLL_INTERVAL)
        gateway.resume()
    collector.wait_for_progress(20)
    collector.wait_for_last_values(gateway.pause())
    assert collector.ends == []
    assert len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == 3, "not created by the gateway"
