"""The metrics of a gateway as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from k2eg_rx.gateway import figures as module
from k2eg_rx.gateway.figures import GATEWAY_FAMILIES, Figures
from k2eg_rx.gateway.runtime.metrics import LATENCY_BOUNDS, FleetState, GatewayState, LatencyProbe, Metrics, Result
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.metrics.exposition import ReadingCollector, metrics_page
from k2eg_rx.transport import ConnectionState


def counted() -> Metrics:
    now = 0.0
    metrics = Metrics(
        commands=11,
        published=100,
        poison=1,
        failures=2,
        dropped_updates=3,
        dropped_samples=4,
        dropped_records=5,
        merged_records=1,
        fenced_records=3,
        undelivered=6,
        oversized=7,
        unencodable=8,
        unreadable=9,
        disconnections=10,
        iterations=12,
        snapshot_values=13,
        pvs_connected=20,
        pvs_disconnected=3,
        pvs_never_connected=2,
        latency=LatencyProbe(lambda: now),
    )
    for name in ("get", "get", "put", "monitor", "unreadable", ""):
        metrics.count_received(name)
    for name, result in (("get", Result.OK), ("get", Result.TIMEOUT), ("put", Result.OK), ("put", Result.OK)):
        metrics.count_result(name, result)
    metrics.events_of("pva", "scalar").count = 40
    metrics.events_of("ca", "array").count = 2
    for seconds in (0.0005, 0.001, 0.03, 1000.0):
        metrics.latency.begin(object())
        now += seconds
        metrics.latency.end(confirmed=True)
    return metrics


STATE = GatewayState(
    ConnectionState.UP,
    partitions=3,
    rebalances=2,
    heartbeat_age=0.5,
    monitors=4,
    snapshots=5,
    operations=6,
    updates_waiting=7,
    update_bytes=8,
    records_waiting=9,
    record_bytes=10,
    records_in_flight=11,
    fleet=FleetState(3, {"live": 10, "waiting": 2}, 1_795_000_000_500, 14, 2, 7),
)


@pytest.fixture(scope="module")
def value() -> Callable[..., float | None]:
    """Returns the value of a sample."""
    registry = CollectorRegistry()
    registry.register(ReadingCollector(Figures(counted(), GatewayOptions(), lambda: STATE).read))
    return lambda name, **labels: registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("commands_total", {"command": "get"}, 2),
        ("commands_total", {"command": "unknown"}, 1),
        ("command_results_total", {"command": "put", "result": "ok"}, 2),
        ("command_results_total", {"command": "get", "result": "timeout"}, 1),
        ("pending_operations", {}, 6),
        ("failures_total", {}, 2),
        ("updates_total", {"protocol": "pva", "kind": "scalar"}, 40),
        ("updates_total", {"protocol": "ca", "kind": "array"}, 2),
        ("published_records_total", {}, 100),
        ("fleet_members", {}, 3),
        ("fleet_partitions", {"stage": "live"}, 10),
        ("fleet_partitions", {"stage": "waiting"}, 2),
        ("fleet_epoch_seconds", {}, 1_795_000_000.5),
        ("fleet_takeovers_total", {}, 14),
        ("fleet_handovers_total", {}, 2),
        ("fleet_lag_entries", {}, 7),
        ("fleet_fenced_records_total", {}, 3),
        ("dropped_total", {"reason": "update_queue"}, 3),
        ("dropped_total", {"reason": "snapshot_buffer"}, 4),
        ("dropped_total", {"reason": "outgoing_queue"}, 5),
        ("dropped_total", {"reason": "unconfirmed"}, 6),
        ("dropped_total", {"reason": "too_large"}, 7),
        ("dropped_total", {"reason": "not_encodable"}, 8),
        ("dropped_total", {"reason": "unreadable"}, 9),
        ("merged_total", {"queue": "update_queue"}, 3),
        ("merged_total", {"queue": "outgoing_queue"}, 1),
        ("latency_seconds_bucket", {"le": "0.001"}, 2),
        ("latency_seconds_bucket", {"le": "0.02"}, 2),
        ("latency_seconds_bucket", {"le": "0.05"}, 3),
        ("latency_seconds_bucket", {"le": "300"}, 3),
        ("latency_seconds_bucket", {"le": "+Inf"}, 4),
        ("latency_seconds_count", {}, 4),
        ("latency_seconds_sum", {}, pytest.approx(1000.0315)),
        ("latency_age_seconds", {}, 0),
        ("update_queue_updates", {}, 7),
        ("update_queue_bytes", {}, 8),
        ("update_queue_limit_bytes", {}, GatewayOptions().update_buffer),
        ("outgoing_queue_records", {}, 9),
        ("outgoing_queue_bytes", {}, 10),
        ("outgoing_queue_limit_records", {}, GatewayOptions().outgoing_buffer),
        ("outgoing_queue_limit_bytes", {}, GatewayOptions().outgoing_buffer_bytes),
        ("kafka_queue_records", {}, 11),
        ("kafka_connected", {}, 1),
        ("command_partitions", {}, 3),
        ("rebalances_total", {}, 2),
        ("pvs", {"state": "connected"}, 20),
        ("pvs", {"state": "disconnected"}, 3),
        ("pvs", {"state": "never_connected"}, 2),
        ("disconnections_total", {}, 10),
        ("monitors", {}, 4),
        ("recurring_snapshots", {}, 5),
        ("snapshot_iterations_total", {}, 12),
        ("snapshot_values_total", {}, 13),
        ("heartbeat_age_seconds", {}, 0.5),
    ],
)
def test_counts_and_state_have_names_of_their_own(value: Any, name: str, labels: Any, expected: float) -> None:
    assert value(f"k2eg_gateway_{name}", **labels) == expected


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("command_controller", {"op": "received"}, 11),
        ("command_controller", {"op": "bad_command"}, 1),
        ("command_controller", {"op": "fault_processed"}, 2),
        ("node_controller_submitted_command_counter", {}, 5),
        ("epics_ioc_operation", {"op": "get"}, 1),
        ("epics_ioc_operation", {"op": "put"}, 2),
        ("epics_ioc_operation", {"op": "monitor", "evt_type": "data"}, 42),
        ("epics_ioc_operation", {"op": "monitor", "evt_type": "disconnect"}, 10),
        ("epics_ioc_operation_rate", {"op": "monitor", "evt_type": "data"}, 0),
        ("epics_ioc_pv_gauge", {"type": "total"}, 25),
        ("epics_ioc_pv_gauge", {"type": "active"}, 20),
        ("epics_pv_backlog_total", {}, 7),
        ("node_controller_snapshot_event_counter", {}, 13),
    ],
)
def test_dashboards_of_the_deployed_gateway_find_their_names(
    value: Any, name: str, labels: Any, expected: float
) -> None:
    assert value(f"k2eg_{name}", **labels) == expected


@pytest.mark.parametrize("name", ["cpu_seconds_total", "vmrss_kb", "vmsize_kb", "threads", "open_fds", "max_fds"])
def test_the_process_has_figures(value: Any, name: str) -> None:
    told = value(f"k2eg_system_{name}")
    assert told is not None
    assert told > 0


def test_the_text_has_each_metric_once_and_nothing_else() -> None:
    page = metrics_page(Figures(counted(), GatewayOptions(), lambda: STATE).read)()
    assert (page.status, page.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = page.body.decode()
    told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert told == [family.name for family in GATEWAY_FAMILIES]
    assert len(told) == len(set(told))
    assert 'k2eg_epics_ioc_operation{op="get"} 1.0' in text
    assert sum(len(family.samples) for family in text_string_to_metric_families(text)) < 200


def test_a_gateway_that_works_alone_has_no_figures_of_a_fleet() -> None:
    page = metrics_page(Figures(counted(), GatewayOptions(), lambda: replace(STATE, fleet=None)).read)()
    lines = [line for line in page.body.decode().splitlines() if line.startswith("k2eg_gateway_fleet")]
    assert lines == ["k2eg_gateway_fleet_fenced_records_total 3.0"]


def test_the_rate_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: now}))
    metrics = Metrics()
    figures = Figures(metrics, GatewayOptions(), lambda: STATE)
    counter = metrics.events_of("pva", "scalar")
    for passed, updates, rate in ((4.0, 1000, 0.0), (2.0, 200, 200.0), (1.0, 500, 200.0), (9.0, 500, 100.0)):
        now += passed
        counter.count += updates
        list(figures.read())
        assert figures.rate == rate


def test_a_system_without_proc_has_no_figures_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Path", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    registry = CollectorRegistry()
    registry.register(ReadingCollector(Figures(Metrics(), GatewayOptions(), lambda: STATE).read))
    assert registry.get_sample_value("k2eg_system_vmrss_kb") is None
    assert registry.get_sample_value("k2eg_gateway_monitors") == 4


def test_the_bounds_of_the_latency_ascend() -> None:
    assert sorted(LATENCY_BOUNDS) == list(LATENCY_BOUNDS)
