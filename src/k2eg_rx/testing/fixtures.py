"""pytest fixtures: a scripted gateway and a client of it.

Load them in a test module or conftest::

    pytest_plugins = ["k2eg_rx.testing.fixtures"]

They are not registered as a pytest plugin, because pytest would then import this library and Kafka's client in every
run of every project in the same environment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2eg_rx.client import Client
from k2eg_rx.testing.scripted_gateway import ScriptedGateway


@pytest.fixture
def k2eg_gateway() -> Iterator[ScriptedGateway]:
    """A gateway in virtual time; clients created in the test, `dml` included, connect to it."""
    with ScriptedGateway() as gateway:
        yield gateway


@pytest.fixture
def k2eg_client(k2eg_gateway: ScriptedGateway) -> Iterator[Client]:
    """A client of the scripted gateway."""
    with k2eg_gateway.client() as client:
        yield client
