"""A subscriber that blocks during a flood: losses, counters, memory, and other subscribers."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from confluent_kafka import Producer

from k2eg_rx import Client, PVUpdate, first

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
FLOOD = 40_000  # events
SIZE = 4_000  # bytes of each: 160 MB in total, about ten times the consumer's prefetch
RSS_SLACK = 72 << 20  # bytes: the prefetch (16 MiB), one more fetch, the subscriber's queue, the allocator's reserve
PREFETCHED = 2_000  # events that a client holds at least once its buffers are full
SMALL = 20_000  # events, where only their number matters
CAPACITY = 100


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(broker: str, name: str, count: int, size: int = 0) -> None:
    """Produces events of a PV with the values 1 to `count` at full speed; returns when all are acknowledged."""
    producer = Producer({"bootstrap.servers": broker, "queue.buffering.max.kbytes": 8192, "linger.ms": 5})
    topic, padding = name.replace(":", "_"), b"x" * size
    for value in range(1, count + 1):
        stamp = {"secondsPastEpoch": value, "nanoseconds": 0, "userTag": 0}
        body = msgpack.packb({name: {"value": value, "timeStamp": stamp, "padding": padding}})
        while True:
            try:
                producer.produce(topic, body, name.encode(), headers=[("k2eg-ser-type", b"Msgpack")])
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0


class BlockingSubscriber:
    """Collects values; its callback blocks at the first one until it is released.

    The gateway's own event, value 0, counts once: on a busy machine the client asks again for its monitor, and the
    gateway then publishes the current value once more.
    """

    def __init__(self, *, blocks: bool = True) -> None:
        self.changed = threading.Condition()
        self.values: list[int] = []
        self.ends: list[object] = []
        self.blocked = threading.Event()
        self._released = threading.Event()
        if not blocks:
            self._released.set()

    def on_next(self, update: PVUpdate) -> None:
        with self.changed:
            if update.value or not self.values:
                self.values.append(update.value)
            self.changed.notify_all()
        self.blocked.set()
        self._released.wait()

    def release(self) -> None:
        self._released.set()

    def wait_for(self, value: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.values[-1:] == [value], PATIENCE), self.values[-3:]


@pytest.fixture
def blocking() -> Iterator[BlockingSubscriber]:
    blocking = BlockingSubscriber()
    yield blocking
    blocking.release()  # closing the client waits for callbacks


def check_get(client: Client, uri: str) -> None:
    assert first(client.get_stream(uri, timeout=PATIENCE)).name == uri.removeprefix("pva://")


def test_a_blocked_subscriber_loses_nothing_and_memory_is_bounded(site: Any, blocking: BlockingSubscriber) -> None:
    site.gateway(rate=0.001)  # one event of each PV
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri).subscribe(blocking.on_next, blocking.ends.append)
    assert blocking.blocked.wait(PATIENCE)
    check_get(client, uri)
    before = resident_bytes()
    flood(site.broker, uri.removeprefix("pva://"), FLOOD, SIZE)
    deadline = time.monotonic() + PATIENCE
    while client.status.lag < PREFETCHED:  # measured once a second; fetches beyond the buffers wait
        assert time.monotonic() < deadline, client.status
        time.sleep(0.1)
    check_get(client, uri)
    blocked = resident_bytes()
    assert blocking.values == [0]
    blocking.release()
    blocking.wait_for(FLOOD)
    assert blocking.values == list(range(FLOOD + 1))
    assert (client.status.dropped, blocking.ends) == (0, [])
    for growth in (blocked - before, resident_bytes() - before):
        assert growth < RSS_SLACK, f"{growth >> 20} MiB more, of {FLOOD * SIZE >> 20} MiB"


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_drops_are_counted_and_do_not_affect_other_subscribers(
    site: Any, blocking: BlockingSubscriber, overflow: str
) -> None:
    site.gateway(rate=0.001)
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri, overflow=overflow, capacity=CAPACITY).subscribe(blocking.on_next, blocking.ends.append)
    other = BlockingSubscriber(blocks=False)
    client.monitor_stream(uri).subscribe(other.on_next, other.ends.append)
    assert blocking.blocked.wait(PATIENCE)
    flood(site.broker, uri.removeprefix("pva://"), SMALL)
    other.wait_for(SMALL)
    assert other.values == list(range(SMALL + 1)), "the other subscriber misses values"
    check_get(client, uri)
    queued = 1 if overflow == "latest" else CAPACITY
    assert blocking.values == [0]
    assert client.status.dropped == SMALL - queued
    blocking.release()
    blocking.wait_for(SMALL)
    assert blocking.values == [0, *range(SMALL - queued + 1, SMALL + 1)]
    assert client.status.dropped == SMALL - queued
    assert (blocking.ends, other.ends) == ([], [])
