"""The real things, for system tests: started once per session, on free ports of the loopback interface."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    """Broker, IOC with the demo's records, table server and gateway: started once for all tests."""
    with EmbeddedStack() as stack:
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
