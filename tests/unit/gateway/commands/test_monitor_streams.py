"""Values that are held back while another gateway still publishes."""

from __future__ import annotations

import numpy as np
import pytest

from k2eg_rx.gateway.commands import monitor_streams
from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.gateway.commands.monitor_streams import HeldValues


def _value(seconds: int, value: object = 1.0) -> PVValue:
    return PVValue("a", {"value": value, "timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": 0}})


def test_held_values_are_those_after_a_time() -> None:
    held = HeldValues()
    for seconds in (1, 2, 3):
        held.add(_value(seconds))
    assert [value.structure["timeStamp"]["secondsPastEpoch"] for value in held.after(2_000_000_000)] == [3]
    assert len(held.after(None)) == len(held) == 3


def test_the_oldest_held_values_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_streams, "_MAX_HELD", 2)
    held = HeldValues()
    for seconds in (1, 2, 3):
        held.add(_value(seconds))
    assert [value.structure["timeStamp"]["secondsPastEpoch"] for value in held.after(None)] == [2, 3]


def test_large_held_values_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_streams, "_MAX_HELD_BYTES", 1_000_000)
    held = HeldValues()
    for seconds in range(1, 10):
        held.add(_value(seconds, np.zeros(50_000)))
    assert len(held) == 2
    held.add(_value(10, np.zeros(500_000)))
    assert len(held) == 1, "the newest one is never dropped"
