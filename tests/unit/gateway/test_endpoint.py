"""The HTTP endpoint of a gateway: whether it is alive and ready, and why not."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from k2eg_rx.embedded.loopback import free_ports
from k2eg_rx.gateway.endpoint import alive, ready, serve_gateway
from k2eg_rx.gateway.runtime.metrics import FleetState, GatewayState, Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.transport import ConnectionState

WELL = GatewayState(ConnectionState.UP, partitions=3, heartbeat_age=0.5, providers={"pva": "", "ca": ""})
TOPIC = "the command topic is not read: the connection is new, or the consumer group assigns its partitions"


def test_a_gateway_that_reads_commands_is_ready() -> None:
    assert ready(WELL) == {"event_loop": "", "kafka": "", "command_topic": "", "pva": "", "ca": ""}


@pytest.mark.parametrize(
    ("change", "part", "reason"),
    [
        ({"connection": ConnectionState.DOWN, "reason": "the broker is away"}, "kafka", "the broker is away"),
        ({"connection": ConnectionState.CONNECTING}, "kafka", "the connection is connecting"),
        ({"partitions": None}, "command_topic", TOPIC),
        ({"heartbeat_age": 11.0}, "event_loop", "no heartbeat of the event loop for 11 s"),
        ({"providers": {"ca": "ended"}}, "ca", "ended"),
        ({"fleet": FleetState(problem="it is being read")}, "fleet", "it is being read"),
    ],
)
def test_each_part_that_is_not_well_is_named(change: dict[str, object], part: str, reason: str) -> None:
    wrong = {name: text for name, text in ready(replace(WELL, **change)).items() if text}
    assert wrong == {part: reason}


def test_a_member_of_a_group_without_a_partition_is_ready() -> None:
    assert not any(ready(replace(WELL, partitions=0)).values())


def test_only_a_stuck_event_loop_asks_for_a_restart() -> None:
    assert alive(replace(WELL, connection=ConnectionState.DOWN, partitions=None, providers={"ca": "ended"})) == {
        "event_loop": ""
    }
    assert alive(replace(WELL, heartbeat_age=60.0))["event_loop"]


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


def test_metrics_and_health_are_served(free_port: int) -> None:
    down = replace(WELL, connection=ConnectionState.DOWN, reason="the broker is away")
    with serve_gateway(Metrics(commands=5), GatewayOptions(metrics_port=free_port), lambda: down) as server:
        status, text = get(server.port, "/metrics")
        assert status == 200
        assert b'k2eg_command_controller{op="received"} 5.0\n' in text
        assert get(server.port, "/healthz") == (200, b'{"status": "ok", "checks": {"event_loop": "ok"}}\n')
        status, body = get(server.port, "/readyz")
    assert status == 503
    assert json.loads(body)["checks"]["kafka"] == "the broker is away"


def test_a_port_in_use_is_an_error_that_names_the_options(free_port: int) -> None:
    options = GatewayOptions(metrics_port=free_port)
    text = rf"\[gateway\] metrics_port and metrics_host: cannot serve metrics on port {free_port} of '127\.0\.0\.1': "
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(ValueError, match=text + "Address already in use"),
    ):
        serve_gateway(Metrics(), options, lambda: WELL)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"metrics_port needs prometheus_client.*'k2eg\[metrics\]'"):
        serve_gateway(Metrics(), GatewayOptions(metrics_port=1), lambda: WELL)
