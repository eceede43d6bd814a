"""Many at a time: clients of one application, clients in one process, PVs in one client."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import reactivex as rx
from reactivex import operators as ops

from k2eg_rx import Client, first

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
CLIENTS = 10


def get_all(client: Client, uris: list[str]) -> Counter[str]:
    """Gets PVs, all at once."""
    gets = rx.merge(*(client.get_stream(uri, timeout=PATIENCE) for uri in uris))
    return Counter(data.name for data in first(gets.pipe(ops.to_list())))


def all_get(clients: list[Client], uris: list[str]) -> list[Counter[str]]:
    """Has clients get PVs, at the same time."""
    answers: list[Counter[str]] = []
    threads = [threading.Thread(target=lambda c=c: answers.append(get_all(c, uris))) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_clients_of_one_application_each_have_all_of_their_own(site: Any, make_witness: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(20)
    clients = [site.client("twins"), site.client("twins")]
    witnesses = [make_witness() for _ in clients]
    for client, witness in zip(clients, witnesses, strict=True):
        client.monitor_many_stream(uris).subscribe(witness.see, witness.end, witness.end)
    each_once = Counter(uri.removeprefix("pva://") for uri in uris)
    assert all_get(clients, uris) == [each_once, each_once]
    for witness in witnesses:
        witness.wait_until(lambda seen=witness: len(seen.values) == len(uris), "all PVs")
        witness.wait_for_progress()
    clients[1].close()
    witnesses[0].wait_for_progress()
    assert all_get(clients[:1], uris) == [each_once]
    witnesses[0].wait_for_last(gateway.quiet())
    assert witnesses[0].ends == []
    assert witnesses[1].ends == ["completed"]
    for values in witnesses[0].values.values():
        assert values == list(range(values[0], values[0] + len(values)))


def test_ten_clients_in_one_process(site: Any, make_witness: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(10)
    clients = [site.client() for _ in range(CLIENTS)]
    witnesses = [make_witness() for _ in clients]
    for client, witness in zip(clients, witnesses, strict=True):
        client.monitor_many_stream(uris).subscribe(witness.see, witness.end, witness.end)
    each_once = Counter(uri.removeprefix("pva://") for uri in uris)
    assert all_get(clients, uris) == [each_once] * CLIENTS
    for witness in witnesses:
        witness.wait_until(lambda seen=witness: len(seen.values) == len(uris), "all PVs")
    last = gateway.quiet()
    for witness in witnesses:
        witness.wait_for_last(last)
        assert witness.ends == []
        for values in witness.values.values():
            assert values == list(range(values[0], values[0] + len(values)))
