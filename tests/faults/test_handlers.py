"""Handlers that raise, that call back into the client, and that unsubscribe themselves, on Apache Kafka."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from reactivex import abc

from k2eg_rx import PVUpdate, first

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long


class Calls:
    """What a handler was called with, and what came of its own calls."""

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


def test_what_handlers_do_is_their_own(site: Any, witness: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway = site.gateway()
    client = site.client()
    (uri,) = site.uris(1)
    client.monitor_stream(uri).subscribe(witness.see, witness.end, witness.end)

    errors = Calls()

    def fails(_update: PVUpdate) -> None:
        raise RuntimeError("the handler's own")

    client.monitor_stream(uri).subscribe(fails, errors.add)

    answers = Calls()

    def asks(update: PVUpdate) -> None:
        if len(answers.items) < 3:
            put = first(client.put_stream(uri, update.value, timeout=PATIENCE))
            answers.add((put.error, first(client.get_stream(uri, timeout=PATIENCE)).name))

    client.monitor_stream(uri).subscribe(asks)

    seen = Calls()
    subscriptions: list[abc.DisposableBase] = []
    subscribed = threading.Event()

    def leaves(update: PVUpdate) -> None:
        seen.add(update.value)
        assert subscribed.wait(PATIENCE)
        subscriptions[0].dispose()

    subscriptions.append(client.monitor_stream(uri).subscribe(leaves))
    subscribed.set()

    (error,) = errors.wait_for(1)
    assert isinstance(error, RuntimeError)
    assert uri.removeprefix("pva://") in caplog.text
    assert answers.wait_for(3) == [(0, uri.removeprefix("pva://"))] * 3
    witness.wait_for_progress(10)
    assert len(seen.items) == 1, "none after it has unsubscribed"

    closed = Calls()

    def closes(_update: PVUpdate) -> None:
        client.close()
        closed.add(client.status.monitors)

    witness.wait_for_last(gateway.quiet())
    gateway.tick()
    client.monitor_stream(uri).subscribe(closes)
    assert closed.wait_for(1) == [0]
    witness.wait_until(lambda: bool(witness.ends), "the end of the stream")
    assert witness.ends == ["completed"]
    (values,) = witness.values.values()
    assert values == list(range(values[0], values[0] + len(values))), "the others miss nothing"
