"""A broker that is killed and restarted, then suspended, during monitors of 50 PVs and continuous gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from apache_kafka import ApacheKafka
from timeouts import scaled_by_load

from k2eg_rx import Client, ConnectionState, K2EGError, OperationTimeout, Status, first

PVS = 50
RATE = 20.0
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
GET_TIMEOUT = 2.0
SUSPENDED = 20.0  # seconds, longer than the clients' delivery timeout


class Gets:
    """Repeats a get on a thread; keeps the error type, if any, and the duration of each."""

    def __init__(self, client: Client, uri: str) -> None:
        self.changed = threading.Condition()
        self.outcomes: list[tuple[type[Exception] | None, float]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(client, uri))
        self._thread.start()

    def _run(self, client: Client, uri: str) -> None:
        while not self._stopped:
            started = time.monotonic()
            kind: type[Exception] | None = None
            try:
                first(client.get_stream(uri, timeout=GET_TIMEOUT))
            except K2EGError as error:
                kind = type(error)
            with self.changed:
                self.outcomes.append((kind, time.monotonic() - started))
                self.changed.notify_all()

    def wait_for(self, kind: type[Exception] | None) -> None:
        """Waits until a get that starts after this call ends with that error type, or None."""
        with self.changed:
            start = len(self.outcomes) + 1
            assert self.changed.wait_for(lambda: any(kind is k for k, _ in self.outcomes[start:]), PATIENCE)

    def stop(self) -> list[tuple[type[Exception] | None, float]]:
        self._stopped = True
        self._thread.join()
        return self.outcomes


class Statuses:
    """Keeps the connection states in order, with their reasons."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.seen: list[ConnectionState] = []
        self.reasons: list[str] = []

    def on_next(self, status: Status) -> None:
        with self.changed:
            if self.seen[-1:] != [status.connection]:
                self.seen.append(status.connection)
                self.reasons.append(status.reason)
                self.changed.notify_all()

    def wait_for(self, *last: ConnectionState) -> None:
        """Waits until those are the last states."""
        with self.changed:
            assert self.changed.wait_for(lambda: tuple(self.seen[-len(last) :]) == last, PATIENCE), self.seen


def consecutive(values: Sequence[int]) -> bool:
    return list(values) == list(range(values[0], values[0] + len(values)))


def test_streams_continue_after_a_killed_and_a_suspended_broker(
    make_apache_kafka: Callable[..., ApacheKafka], make_site: Callable[[str], Any], collector: Any
) -> None:
    broker = make_apache_kafka()
    site = make_site(broker.address)
    gateway = site.gateway(RATE)
    client = site.client()
    uris = site.uris(PVS)
    statuses = Statuses()
    client.status_stream().subscribe(statuses.on_next)
    client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: len(collector.values) == PVS, "all PVs")
    statuses.wait_for(ConnectionState.UP)
    gets = Gets(client, uris[0])
    try:
        gets.wait_for(None)
        broker.kill()
        statuses.wait_for(ConnectionState.UP, ConnectionState.DOWN)
        gets.wait_for(OperationTimeout)
        broker.start()
        statuses.wait_for(ConnectionState.DOWN, ConnectionState.UP)
        collector.wait_for_progress()
        gets.wait_for(None)

        broker.suspend()
        suspended = time.monotonic()
        statuses.wait_for(ConnectionState.UP, ConnectionState.DOWN)
        gets.wait_for(OperationTimeout)
        time.sleep(max(0.0, suspended + SUSPENDED - time.monotonic()))
        broker.resume()
        statuses.wait_for(ConnectionState.DOWN, ConnectionState.UP)
        collector.wait_for_progress()
        gets.wait_for(None)
    finally:
        outcomes = gets.stop()
    last = gateway.pause()
    collector.wait_for_last_values(last)
    assert len(last) == PVS
    assert collector.ends == []
    assert {name: values for name, values in collector.values.items() if not consecutive(values)} == {}
    assert {kind for kind, _ in outcomes} == {None, OperationTimeout}
    assert max(seconds for _, seconds in outcomes) < GET_TIMEOUT + scaled_by_load(3.0), "in time"
    assert all(
        reason for state, reason in zip(statuses.seen, statuses.reasons, strict=True) if state is ConnectionState.DOWN
    )
