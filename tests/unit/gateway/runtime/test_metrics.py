"""Gateway metrics and rate-limited warnings."""

from __future__ import annotations

import logging

import pytest

from k2eg_rx.gateway.runtime.metrics import Metrics, RateLimitedWarning


def test_dropped_is_the_sum_of_all_losses() -> None:
    metrics = Metrics(dropped_updates=1, dropped_samples=2, dropped_records=3)
    assert metrics.dropped == 6
    assert metrics.as_dict()["dropped_records"] == 3


def test_a_warning_is_logged_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    warning = RateLimitedWarning(logging.getLogger("test"), "{} losses", lambda: now)
    for case in range(100):
        warning.count("of t" if case == 0 else "")
    now = 60.0
    warning.count()
    assert [record.getMessage() for record in caplog.records] == ["1 losses: of t", "100 losses"]
