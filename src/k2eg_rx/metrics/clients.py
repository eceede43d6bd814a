"""Metrics of the clients in a process, from their status.

Thread safety: the status is read on the thread of the scrape; a client allows any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from k2eg_rx.errors import require_extra
from k2eg_rx.metrics.families import Family, Reading
from k2eg_rx.metrics.health import health_page
from k2eg_rx.metrics.server import MetricsServer
from k2eg_rx.transport import ConnectionState

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


class ClientStatus(Protocol):
    """The part of `k2eg_rx.Status` that has metrics."""

    @property
    def connection(self) -> ConnectionState: ...
    @property
    def reason(self) -> str: ...
    @property
    def silent_since(self) -> datetime | None: ...
    @property
    def lag(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def decode_errors(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def snapshot_drops(self) -> Mapping[str, int]: ...
    @property
    def monitors(self) -> int: ...
    @property
    def disconnected(self) -> Sequence[str]: ...
    @property
    def unconfirmed(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def lost(self) -> Mapping[str, int]: ...


class Monitored(Protocol):
    """What has a status: `k2eg_rx.Client`, `k2eg_rx.aio.Client`."""

    @property
    def status(self) -> ClientStatus:
        """The current status."""
        ...


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"k2eg_client_{name}", "gauge", meaning, ("client", *labels))


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"k2eg_client_{name}_total", "counter", meaning, ("client", *labels))


_BY_KIND: Mapping[Family, Callable[[ClientStatus], Mapping[tuple[str, ...], float]]] = {
    _gauge("connected", "1 while the client is connected to Kafka, else 0"): lambda status: {
        (): float(status.connection is ConnectionState.UP)
    },
    _gauge("silent_seconds", "For how long no gateway has replied although a reply is due; 0 while none is"): (
        lambda status: {
            (): (datetime.now(UTC) - status.silent_since).total_seconds() if status.silent_since is not None else 0.0
        }
    ),
    _gauge("lag_records", "Events in Kafka that the client has not read yet"): lambda status: {(): status.lag},
    _gauge("pending_requests", "Requests that wait for a reply"): lambda status: {(): status.pending},
    _gauge("monitored_pvs", "Monitored PVs"): lambda status: {(): status.monitors},
    _gauge("disconnected_pvs", "Monitored PVs that the gateway has lost"): lambda status: {
        (): len(status.disconnected)
    },
    _gauge("unconfirmed_streams", "Monitors and recurring snapshots that no gateway has confirmed yet"): (
        lambda status: {(): status.unconfirmed}
    ),
    _counter("dropped_events", "Events that overflow policies of subscribers dropped"): lambda status: {
        (): status.dropped
    },
    _counter("decode_errors", "Records that could not be decoded, by kind of error", "kind"): (
        lambda status: _sums((kind, count) for (kind, _), count in status.decode_errors.items())
    ),
    _counter("snapshot_drops", "What recurring snapshots could not use, by reason", "reason"): (
        lambda status: _sums(iter(status.snapshot_drops.items()))
    ),
    _counter("lost_updates", "Updates that the gateway did not publish, as far as it says so"): lambda status: {
        (): sum(status.lost.values())
    },
}
CLIENT_FAMILIES = tuple(_BY_KIND)


def _sums(items: Iterator[tuple[str, int]]) -> Mapping[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = {}
    for name, count in items:
        sums[name,] = sums.get((name,), 0) + count
    return sums


def _read(clients: Mapping[str, Monitored]) -> Iterator[Reading]:
    statuses = {name: client.status for name, client in clients.items()}
    for family, values_of in _BY_KIND.items():
        values = {
            (name, *labels): value for name, status in statuses.items() for labels, value in values_of(status).items()
        }
        yield Reading(family, values)


def _named(client: Monitored | None, clients: Mapping[str, Monitored]) -> dict[str, Monitored]:
    named = {**({"": client} if client is not None else {}), **clients}
    if not named:
        raise ValueError("client must be a client, got none")
    return named


def collector(client: Monitored | None = None, /, **clients: Monitored) -> Collector:
    """Returns the metrics of clients, for a registry of prometheus_client.

    Args:
        client: The client; its metrics have no label `client`.
        clients: Further ones by the value of their label `client`.

    Returns:
        A collector to register. It reads the clients' status at each scrape, and costs nothing in between.

    Raises:
        ModuleNotFoundError: The extra ``metrics`` is not installed.

    Example:
        >>> prometheus_client.REGISTRY.register(k2eg_rx.metrics.collector(client))
    """
    named = _named(client, clients)
    require_extra("metrics", ("prometheus_client",), "k2eg_rx.metrics.collector")
    from k2eg_rx.metrics.exposition import ReadingCollector  # noqa: PLC0415 - an extra

    return ReadingCollector(lambda: _read(named))


def serve(
    client: Monitored | None = None, /, port: int = 0, host: str = "127.0.0.1", **clients: Monitored
) -> MetricsServer:
    """Serves the metrics of clients over HTTP: ``/metrics``, ``/healthz`` and ``/readyz``.

    ``/readyz`` is 503 while a client is not connected to Kafka, or no gateway replies.

    Args:
        client: The client; its metrics have no label `client`.
        port: The port; 0 is a free one.
        host: The address to listen on; by default only this machine can read.
        clients: Further clients by the value of their label `client`.

    Returns:
        The server; close it when it is no longer needed.

    Raises:
        ModuleNotFoundError: The extra ``metrics`` is not installed.
        ValueError: The port is not between 0 and 65535.
        OSError: The port is in use, or the address is none of this machine.
    """
    named = _named(client, clients)
    require_extra("metrics", ("prometheus_client",), "k2eg_rx.metrics.serve")
    from k2eg_rx.metrics.exposition import metrics_page  # noqa: PLC0415 - an extra

    pages = {
        "/metrics": metrics_page(lambda: _read(named)),
        "/healthz": lambda: health_page({}),
        "/readyz": lambda: health_page({name or "client": _fault(each) for name, each in named.items()}),
    }
    return MetricsServer(pages, port, host)


def _fault(client: Monitored) -> str:
    status = client.status
    if status.connection is ConnectionState.UP and status.silent_since is None:
        return ""
    return status.reason or f"the connection to Kafka is {status.connection.value}"
