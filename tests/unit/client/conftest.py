"""Timers of clients in tests that act as the gateway."""

from __future__ import annotations

import pytest
from reactivex.testing import TestScheduler


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> TestScheduler:
    timers = TestScheduler()
    monkeypatch.setattr("k2eg_rx.client.core.TimerScheduler", lambda: timers)
    monkeypatch.setattr(timers, "dispose", lambda: None, raising=False)
    return timers
