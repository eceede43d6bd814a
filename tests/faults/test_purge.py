"""Deletion of the topics of expired monitors, and consumer groups that do not count, on Apache Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from k2eg_rx.pv import PVAddress, monitor_topic

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


def wait_until(happened: Callable[[], object], what: str) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.1)):
        if happened():
            return
        pause.wait(0.1)
    pytest.fail(f"waited for {what}")


@pytest.fixture
def listen(site) -> Iterator[Callable[[str, str], Consumer]]:
    """Joins a group that reads a topic."""
    with ExitStack() as stack:

        def join(group: str, topic: str) -> Consumer:
            consumer = Consumer({"bootstrap.servers": site.broker, "group.id": group, "auto.offset.reset": "latest"})
            stack.callback(consumer.close)
            consumer.subscribe([topic])
            wait_until(lambda: consumer.poll(0.1) is None and consumer.assignment(), f"{group} has joined")
            return consumer

        yield join


def test_topics_are_deleted_when_only_groups_that_do_not_count_are_left(site, collector, listen) -> None:
    options = {"monitor_expiration": 2.0, "purge": True, "ignored_groups": ".*k2eg.*"}
    site.gateway(group=f"k2eg-{site.name}", **options)
    uris = site.uris(3)
    topics = [monitor_topic(PVAddress.parse(uri).name) for uri in uris]
    client = site.client()
    client.monitor_many_stream(uris).subscribe(collector.on_next)
    collector.wait_for_progress(1)
    collector.wait_until(lambda: len(collector.values) == 3, "values of all PVs")
    listen(f"a-k2eg-node-{site.name}", topics[0])
    watcher = listen(f"watcher-{site.name}", topics[1])
    client.close()

    admin = AdminClient({"bootstrap.servers": site.broker})

    def left() -> set[str]:
        return admin.list_topics(timeout=PATIENCE).topics.keys() & set(topics)

    wait_until(lambda: left() == {topics[1]}, "the topics without listeners are gone")
    watcher.close()
    wait_until(lambda: not left(), "the last topic is gone")

    before = len(collector.values["".join(uris[0].split("://")[1:])])
    site.client().monitor_stream(uris[0]).subscribe(collector.on_next)
    collector.wait_until(lambda: sum(map(len, collector.values.values())) > before, "values on a topic made anew")
