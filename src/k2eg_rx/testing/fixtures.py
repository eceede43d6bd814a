"""pytest fixtures: a scripted gateway, and a client of it. For a test's own module or conftest:

    pytest_plugins = ["k2eg_rx.testing.fixtures"]

They are not installed as a plugin by themselves, because pytest would then load this library, Kafka's client with it,
in every run of every project in the same environment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2eg_rx.client import Client
from k2eg_rx.testing.scripted_gateway import ScriptedGateway


@pytest.fixture
def k2eg_gateway() -> Iterator[ScriptedGateway]:
    """A gateway in virtual time. Every client that is made in the test comes to it, `dml` too."""
    with ScriptedGateway() as gateway:
        yield gateway


@pytest.fixture
def k2eg_client(k2eg_gateway: ScriptedGateway) -> Iterator[Client]:
    """A client of the scripted gateway."""
    with k2eg_gateway.client() as client:
        yield client
