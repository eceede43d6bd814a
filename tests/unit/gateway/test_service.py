"""The process of a gateway."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from k2eg_rx.gateway import service
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.settings import Settings


def test_threads_take_short_turns_while_a_gateway_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []

    @contextmanager
    def gateway(*_: object) -> Iterator[Gateway]:
        turns.append(sys.getswitchinterval())
        running: Any = type("Running", (), {"metrics": Metrics()})
        yield running

    monkeypatch.setattr(service, "gateway", gateway)
    before = sys.getswitchinterval()
    ended = threading.Event()
    ended.set()
    assert service.run_gateway(Settings("site", "broker:9092", "commands", "replies", {}), ended) == 0
    assert turns == [pytest.approx(0.001)]
    assert sys.getswitchinterval() == before
