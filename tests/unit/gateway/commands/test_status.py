"""The status command: what a gateway says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from k2eg_rx.gateway.runtime.metrics import GatewayState
from k2eg_rx.protocol.gateway_reports import gateway_report
from k2eg_rx.transport.interfaces import ConnectionState


def status(gateway: Any, **fields: Any) -> Any:
    gateway.sent()
    gateway.command("gateway_status", **fields)
    (body,) = gateway.bodies("replies")
    assert (body["error"], body["reply_id"]) == (0, "id")
    return gateway_report(body)


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_the_reply_has_pvs_counts_and_the_state_of_kafka(new_gateway: Callable[..., Any], form: str) -> None:
    gateway = new_gateway(group="control")
    gateway.handler.status.state = lambda: GatewayState(ConnectionState.UP, "slow", partitions=3, snapshots=1)
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b"])
    gateway.update("a", 1)
    gateway.advance(7.0)
    report = status(gateway, serialization=form)
    assert report.gateway.endswith(f":{os.getpid()}")
    assert (report.group, report.monitors, report.snapshots, report.partitions) == ("control", 2, 1, 3)
    assert (report.connected, report.disconnected, report.never_connected) == (1, 0, 1)
    assert (report.kafka, report.reason, report.counts["commands"]) == ("up", "slow", 2)
    assert report.time_ms == int(gateway.context.clock() * 1000)
    assert report.uptime == pytest.approx(7.0, abs=0.1)
    assert report.monitor_list == ()


def test_rates_are_those_of_the_last_seconds(gateway: Any) -> None:
    gateway.handler.status.start()
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.advance(20.0)
    for value in range(100):
        gateway.update("a", value)
    gateway.advance(1.5)
    assert status(gateway).update_rate == pytest.approx(10.0, rel=0.2)
    gateway.advance(20.0)
    assert status(gateway).update_rate == 0.0


def test_monitors_are_named_with_their_applications(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_topic="app1-reply")
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", reply_topic="app2-reply")
    gateway.update("a", 1)
    (monitor,) = status(gateway, monitors=True).monitor_list
    assert (monitor.uri, monitor.topic, monitor.state) == ("pva://a", "a", "connected")
    assert sorted(monitor.applications) == ["app1-reply", "app2-reply"]


@pytest.mark.parametrize("missing", ["reply_topic", "reply_id"])
def test_without_a_reply_address_there_is_no_reply(gateway: Any, missing: str) -> None:
    gateway.command("gateway_status", **{missing: ...})
    assert gateway.sent() == []
