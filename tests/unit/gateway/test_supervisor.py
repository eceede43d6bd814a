"""The metrics of several gateways on one page."""

from __future__ import annotations

from k2eg_rx.gateway.supervisor import merged
from k2eg_rx.metrics import Buckets, Family, Reading
from k2eg_rx.metrics.exposition import metrics_page

COMMANDS = Family("k2eg_commands_total", "counter", "Commands", ("command", "result"))
CONNECTED = Family("k2eg_connected", "gauge", "1 while connected")
LATENCY = Family("k2eg_latency_seconds", "histogram", "Latency")


def test_each_series_has_the_member_that_it_is_of() -> None:
    members = {
        "1": [
            Reading(COMMANDS, {("get", "ok"): 3.0, ("get",): 4.0}),
            Reading(CONNECTED, 1.0),
            Reading(LATENCY, Buckets((0.1,), (2, 1), 0.5)),
        ],
        "2": [Reading(CONNECTED, 0.0), Reading(LATENCY, Buckets((0.1,), (0, 4), 8.0))],
    }
    lines = metrics_page(lambda: merged(members))().body.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'k2eg_commands_total{command="get",member="1",result="ok"} 3.0',
        'k2eg_commands_total{command="get",member="1"} 4.0',
        'k2eg_connected{member="1"} 1.0',
        'k2eg_connected{member="2"} 0.0',
        'k2eg_latency_seconds_bucket{le="0.1",member="1"} 2.0',
        'k2eg_latency_seconds_bucket{le="+Inf",member="1"} 3.0',
        'k2eg_latency_seconds_count{member="1"} 3.0',
        'k2eg_latency_seconds_sum{member="1"} 0.5',
        'k2eg_latency_seconds_bucket{le="0.1",member="2"} 0.0',
        'k2eg_latency_seconds_bucket{le="+Inf",member="2"} 4.0',
        'k2eg_latency_seconds_count{member="2"} 4.0',
        'k2eg_latency_seconds_sum{member="2"} 8.0',
    ]
    assert sum(line.startswith("# TYPE k2eg_latency_seconds histogram") for line in lines) == 1
