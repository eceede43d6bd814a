"""Counts of connected PVs, and one log line per lost and returned EPICS server."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from k2eg_rx.pv import PVAddress

NAMES = [f"a{number}" for number in range(200)]


@pytest.fixture
def monitored(gateway: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """A gateway that monitors the PVs over PVAccess, all connected."""
    caplog.set_level(logging.INFO, "k2eg_rx.gateway.commands.connections")
    gateway.command("multi-monitor", pv_name_list=[f"pva://{name}" for name in NAMES], activate=True)
    for name in NAMES:
        gateway.update(name, 1)
    return gateway


def gauges(gateway: Any) -> tuple[int, int, int]:
    metrics = gateway.metrics
    return metrics.pvs_connected, metrics.pvs_disconnected, metrics.pvs_never_connected


def disconnect(gateway: Any, names: list[str]) -> None:
    for name in names:
        gateway.pva.connected(name, False)
    gateway.settle()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    logged = [f"{record.levelname} {record.getMessage()}" for record in caplog.records if "connections" in record.name]
    caplog.clear()
    return logged


def test_gauges_follow_the_connections(gateway: Any) -> None:
    gateway.command("multi-monitor", pv_name_list=["pva://a", "pva://b", "pva://c"], activate=True)
    assert gauges(gateway) == (0, 0, 3)
    gateway.update("a", 1)
    gateway.update("a", 2)
    gateway.update("b", 1)
    assert gauges(gateway) == (2, 0, 1)
    disconnect(gateway, ["a", "c"])
    assert gauges(gateway) == (1, 1, 1)
    gateway.update("a", 3)
    assert gauges(gateway) == (2, 0, 1)
    gateway.subscription.dispose()
    assert gauges(gateway) == (0, 0, 0)


def test_an_update_that_was_queued_when_a_monitor_ended_counts_no_pv(gateway: Any) -> None:
    subscription = gateway.handler.channels.stream(PVAddress("pva", "a")).subscribe()
    gateway.pva.update("a", 1)
    subscription.dispose()
    gateway.settle()
    assert gauges(gateway) == (0, 0, 0)


def test_a_lost_server_is_one_line_and_its_return_another(monitored: Any, caplog: pytest.LogCaptureFixture) -> None:
    disconnect(monitored, NAMES)
    monitored.advance(2.0)
    assert lines(caplog) == ["WARNING EPICS server lost: protocol=pva pvs=200 names=a0, a1, a2, a3, a4 and 195 more"]
    monitored.advance(600.0)
    for name in NAMES:
        monitored.update(name, 2)
    (line,) = lines(caplog)
    assert line.startswith("INFO EPICS server is back: protocol=pva pvs=200 of 200 away=602")
    assert "missing" not in line


def test_pvs_that_do_not_return_are_named(monitored: Any, caplog: pytest.LogCaptureFixture) -> None:
    disconnect(monitored, NAMES)
    monitored.advance(2.0)
    lines(caplog)
    for name in NAMES[2:]:
        monitored.update(name, 2)
    assert lines(caplog) == []
    monitored.advance(11.0)
    (line,) = lines(caplog)
    assert line.startswith("INFO EPICS server is back: protocol=pva pvs=198 of 200 away=1")
    assert line.endswith(" missing=a0, a1")
    for name in NAMES[:2]:
        monitored.update(name, 2)
    (line,) = lines(caplog)
    assert "pvs=200 of 200" in line


def test_a_short_disconnection_is_logged_too(monitored: Any, caplog: pytest.LogCaptureFixture) -> None:
    disconnect(monitored, NAMES[:3])
    for name in NAMES[:3]:
        monitored.update(name, 2)
    monitored.advance(2.0)
    first, second = lines(caplog)
    assert first == "WARNING EPICS server lost: protocol=pva pvs=3 names=a0, a1, a2"
    assert second.startswith("INFO EPICS server is back: protocol=pva pvs=3 of 3")


def test_servers_are_told_apart_by_address_and_by_time(monitored: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in NAMES[:2]:
        monitored.pva.open(name)[0].server = f"10.0.0.1:{name}"
    disconnect(monitored, NAMES[:2])
    monitored.advance(2.0)
    disconnect(monitored, NAMES[2:4])
    monitored.advance(2.0)
    assert lines(caplog) == [
        "WARNING EPICS server lost: protocol=pva server=10.0.0.1:a0 pvs=1 names=a0",
        "WARNING EPICS server lost: protocol=pva server=10.0.0.1:a1 pvs=1 names=a1",
        "WARNING EPICS server lost: protocol=pva pvs=2 names=a2, a3",
    ]


def test_a_monitor_that_ends_while_its_pv_is_disconnected_is_not_missed(
    monitored: Any, caplog: pytest.LogCaptureFixture
) -> None:
    disconnect(monitored, NAMES)
    monitored.advance(2.0)
    monitored.subscription.dispose()
    monitored.advance(60.0)
    assert len(lines(caplog)) == 1
    assert gauges(monitored) == (0, 0, 0)


def test_a_pv_that_is_opened_again_is_searched_for_as_long_as_the_first_time(gateway: Any) -> None:
    connections, address = gateway.handler.channels.connections, PVAddress("pva", "a")
    first = gateway.handler.channels.stream(address).subscribe()
    gateway.advance(4.0)
    first.dispose()
    second = gateway.handler.channels.stream(address).subscribe()
    gateway.advance(4.0)
    assert connections.current(address) is None
    gateway.advance(1.1)
    assert connections.current(address).state == "never_connected"
    second.dispose()
    assert connections.current(address) is None


def test_a_listener_is_called_until_it_is_removed(gateway: Any) -> None:
    connections, address = gateway.handler.channels.connections, PVAddress("pva", "a")
    heard: list[str] = []
    listening = connections.listen(address, lambda connection: heard.append(connection.state))
    gateway.handler.channels.stream(address).subscribe()
    gateway.update("a", 1)
    disconnect(gateway, ["a"])
    listening.dispose()
    gateway.update("a", 2)
    assert heard == ["connected", "disconnected"]
