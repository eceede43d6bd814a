"""Connections of PVs as data, with a real IOC that ends and comes back, and the command line that shows them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg_rx import Client, ConnectionEvent, PVState, Settings
from k2eg_rx.embedded import EmbeddedStack, SoftIoc, without_epics

SECONDS = 100.0
RECORD = 'record(ao, "{name}") {{ field(VAL, "2.5") field(EGU, "A") field(PINI, "YES") }}\n'

pytestmark = pytest.mark.timeout(400)


class Connections:
    """The states of PVs, which can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: list[ConnectionEvent] = []

    def add(self, event: ConnectionEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, **states: PVState) -> None:
        """Waits until the last states over each protocol are these."""

        def are_there() -> bool:
            return {event.protocol: event.state for event in self.events} == states

        with self._changed:
            assert self._changed.wait_for(are_there, SECONDS), self.events


@pytest.fixture
def ioc(tmp_path: Path, fresh_app_name: str) -> Iterator[SoftIoc]:
    (tmp_path / "one.db").write_text(RECORD.format(name=fresh_app_name))
    with SoftIoc(tmp_path / "one.db") as ioc:
        yield ioc


@pytest.fixture
def folder(stack: EmbeddedStack, ioc: SoftIoc, tmp_path: Path, fresh_app_name: str) -> Iterator[Path]:
    """Runs a gateway to the IOC; yields the folder of its environment, ``site``."""
    kafka = "[kafka]\nsession.timeout.ms=6000\nfetch.wait.max.ms=5\n[gateway]\ncreate_topics=no\nmonitor_expiration=0\n"
    default = f"[DEFAULT]\nkafka_broker_url={stack.broker_address}\nk2eg_cmd_topic={fresh_app_name}-commands\n"
    (tmp_path / "site.ini").write_text(f"{default}{kafka}group={fresh_app_name}\n")
    variables = without_epics(os.environ) | ioc.client_environment
    variables["K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"] = str(tmp_path)
    command = [sys.executable, "-m", "k2eg.cli", "-e", "site", "gateway"]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as gateway:
        try:
            assert gateway.stderr is not None
            assert any("gateway started" in line for line in gateway.stderr)
            threading.Thread(target=gateway.stderr.read, daemon=True).start()
            yield tmp_path
        finally:
            gateway.kill()


def test_the_end_and_the_return_of_an_ioc_are_events_and_lines(
    stack: EmbeddedStack, ioc: SoftIoc, folder: Path, fresh_app_name: str
) -> None:
    settings = Settings(
        "site",
        stack.broker_address,
        f"{fresh_app_name}-commands",
        f"{fresh_app_name}-reply",
        {"session.timeout.ms": "6000", "fetch.wait.max.ms": "5"},
    )
    uris = [f"{protocol}://{fresh_app_name}" for protocol in ("pva", "ca")]
    seen = Connections()
    up, lost = PVState.CONNECTED, PVState.DISCONNECTED
    variables = without_epics(os.environ) | {"K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(folder)}
    command = [sys.executable, "-u", "-m", "k2eg.cli", "-e", "site", "monitor", uris[0]]
    with Client("site", fresh_app_name, settings=settings) as client:
        client.connection_stream(uris).subscribe(seen.add)
        seen.wait_for(pva=up, ca=up)
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as monitor:
            try:
                assert monitor.stdout is not None
                assert "2.5 A" in monitor.stdout.readline()
                ioc.stop()
                seen.wait_for(pva=lost, ca=lost)
                line = monitor.stdout.readline()
                ioc.start()
                seen.wait_for(pva=up, ca=up)
                value = monitor.stdout.readline()
            finally:
                monitor.kill()
    assert line.startswith(fresh_app_name)
    assert "*** disconnected: " in line
    assert "2.5 A" in value
    hosts = {event.host for event in seen.events if event.protocol == "ca" and event.is_connected}
    assert all(host.endswith(f":{ioc.ports.ca}") for host in hosts - {""})
    assert hosts != {""}
