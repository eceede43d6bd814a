"""The broker dies and comes back, and stands still for a while, under 50 monitored PVs and gets that go on."""

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
PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
GET_TIMEOUT = 2.0
FROZEN = 20.0  # seconds: longer than the clients' own patience with what they send


class Gets:
    """Gets one after the other, and what became of each."""

    def __init__(self, client: Client, uri: str) -> None:
        self.changed = threading.Condition()
        self.outcomes: list[tuple[type[Exception] | None, float]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(client, uri))
        self._thread.start()

    def _run(self, client: Client, uri: str) -> None:
        while not self._stopped:
            since = time.monotonic()
            kind: type[Exception] | None = None
            try:
                first(client.get_stream(uri, timeout=GET_TIMEOUT))
            except K2EGError as error:
                kind = type(error)
            with self.changed:
                self.outcomes.append((kind, time.monotonic() - since))
                self.changed.notify_all()

    def wait_for(self, kind: type[Exception] | None) -> None:
        """Waits until a get that begins from now on ends so."""
        with self.changed:
            start = len(self.outcomes) + 1
            assert self.changed.wait_for(lambda: any(kind is k for k, _ in self.outcomes[start:]), PATIENCE)

    def stop(self) -> list[tuple[type[Exception] | None, float]]:
        self._stopped = True
        self._thread.join()
        return self.outcomes


class Statuses:
    """The states of the connection, as they came."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.seen: list[ConnectionState] = []
        self.reasons: list[str] = []

    def see(self, status: Status) -> None:
        with self.changed:
            if self.seen[-1:] != [status.connection]:
                self.seen.append(status.connection)
                self.reasons.append(status.reason)
                self.changed.notify_all()

    def wait_for(self, *last: ConnectionState) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: tuple(self.seen[-len(last) :]) == last, PATIENCE), self.seen


def consecutive(values: Sequence[int]) -> bool:
    return list(values) == list(range(values[0], values[0] + len(values)))


def test_streams_outlive_a_broker_that_dies_and_one_that_freezes(
    make_apache_kafka: Callable[..., ApacheKafka], make_site: Callable[[str], Any], witness: Any
) -> None:
    broker = make_apache_kafka()
    site = make_site(broker.address)
    gateway = site.gateway(RATE)
    client = site.client()
    uris = site.uris(PVS)
    statuses = Statuses()
    client.status_stream().subscribe(statuses.see)
    client.monitor_many_stream(uris).subscribe(witness.see, witness.end, witness.end)
    witness.wait_until(lambda: len(witness.values) == PVS, "all PVs")
    statuses.wait_for(ConnectionState.UP)
    gets = Gets(client, uris[0])
    try:
        gets.wait_for(None)
        broker.kill()
        statuses.wait_for(ConnectionState.UP, ConnectionState.DOWN)
        gets.wait_for(OperationTimeout)
        broker.start()
        statuses.wait_for(ConnectionState.DOWN, ConnectionState.UP)
        witness.wait_for_progress()
        gets.wait_for(None)

        broker.suspend()
        frozen = time.monotonic()
        statuses.wait_for(ConnectionState.UP, ConnectionState.DOWN)
        gets.wait_for(OperationTimeout)
        time.sleep(max(0.0, frozen + FROZEN - time.monotonic()))
        broker.resume()
        statuses.wait_for(ConnectionState.DOWN, ConnectionState.UP)
        witness.wait_for_progress()
        gets.wait_for(None)
    finally:
        outcomes = gets.stop()
    last = gateway.quiet()
    witness.wait_for_last(last)
    assert len(last) == PVS
    assert witness.ends == []
    assert {name: values for name, values in witness.values.items() if not consecutive(values)} == {}
    assert {kind for kind, _ in outcomes} == {None, OperationTimeout}
    assert max(seconds for _, seconds in outcomes) < GET_TIMEOUT + scaled_by_load(3.0), "in time"
    assert all(
        reason for state, reason in zip(statuses.seen, statuses.reasons, strict=True) if state is ConnectionState.DOWN
    )
