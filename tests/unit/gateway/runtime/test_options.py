"""The `[gateway]` section, and the numbers."""

from __future__ import annotations

import logging

import pytest

from k2eg_rx.gateway.runtime.metrics import Metrics, RateLimitedWarning
from k2eg_rx.gateway.runtime.options import GatewayOptions


def test_an_empty_section_has_the_defaults() -> None:
    assert GatewayOptions.from_section({}) == GatewayOptions()


def test_a_section_is_read() -> None:
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
        ({"operation_timeuot": "1"}, "operation_timeuot: no such option; there is create_topics, group"),
        ({"operation_timeout": "soon"}, "operation_timeout: 'soon' is not a number"),
        ({"operation_timeout": "0"}, "operation_timeout: 0.0 is not a time above 0 s"),
        ({"max_put_age": "nan"}, "max_put_age"),
        ({"monitor_expiration": "-1"}, "monitor_expiration"),
        ({"max_pending": "1.5"}, "max_pending: '1.5' is not a whole number"),
        ({"max_pending": "0"}, "max_pending: 0 is not a number above 0"),
        ({"create_topics": "maybe"}, "create_topics: 'maybe' is neither yes nor no"),
        ({"group": "my-K2EG-group"}, "without 'k2eg' in it"),
        ({"group": ""}, "group: ''"),
    ],
)
def test_what_is_wrong_is_named(section: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\]") as raised:
        GatewayOptions.from_section(section)
    assert words in str(raised.value)


def test_counters_add_up() -> None:
    metrics = Metrics(dropped_updates=1, dropped_samples=2, dropped_records=3)
    assert metrics.dropped == 6
    assert metrics.as_dict()["dropped_records"] == 3


def test_a_flood_of_trouble_is_a_line_each_10_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    warning = RateLimitedWarning(logging.getLogger("test"), "{} losses", lambda: now)
    for case in range(100):
        warning.count("of t" if case == 0 else "")
    now = 10.0
    warning.count()
    assert [record.getMessage() for record in caplog.records] == ["1 losses: of t", "100 losses"]
