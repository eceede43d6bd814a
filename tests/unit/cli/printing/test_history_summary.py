"""Summaries of histories."""

from __future__ import annotations

import math

import pytest

from k2eg.cli.printing.history_summary import Summarizer, Summary
from k2eg_rx import PVUpdate
from k2eg_rx.testing import START, series, update

SECOND = 1_000_000_000


def summary(updates: list[PVUpdate], stop: float = 100.0, gap: float | None = None) -> Summary:
    summarizer = Summarizer("my:x", gap)
    for item in updates:
        summarizer.add(item)
    return summarizer.result(START + round(stop * SECOND))


def at(seconds: float, value: object, severity: int = 0, choices: list[str] | None = None) -> PVUpdate:
    time = START + round(seconds * SECOND)
    return update("my:x", value, timestamp=time, severity=severity, choices=choices)


def test_count_rate_and_range() -> None:
    found = summary(series("my:x", [1.0, 2.0, 6.0], every=0.5, units="A"))
    assert (found.count, found.rate, found.least, found.mean, found.greatest) == (3, 2.0, 1.0, 3.0, 6.0)
    assert (found.first, found.last, found.units) == (START, START + SECOND, "A")


def test_a_history_without_updates() -> None:
    found = summary([])
    assert (found.count, found.rate, found.first, found.gaps, found.mean, found.alarm_seconds) == (
        0,
        None,
        None,
        None,
        None,
        0.0,
    )


def test_one_update_has_no_rate() -> None:
    assert summary([at(0, 1.0)]).rate is None


def test_gaps_are_much_longer_than_the_usual_interval() -> None:
    regular = [at(second, 1.0) for second in range(12)]
    assert summary(regular).gaps == 0
    found = summary([*regular, at(22.5, 1.0), at(23, 1.0), at(53, 1.0)])
    assert (found.gaps, found.longest_gap) == (2, 30.0)


def test_few_updates_have_no_usual_interval() -> None:
    assert summary([at(0, 1.0), at(1, 1.0), at(60, 1.0)]).gaps is None
    found = summary([at(0, 1.0), at(1, 1.0), at(60, 1.0)], gap=5.0)
    assert (found.gaps, found.longest_gap) == (1, 59.0)


def test_time_in_alarm_lasts_until_the_next_update_or_the_end() -> None:
    found = summary(
        [at(0, 1.0), at(10, 9.0, severity=1), at(14, 9.5, severity=2), at(15, 1.0), at(90, 9.0, severity=1)]
    )
    assert found.alarm_seconds == pytest.approx(5.0 + 10.0)


def test_values_without_meaning_do_not_count() -> None:
    found = summary([at(0, 1.0), at(1, 1e9, severity=3), at(2, math.nan), at(3, 3.0)])
    assert (found.count, found.least, found.mean, found.greatest) == (4, 1.0, 2.0, 3.0)


@pytest.mark.parametrize(("value", "choices"), [("text", None), ([1.0], None), (1, ["Off", "On"]), ({"a": [1]}, None)])
def test_what_is_no_number_has_no_range(value: object, choices: list[str] | None) -> None:
    found = summary([at(0, value, choices=choices)])
    assert (found.count, found.mean) == (1, None)


def test_a_time_that_goes_back_does_no_harm() -> None:
    found = summary([at(10, 1.0, severity=1), at(5, 1.0, severity=1), at(20, 1.0)])
    assert (found.alarm_seconds, found.last) == (10.0, START + 20 * SECOND)


def test_an_update_without_epics_time_has_that_of_kafka() -> None:
    found = summary([update("my:x", 1.0, timestamp=None, arrival_ms=START // 1_000_000 + 500)])
    assert found.first == START + SECOND // 2
