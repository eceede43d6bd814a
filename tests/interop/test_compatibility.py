"""Each cell of the table in docs/compatibility.md is as the page says."""

from __future__ import annotations

import pytest
import table
from operations import OPERATIONS

pytestmark = pytest.mark.timeout(900)  # the first test waits for all clients, about a minute

EXPECTED = table.expected()


def test_the_page_has_all_operations() -> None:
    assert list(dict.fromkeys(operation for _, _, operation in EXPECTED)) == list(OPERATIONS)


def test_the_page_has_all_clients(outcomes: table.Outcomes) -> None:
    assert list(dict.fromkeys((gateway, client) for gateway, client, _ in EXPECTED)) == list(outcomes)


@pytest.mark.parametrize(("gateway", "client", "operation"), EXPECTED)
def test_operation(outcomes: table.Outcomes, gateway: str, client: str, operation: str) -> None:
    outcome = outcomes[gateway, client][operation]
    assert outcome.passed == EXPECTED[gateway, client, operation], outcome.seen
