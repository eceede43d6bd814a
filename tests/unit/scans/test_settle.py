"""`settle`, and the examples of the package."""

from __future__ import annotations

import doctest
import importlib

import pytest

from k2eg_rx import OperationTimeout
from k2eg_rx.scans import settle
from k2eg_rx.testing import ScriptedGateway


@pytest.mark.parametrize("name", ["scan", "restoring", "settle"])
def test_the_examples_run(name: str) -> None:
    failures, count = doctest.testmod(importlib.import_module(f"k2eg_rx.scans.{name}"), raise_on_error=False)
    assert (failures, count > 0) == (0, True)


def test_it_waits_for_the_value() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        pv = gateway.pv("q", 4.0)
        gateway.clock.schedule_relative(3.0, lambda *_: pv.post(5.0))
        assert settle(client, "pva://q", 5.0, 0.1).value == 5.0
        with pytest.raises(OperationTimeout, match=r"not within 0\.1 of 9"):
            settle(client, "pva://q", 9.0, 0.1, timeout=2.0)
