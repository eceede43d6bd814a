"""A subscriber that sleeps through a flood: what is lost, what is counted, who waits, and how much memory it takes."""

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

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
FLOOD = 40_000  # events
SIZE = 4_000  # bytes of each: 160 MB, some ten times what a client prefetches
# What a consumer prefetches (16 MiB) and one answer more, a mailbox, and what the allocator keeps.
RSS_SLACK = 72 << 20
PREFETCHED = 2_000  # events that wait in the client for its subscriber, at least, when it has read what it may
SMALL = 20_000  # events, where it is their number that counts
CAPACITY = 100


def resident() -> int:
    """The bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(broker: str, name: str, count: int, size: int = 0) -> None:
    """Produces events of a PV with the values 1 to `count`, as fast as the broker takes them; returns when it has."""
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


class Sleeper:
    """Keeps values, and sleeps from the first one on until it is woken."""

    def __init__(self, *, asleep: bool = True) -> None:
        self.changed = threading.Condition()
        self.values: list[int] = []
        self.ends: list[object] = []
        self.sleeps = threading.Event()
        self._woken = threading.Event()
        if not asleep:
            self._woken.set()

    def see(self, update: PVUpdate) -> None:
        with self.changed:
            self.values.append(update.value)
            self.changed.notify_all()
        self.sleeps.set()
        self._woken.wait()

    def wake(self) -> None:
        self._woken.set()

    def wait_for(self, value: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.values[-1:] == [value], PATIENCE), self.values[-3:]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    sleeper = Sleeper()
    yield sleeper
    sleeper.wake()  # or closing would wait for it


def gets_work(client: Client, uri: str) -> None:
    assert first(client.get_stream(uri, timeout=PATIENCE)).name == uri.removeprefix("pva://")


def test_one_that_blocks_loses_nothing_and_memory_is_bounded(site: Any, sleeper: Sleeper) -> None:
    site.gateway(rate=0.001)  # one event of each PV
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri).subscribe(sleeper.see, sleeper.ends.append)
    assert sleeper.sleeps.wait(PATIENCE)
    gets_work(client, uri)
    before = resident()
    flood(site.broker, uri.removeprefix("pva://"), FLOOD, SIZE)
    deadline = time.monotonic() + PATIENCE
    while client.status.lag < PREFETCHED:  # looked at once a second; of the rest it will know when it reads on
        assert time.monotonic() < deadline, client.status
        time.sleep(0.1)
    gets_work(client, uri)
    asleep = resident()
    assert sleeper.values == [0]
    sleeper.wake()
    sleeper.wait_for(FLOOD)
    assert sleeper.values == list(range(FLOOD + 1))
    assert (client.status.dropped, sleeper.ends) == (0, [])
    for grown in (asleep - before, resident() - before):
        assert grown < RSS_SLACK, f"{grown >> 20} MiB more, of {FLOOD * SIZE >> 20} MiB"


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_one_that_drops_counts_what_it_drops_and_nobody_else_waits(site: Any, sleeper: Sleeper, overflow: str) -> None:
    site.gateway(rate=0.001)
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri, overflow=overflow, capacity=CAPACITY).subscribe(sleeper.see, sleeper.ends.append)
    other = Sleeper(asleep=False)
    client.monitor_stream(uri).subscribe(other.see, other.ends.append)
    assert sleeper.sleeps.wait(PATIENCE)
    flood(site.broker, uri.removeprefix("pva://"), SMALL)
    other.wait_for(SMALL)
    assert other.values == list(range(SMALL + 1)), "in full, while the first one sleeps"
    gets_work(client, uri)
    waiting = 1 if overflow == "latest" else CAPACITY
    assert sleeper.values == [0]
    assert client.status.dropped == SMALL - waiting
    sleeper.wake()
    sleeper.wait_for(SMALL)
    assert sleeper.values == [0, *range(SMALL - waiting + 1, SMALL + 1)]
    assert client.status.dropped == SMALL - waiting
    assert (sleeper.ends, other.ends) == ([], [])
