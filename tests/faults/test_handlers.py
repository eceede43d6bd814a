"""Handlers that raise, that call the client, and that unsubscribe themselves."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from reactivex import abc

from k2eg_rx import PVUpdate, first

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


class Calls:
    """Collects what handlers report."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.items: list[Any] = []

    def add(self, item: Any) -> None:
        with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.items) >= count, PATIENCE), self.items
            return list(self.items)


def test_handlers_do_not_affect_other_subscribers(site: Any, collector: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway = site.gateway()
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri).subscribe(collector.on_next, collector.on_end, collector.on_end)

    errors = Calls()

    def fails(_update: PVUpdate) -> None:
        raise RuntimeError("in the handler")

    client.monitor_stream(uri).subscribe(fails, errors.add)

    replies = Calls()

    def requests(update: PVUpdate) -> None:
        if len(replies.items) < 3:
            put = first(client.put_stream(uri, update.value, timeout=PATIENCE))
            replies.add((put.error, first(client.get_stream(uri, timeout=PATIENCE)).name))

    client.monitor_stream(uri).subscribe(requests)

    received = Calls()
    subscriptions: list[abc.DisposableBase] = []
    subscribed = threading.Event()

    def unsubscribes(update: PVUpdate) -> None:
        received.add(update.value)
        assert subscribed.wait(PATIENCE)
        subscriptions[0].dispose()

    subscriptions.append(client.monitor_stream(uri).subscribe(unsubscribes))
    subscribed.set()

    (error,) = errors.wait_for(1)
    assert isinstance(error, RuntimeError)
    assert uri.removeprefix("pva://") in caplog.text
    assert replies.wait_for(3) == [(0, uri.removeprefix("pva://"))] * 3
    collector.wait_for_progress(10)
    assert len(received.items) == 1, "updates after unsubscribing"

    closed = Calls()

    def closes(_update: PVUpdate) -> None:
        client.close()
        closed.add(client.status.monitors)

    collector.wait_for_last_values(gateway.pause())
    gateway.resume()
    client.monitor_stream(uri).subscribe(closes)
    assert closed.wait_for(1) == [0]
    collector.wait_until(lambda: bool(collector.ends), "the end of the stream")
    assert collector.ends == ["completed"]
    (values,) = collector.values.values()
    assert values == list(range(values[0], values[0] + len(values))), "another subscriber misses values"
