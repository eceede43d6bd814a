"""Metrics of clients, from their status."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from k2eg_rx import Status
from k2eg_rx.metrics import clients, collector, serve
from k2eg_rx.testing import ScriptedGateway
from k2eg_rx.transport import ConnectionState


class Some:
    """Something with a status."""

    def __init__(self, connection: ConnectionState = ConnectionState.UP, **figures: Any) -> None:
        self.status = Status(connection, **figures)


FULL = Some(
    lag=5,
    dropped=2,
    decode_errors={("shape", "a"): 1, ("shape", "b"): 2, ("size", "a"): 4},
    snapshot_drops={"incomplete": 3},
    monitors=10,
    disconnected=["pva://a", "pva://b"],
    unconfirmed=1,
    pending=7,
    lost={"a": 1, "b": 20},
)


def registered(*given: Some, **named: Some) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector(*given, **named))
    return registry


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("connected", {}, 1),
        ("lag_records", {}, 5),
        ("dropped_events_total", {}, 2),
        ("decode_errors_total", {"kind": "shape"}, 3),
        ("decode_errors_total", {"kind": "size"}, 4),
        ("snapshot_drops_total", {"reason": "incomplete"}, 3),
        ("monitored_pvs", {}, 10),
        ("disconnected_pvs", {}, 2),
        ("unconfirmed_streams", {}, 1),
        ("pending_requests", {}, 7),
        ("lost_updates_total", {}, 21),
        ("silent_seconds", {}, 0),
    ],
)
def test_the_status_of_a_client_is_in_a_registry(name: str, labels: dict[str, str], value: float) -> None:
    assert registered(FULL).get_sample_value(f"k2eg_client_{name}", labels) == value


def test_several_clients_are_told_apart_by_a_label() -> None:
    registry = registered(a=FULL, b=Some(ConnectionState.DOWN))
    assert registry.get_sample_value("k2eg_client_connected", {"client": "a"}) == 1
    assert registry.get_sample_value("k2eg_client_connected", {"client": "b"}) == 0


def test_no_client_is_an_error() -> None:
    with pytest.raises(ValueError, match="client must be a client, got none"):
        collector()


def test_each_scrape_reads_the_status_anew() -> None:
    some = Some(pending=1)
    registry = registered(some)
    some.status = Status(ConnectionState.UP, pending=2)
    assert registry.get_sample_value("k2eg_client_pending_requests", {}) == 2


def test_silence_is_told_in_seconds() -> None:
    since = datetime.now(UTC) - timedelta(seconds=100)
    told = registered(Some(silent_since=since)).get_sample_value("k2eg_client_silent_seconds", {})
    assert told == pytest.approx(100, abs=60)


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_serve_offers_metrics_and_health_of_a_real_client() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client, serve(client) as server:
        gateway.pv("pva://a", 1.0)
        client.monitor_stream("pva://a").subscribe()
        gateway.clock.advance(1.0)
        status, text = get(server.port, "/metrics")
        families = {family.name: family for family in text_string_to_metric_families(text.decode())}
        assert status == 200
        assert set(families) == {family.name.removesuffix("_total") for family in clients.CLIENT_FAMILIES}
        assert [sample.value for sample in families["k2eg_client_monitored_pvs"].samples] == [1]
        assert get(server.port, "/healthz") == (200, b'{"status": "ok", "checks": {}}\n')
        assert get(server.port, "/readyz") == (200, b'{"status": "ok", "checks": {"client": "ok"}}\n')


def test_a_client_without_kafka_is_not_ready_and_says_why() -> None:
    reason = "the broker is away"
    with serve(
        orbit=Some(), bpms=Some(ConnectionState.DOWN, reason=reason), new=Some(ConnectionState.CONNECTING)
    ) as at:
        status, body = get(at.port, "/readyz")
        assert get(at.port, "/healthz")[0] == 200
    assert status == 503
    checks = {"orbit": "ok", "bpms": reason, "new": "the connection to Kafka is connecting"}
    assert json.loads(body) == {"status": "failed", "checks": checks}
