"""Fixtures: gateways on Apache Kafka, and what released clients and this one see of them.

The clients run at the same time, each with PVs of its own, once per session; the tests look at the outcomes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import table
from apache_kafka import ApacheKafka, ExternalKafka
from clients import ClientRun, Outcome
from confluent_kafka.admin import AdminClient, NewTopic
from environments import Unavailable
from own_gateway import own_gateway
from recorded_gateway import RecordedGateway
from releases import Release, install
from table import DEPLOYED, GATEWAYS, NUMBERING, OWN, OWN_CLIENT, Outcomes

from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import merge_client_environments, without_epics
from k2eg_rx.embedded.table_server import TableServer

HERE = Path(__file__).parent
_OUTCOMES = pytest.StashKey[Outcomes]()

RELEASES = ("0.2.20", "0.3.1", "0.3.2")
NEWEST = RELEASES[-1]
OPERATION_TIMEOUT = 3  # seconds until the gateway gives up a PV that does not exist


def prefix_of(gateway: str, client: str) -> str:
    """Returns the beginning of the names of the PVs that are a client's with a gateway."""
    return f"interop{GATEWAYS.index(gateway)}:{client.replace('.', '_').replace(' ', '_')}:"


@pytest.fixture(scope="session")
def releases() -> Mapping[str, Release]:
    """The released clients."""
    try:
        return install(RELEASES)
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def epics() -> Iterator[dict[str, str]]:
    """Serves the PVs of all clients; yields the EPICS variables for a gateway to them."""
    with ExitStack() as running:
        servers = []
        for client in (OWN_CLIENT, *RELEASES):
            prefix = prefix_of(OWN, client)
            servers.append(running.enter_context(SoftIoc(HERE / "records.db", {"P": prefix})))
            servers.append(running.enter_context(TableServer(f"{prefix}table", {"element": "s", "s": "d"})))
        yield merge_client_environments(*(server.client_environment for server in servers))


def run_clients(
    gateway: str, broker: str, commands: str, clients: Mapping[str, Release | None], folder: Path
) -> Mapping[str, Mapping[str, Outcome]]:
    """Runs all operations with each client; returns the outcomes by client."""
    applications = {client: f"{commands}-{number}" for number, client in enumerate(clients)}
    admin = AdminClient({"bootstrap.servers": broker})
    # Released clients need the topic of their replies; nothing makes it for them.
    made = admin.create_topics([NewTopic(f"{name}-reply", 1) for name in applications.values()])
    for topic in made.values():
        topic.result()
    with ExitStack() as running:
        runs = {
            client: ClientRun(
                release, applications[client], prefix_of(gateway, client), folder, folder / f"{client}.log"
            )
            for client, release in clients.items()
        }
        for run in runs.values():
            running.callback(run.close)
        return {client: run.outcomes() for client, run in runs.items()}


def on_own_gateway(
    broker: str, clients: Mapping[str, Release | None], folder: Path, epics: Mapping[str, str]
) -> Mapping[str, Mapping[str, Outcome]]:
    """Returns what clients see of this project's gateway, which runs as a process."""
    commands = "interop-commands-0"
    (folder / "site.ini").write_text(
        f"[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={commands}\n"
        f"[gateway]\noperation_timeout={OPERATION_TIMEOUT}\n"
    )
    variables = without_epics(os.environ) | dict(epics) | {"K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(folder)}
    with own_gateway(variables):
        return run_clients(OWN, broker, commands, clients, folder)


def on_recorded_gateway(
    gateway: str, broker: str, clients: Mapping[str, Release | None], folder: Path
) -> Mapping[str, Mapping[str, Outcome]]:
    """Returns what clients see of a stand-in for the deployed gateway."""
    commands = f"interop-commands-{GATEWAYS.index(gateway)}"
    (folder / "site.ini").write_text(f"[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={commands}\n")
    prefixes = [prefix_of(gateway, client) for client in clients]
    with RecordedGateway(broker, commands, prefixes, numbered=gateway == NUMBERING):
        return run_clients(gateway, broker, commands, clients, folder)


@pytest.fixture(scope="session")
def outcomes(
    apache_kafka: ApacheKafka | ExternalKafka,
    epics: Mapping[str, str],
    releases: Mapping[str, Release],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Outcomes:
    """What each client sees of each gateway, all at the same time."""
    broker, clients = apache_kafka.address, {OWN_CLIENT: None, **releases}
    numbering = {OWN_CLIENT: None, NEWEST: releases[NEWEST]}
    folders = {gateway: tmp_path_factory.mktemp(gateway.lower().replace(" ", "-")) for gateway in GATEWAYS}
    with ThreadPoolExecutor() as pool:
        own = pool.submit(on_own_gateway, broker, clients, folders[OWN], epics)
        recorded = pool.submit(on_recorded_gateway, DEPLOYED, broker, clients, folders[DEPLOYED])
        numbered = pool.submit(on_recorded_gateway, NUMBERING, broker, numbering, folders[NUMBERING])
        runs = {OWN: own, DEPLOYED: recorded, NUMBERING: numbered}
        found = {(gateway, client): seen for gateway in GATEWAYS for client, seen in runs[gateway].result().items()}
    request.config.stash[_OUTCOMES] = found
    return found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the tables of docs/compatibility.md as it was found."""
    found = config.stash.get(_OUTCOMES, {})
    if found:
        terminalreporter.section("operations that clients can do")
        for line in table.lines(found):
            terminalreporter.write_line(line)
