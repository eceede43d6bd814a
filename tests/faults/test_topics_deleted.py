"""A PV's topic is deleted and made again with another number of partitions, while the PV stands still and while it
does not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

SILENCE = 3.0  # seconds until the client asks again for what it does not hear of
ASK = 0.2  # seconds between questions: nobody tells when a topic is there
PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long


def finish(asked: Mapping[str, Future[Any]], *, but: int | None = None) -> None:
    """Waits until the broker has done what it was asked."""
    for future in asked.values():
        try:
            future.result(PATIENCE)
        except KafkaException as failure:
            if failure.args[0].code() != but:
                raise


def recreate(admin: AdminClient, topic: str, partitions: int) -> None:
    """Deletes a topic and makes it again; a gateway that publishes to it may be faster, and is deleted again."""
    while True:
        finish(admin.delete_topics([topic]), but=KafkaError.UNKNOWN_TOPIC_OR_PART)
        finish(admin.create_topics([NewTopic(topic, partitions)]), but=KafkaError.TOPIC_ALREADY_EXISTS)
        if len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == partitions:
            return


@pytest.mark.parametrize("standing", [True, False], ids=["standing-still", "changing"])
def test_a_topic_with_another_number_of_partitions_is_read_on(site: Any, witness: Any, standing: bool) -> None:
    admin = AdminClient({"bootstrap.servers": site.broker})
    gateway = site.gateway()
    client = site.client(silence=SILENCE)
    struck, other = site.uris(2)
    client.monitor_many_stream([struck, other]).subscribe(witness.see, witness.end, witness.end)
    witness.wait_until(lambda: len(witness.values) == 2, "both PVs")
    witness.wait_for_progress()
    if standing:
        witness.wait_for_last(gateway.quiet())
    recreate(admin, struck.removeprefix("pva://").replace(":", "_"), 5)
    gateway.tick()
    witness.wait_for_progress(20)
    witness.wait_for_last(gateway.quiet())
    assert witness.ends == []
    values = witness.values[struck.removeprefix("pva://")]
    # With another number of partitions the PV's key selects another one, and Kafka has no order among partitions.
    assert len(values) == len(set(values)), "each once; what was deleted with the topic is gone"
    untouched = witness.values[other.removeprefix("pva://")]
    assert untouched == list(range(untouched[0], untouched[0] + len(untouched)))


@pytest.mark.parametrize("standing", [True, False], ids=["standing-still", "changing"])
def test_a_deleted_topic_that_nobody_makes_again_is_made_by_the_gateway(
    make_apache_kafka: Any, make_site: Any, witness: Any, standing: bool
) -> None:
    """No broker that makes topics, and no client that asks again for what is silent: 60 s would be its default."""
    broker = make_apache_kafka({"auto.create.topics.enable": "false"})
    site = make_site(broker.address)
    admin = AdminClient({"bootstrap.servers": site.broker})
    finish(admin.create_topics([NewTopic(f"commands-{site.name}", 1)]))
    gateway = site.gateway()
    client = site.client(silence=10 * PATIENCE)
    (uri,) = site.uris(1)
    topic = uri.removeprefix("pva://").replace(":", "_")
    client.monitor_stream(uri).subscribe(witness.see, witness.end, witness.end)
    witness.wait_until(lambda: bool(witness.values), "the PV")
    witness.wait_for_progress()
    if standing:
        witness.wait_for_last(gateway.quiet())
    finish(admin.delete_topics([topic]))
    if standing:  # it is the client that has noticed, and has asked
        deadline = time.monotonic() + PATIENCE
        while topic not in admin.list_topics(timeout=PATIENCE).topics:
            assert time.monotonic() < deadline, "the topic is made again"
            time.sleep(ASK)
        gateway.tick()
    witness.wait_for_progress(20)
    witness.wait_for_last(gateway.quiet())
    assert witness.ends == []
    assert len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == 3, "made by the gateway"
