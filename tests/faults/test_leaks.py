"""Leaks of threads, files, requests, topics and memory over 10,000 gets and 1,000 monitors."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, OperationTimeout, first

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
POLL_INTERVAL = 0.1  # seconds between measurements
GETS = 1_000
BATCHES = 10
WARM_UP = 3  # batches after which the allocator's reserve no longer grows
CONCURRENT = 64
MONITORS = 20
ROUNDS = 50
RSS_SLACK = 12 << 20  # bytes; the allocator's reserve varies by some MiB, and a leaked get takes 16 kB


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def resources(client: Client, others: set[threading.Thread]) -> dict[str, int]:
    """Counts what could leak; does not count the threads of `others`, which may end meanwhile."""
    status = client.status
    return {
        "threads": len(set(threading.enumerate()) - others),
        "files": len(os.listdir("/proc/self/fd")),
        "requests": status.pending,
        "monitors": status.monitors,
        "topics": len(client._core.event_source._subscriptions),  # type: ignore[attr-defined]
    }


def wait_until_idle(client: Client, others: set[threading.Thread]) -> None:
    """Waits until nothing is under way: an event may arrive before the reply to the activation."""
    deadline = time.monotonic() + PATIENCE
    while any((now := resources(client, others))[kind] for kind in ("requests", "monitors", "topics")):
        assert time.monotonic() < deadline, now
        time.sleep(POLL_INTERVAL)


def gets(client: Client, uri: str, count: int) -> Counter[str]:
    """Gets a PV a number of times, and every tenth time one that does not answer; counts the results."""

    def get(number: int) -> Observable[str]:
        if number % 10:
            return client.get_stream(uri, timeout=PATIENCE).pipe(ops.map(lambda data: "value"))
        unanswered = client.get_stream("pva://silent", timeout=0.1)
        return unanswered.pipe(ops.map(lambda data: "?"), ops.catch(lambda error, _: rx.of(type(error).__name__)))

    several = rx.from_iterable(range(count)).pipe(ops.map(get), ops.merge(max_concurrent=CONCURRENT), ops.to_list())
    return Counter(first(several))


def cycles(client: Client, uris: list[str], rounds: int) -> None:
    """Monitors PVs and unsubscribes, in every second round before an event has arrived."""
    for number in range(rounds):
        streams = [client.monitor_stream(uri) for uri in uris]
        if number % 2:
            for subscription in [stream.subscribe() for stream in streams]:
                subscription.dispose()
        else:
            first(rx.merge(*(stream.pipe(ops.take(1)) for stream in streams)).pipe(ops.to_list()))


def test_gets_and_monitors_leak_nothing(site: Any) -> None:
    site.gateway(operation_timeout=30.0)  # for the silent PV; the others must not fail during a pause of the machine
    others = set(threading.enumerate())
    client = site.client()
    uris = site.uris(MONITORS)
    for _ in range(WARM_UP):
        gets(client, uris[0], GETS)
    cycles(client, uris, WARM_UP)
    wait_until_idle(client, others)
    gc.collect()
    memory, before = resident_bytes(), resources(client, others)

    for _ in range(BATCHES):
        assert gets(client, uris[0], GETS) == {"value": GETS - GETS // 10, OperationTimeout.__name__: GETS // 10}
    cycles(client, uris, ROUNDS)

    deadline = time.monotonic() + PATIENCE
    while any(count > before[kind] for kind, count in resources(client, others).items()):
        assert time.monotonic() < deadline, (before, resources(client, others))
        time.sleep(POLL_INTERVAL)
    gc.collect()
    assert resident_bytes() - memory < RSS_SLACK, f"{(resident_bytes() - memory) >> 20} MiB more"
