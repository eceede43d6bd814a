"""The real things, for system tests: started once per session, on free ports of the loopback interface."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import HOST, ServerPorts, without_epics

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class PvsServer:
    """The PVAccess variables of tests/data/pvs.py, in a process of their own."""

    client_environment: Mapping[str, str]


@pytest.fixture(scope="session", autouse=True)
def records_ioc() -> Iterator[SoftIoc]:
    """An IOC with the records of tests/data/records.db.

    libca reads its addresses once in a process, and the stack gives it those of its own IOC: this one is found as a
    name server, which adds to them. It has to run before libca starts, hence for all tests.
    """
    with SoftIoc(DATA / "records.db") as ioc, pytest.MonkeyPatch.context() as environment:
        environment.setenv("EPICS_CA_NAME_SERVERS", f"{HOST}:{ioc.ports.ca}")
        environment.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
        yield ioc


@pytest.fixture(scope="session")
def pvs_server() -> Iterator[PvsServer]:
    """A server with the PVAccess variables of tests/data/pvs.py."""
    ports = ServerPorts.free()
    server = subprocess.Popen(
        [sys.executable, DATA / "pvs.py"],
        env=without_epics() | ports.pva_server_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:  # leaving it closes the server's input, which ends it
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield PvsServer(ports.pva_client_environment)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[EmbeddedStack]:
    """Broker, IOC with the demo's records, table server and gateway: started once for all tests.

    With ``pytest --broker apache`` the broker is an Apache Kafka.
    """
    on_apache = request.config.getoption("--broker") == "apache"
    address = request.getfixturevalue("apache_kafka").address if on_apache else None
    with EmbeddedStack(broker_address=address) as stack:
        yield stack


@pytest.fixture
def fresh_app_name() -> str:
    """A name that no other test uses, so that reply topic and group are the test's own."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[Client]:
    """A client of the stack."""
    with Client("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client
