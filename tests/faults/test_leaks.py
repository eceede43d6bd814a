"""Ten thousand gets and a thousand monitors that come and go leave nothing behind."""

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

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
ASK = 0.1  # seconds between looks at what the system knows of this process
GETS = 1_000
BATCHES = 10
WARMING = 3  # batches after which the allocator has what it keeps
AT_ONCE = 64
MONITORS = 20
ROUNDS = 50
RSS_SLACK = 12 << 20  # what the allocator keeps goes up and down by some MiB; a get that is kept takes 16 kB


def resident() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def belongings(client: Client, others: set[threading.Thread]) -> dict[str, int]:
    """What there could be too much of; the threads of others may end meanwhile."""
    status = client.status
    return {
        "threads": len(set(threading.enumerate()) - others),
        "files": len(os.listdir("/proc/self/fd")),
        "requests": status.pending,
        "monitors": status.monitors,
        "topics": len(client._core.event_source._readings),  # type: ignore[attr-defined]
    }


def gets(client: Client, uri: str, count: int) -> Counter[str]:
    """Gets a PV so many times, each tenth time one that does not answer."""

    def get(number: int) -> Observable[str]:
        if number % 10:
            return client.get_stream(uri, timeout=PATIENCE).pipe(ops.map(lambda data: "value"))
        asked = client.get_stream("pva://nobody", timeout=0.1)
        return asked.pipe(ops.map(lambda data: "?"), ops.catch(lambda error, _: rx.of(type(error).__name__)))

    several = rx.from_iterable(range(count)).pipe(ops.map(get), ops.merge(max_concurrent=AT_ONCE), ops.to_list())
    return Counter(first(several))


def cycles(client: Client, uris: list[str], rounds: int) -> None:
    """Monitors PVs and stops, in each second round before an event has come."""
    for number in range(rounds):
        streams = [client.monitor_stream(uri) for uri in uris]
        if number % 2:
            for subscription in [stream.subscribe() for stream in streams]:
                subscription.dispose()
        else:
            first(rx.merge(*(stream.pipe(ops.take(1)) for stream in streams)).pipe(ops.to_list()))


def test_gets_and_monitors_leave_nothing_behind(site: Any) -> None:
    site.gateway(operation_timeout=30.0)  # for the one that never answers; the others are not to fail for a pause
    others = set(threading.enumerate())
    client = site.client()
    uris = site.uris(MONITORS)
    for _ in range(WARMING):
        gets(client, uris[0], GETS)
    cycles(client, uris, WARMING)
    gc.collect()
    memory, before = resident(), belongings(client, others)
    assert (before["requests"], before["monitors"], before["topics"]) == (0, 0, 0)

    for _ in range(BATCHES):
        assert gets(client, uris[0], GETS) == {"value": GETS - GETS // 10, OperationTimeout.__name__: GETS // 10}
    cycles(client, uris, ROUNDS)

    deadline = time.monotonic() + PATIENCE
    while any(count > before[kind] for kind, count in belongings(client, others).items()):
        assert time.monotonic() < deadline, (before, belongings(client, others))
        time.sleep(ASK)
    gc.collect()
    assert resident() - memory < RSS_SLACK, f"{(resident() - memory) >> 20} MiB more"
