"""The process of a gateway."""

from __future__ import annotations

import gc
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


def test_threads_take_short_turns_and_garbage_is_collected_seldom_while_a_gateway_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[float, tuple[int, int, int]]] = []

    @contextmanager
    def gateway(*_: object) -> Iterator[Gateway]:
        seen.append((sys.getswitchinterval(), gc.get_threshold()))
        running: Any = type("Running", (), {"metrics": Metrics()})
        yield running

    monkeypatch.setattr(service, "gateway", gateway)
    before = sys.getswitchinterval(), gc.get_threshold()
    ended = threading.Event()
    ended.set()
    assert service.run_gateway(Settings("site", "broker:9092", "commands", "replies", {}), ended) == 0
    assert seen == [(pytest.approx(0.001), (10_000, *before[1][1:]))]
    assert (sys.getswitchinterval(), gc.get_threshold()) == before
