"""Several clients: of one application, and in one process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import reactivex as rx
from reactivex import operators as ops

from k2eg_rx import Client, first

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
CLIENTS = 10


def get_all(client: Client, uris: list[str]) -> Counter[str]:
    """Gets PVs concurrently; counts the answers by name."""
    gets = rx.merge(*(client.get_stream(uri, timeout=PATIENCE) for uri in uris))
    return Counter(data.name for data in first(gets.pipe(ops.to_list())))


def get_all_from(clients: list[Client], uris: list[str]) -> list[Counter[str]]:
    """Gets PVs from several clients concurrently."""
    answers: list[Counter[str]] = []
    threads = [threading.Thread(target=lambda c=c: answers.append(get_all(c, uris))) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_clients_of_one_application_each_receive_everything(site: Any, make_collector: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(20)
    clients = [site.client("shared"), site.client("shared")]
    collectors = [make_collector() for _ in clients]
    for client, collector in zip(clients, collectors, strict=True):
        client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    each_once = Counter(uri.removeprefix("pva://") for uri in uris)
    assert get_all_from(clients, uris) == [each_once, each_once]
    for collector in collectors:
        collector.wait_until(lambda c=collector: len(c.values) == len(uris), "all PVs")
        collector.wait_for_progress()
    clients[1].close()
    collectors[0].wait_for_progress()
    assert get_all_from(clients[:1], uris) == [each_once]
    collectors[0].wait_for_last_values(gateway.pause())
    assert collectors[0].ends == []
    assert collectors[1].ends == ["completed"]
    for values in collectors[0].values.values():
        assert values == list(range(values[0], values[0] + len(values)))


def test_ten_clients_in_one_process(site: Any, make_collector: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(10)
    clients = [site.client() for _ in range(CLIENTS)]
    collectors = [make_collector() for _ in clients]
    for client, collector in zip(clients, collectors, strict=True):
        client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    each_once = Counter(uri.removeprefix("pva://") for uri in uris)
    assert get_all_from(clients, uris) == [each_once] * CLIENTS
    for collector in collectors:
        collector.wait_until(lambda c=collector: len(c.values) == len(uris), "all PVs")
    last = gateway.pause()
    for collector in collectors:
        collector.wait_for_last_values(last)
        assert collector.ends == []
        for values in collector.values.values():
            assert values == list(range(values[0], values[0] + len(values)))
