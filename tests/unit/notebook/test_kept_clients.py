"""Clients of notebooks: one for each name."""

from __future__ import annotations

import inspect

import pytest

from k2eg_rx import Client, ClientClosedError
from k2eg_rx.notebook import connect
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]


def test_the_former_client_of_the_name_is_closed(k2eg_gateway: ScriptedGateway) -> None:
    k2eg_gateway.pv("my:x", 1.5)
    former, other = connect("demo", "one"), connect("demo", "other")
    client = connect("lab", "one")
    with pytest.raises(ClientClosedError):
        former.get("pva://my:x")
    with client, other:
        assert (client.get("pva://my:x").value, other.get("pva://my:x").value) == (1.5, 1.5)


def test_a_client_that_cannot_be_made_leaves_the_former_one_open(k2eg_gateway: ScriptedGateway) -> None:
    k2eg_gateway.pv("my:x", 1.5)
    with connect("demo", "one") as former:
        with pytest.raises(ValueError, match="timeout must be"):
            connect("demo", "one", timeout=-1.0)
        assert former.get("pva://my:x").value == 1.5


def test_the_arguments_are_those_of_a_client() -> None:
    assert list(inspect.signature(connect).parameters.items()) == list(inspect.signature(Client).parameters.items())
