"""Gateway options and metrics."""

from __future__ import annotations

import logging

import pytest

from k2eg_rx.gateway.runtime.metrics import Metrics, RateLimitedWarning
from k2eg_rx.gateway.runtime.options import GatewayOptions


def test_an_empty_section_has_the_defaults() -> None:
    assert GatewayOptions.from_section({}) == GatewayOptions()


def test_a_section_is_parsed() -> None:
    section = {
        "group": "lab-gateway",
        "operation_timeout": "2.5",
        "create_topics": "No",
        "monitor_expiration": "0",
        "max_pending": "7",
    }
    options = GatewayOptions.from_section(section)
    assert options == GatewayOptions(
        group="lab-gateway", operation_timeout=2.5, create_topics=False, monitor_expiration=0.0, max_pending=7
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"operation_timeuot": "1"}, "operation_timeuot is not an option; the options are create_topics, group"),
        ({"operation_timeout": "soon"}, "operation_timeout must be a number, got 'soon'"),
        ({"operation_timeout": "0"}, "operation_timeout must be a time above 0 s, got 0.0"),
        ({"max_put_age": "nan"}, "max_put_age"),
        ({"monitor_expiration": "-1"}, "monitor_expiration"),
        ({"max_pending": "1.5"}, "max_pending must be a whole number, got '1.5'"),
        ({"max_pending": "0"}, "max_pending must be above 0, got 0"),
        ({"create_topics": "maybe"}, "create_topics must be 'yes' or 'no', got 'maybe'"),
        ({"group": "my-K2EG-group"}, "without 'k2eg' in it"),
        ({"group": ""}, "got ''"),
    ],
)
def test_errors_name_the_option(section: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\]") as raised:
        GatewayOptions.from_section(section)
    assert words in str(raised.value)


def test_dropped_is_the_sum_of_all_losses() -> None:
    metrics = Metrics(dropped_updates=1, dropped_samples=2, dropped_records=3)
    assert metrics.dropped == 6
    assert metrics.as_dict()["dropped_records"] == 3


def test_a_warning_is_logged_at_most_every_10_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    warning = RateLimitedWarning(logging.getLogger("test"), "{} losses", lambda: now)
    for case in range(100):
        warning.count("of t" if case == 0 else "")
    now = 10.0
    warning.count()
    assert [record.getMessage() for record in caplog.records] == ["1 losses: of t", "100 losses"]
