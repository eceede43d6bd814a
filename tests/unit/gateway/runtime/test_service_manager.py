"""Notices to a service manager, over real sockets."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2eg_rx.gateway.runtime.service_manager import ServiceManager


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@k2eg-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        listening.settimeout(20)
        yield listening, name


def test_a_manager_is_notified(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name})
    service.starting("waiting")
    service.ready("running")
    service.alive()
    service.stopping()
    notices = [listening.recv(1000).decode() for _ in range(4)]
    assert notices == ["STATUS=waiting", "READY=1\nSTATUS=running", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    ("variables", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_sign_of_life_is_due_twice_in_the_time_that_the_manager_allows(
    variables: dict[str, str], period: float | None
) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/somewhere", **variables}).watchdog_period == period
    assert ServiceManager(variables).watchdog_period is None, "no socket: nothing to notify"


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({}).ready("running")
    assert caplog.text == ""


def test_a_manager_that_cannot_be_notified_does_not_stop_the_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready("running")
    assert "service manager not notified" in caplog.text
