"""Conversion of times and durations that callers pass."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from k2eg_rx.history.time_points import nanoseconds_of, past_interval, past_moment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON = 1_772_366_400_000_000_000


def test_a_time_is_exact_to_the_microsecond():
    assert nanoseconds_of(NOW + timedelta(microseconds=1)) == NOON + 1000
    assert past_moment(NOW, "since", NOW) == NOON


def test_a_time_in_another_zone_is_converted():
    pacific = datetime(2026, 3, 1, 4, tzinfo=timezone(timedelta(hours=-8)))
    assert past_moment(pacific, "since", NOW) == NOON


def test_a_duration_counts_back_from_now():
    assert past_moment(timedelta(minutes=10), "since", NOW) == NOON - 600_000_000_000
    assert past_moment(timedelta(0), "since", NOW) == NOON


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (datetime(2026, 3, 1), "must have a time zone.*astimezone"),
        (NOW + timedelta(seconds=1), "in the future"),
        (timedelta(seconds=-1), "must not be negative"),
        (timedelta.max, "before the year 1"),
        (3600, "datetime with a time zone, or a timedelta"),
        ("yesterday", "datetime with a time zone, or a timedelta"),
        (None, "datetime with a time zone, or a timedelta"),
    ],
)
def test_invalid_values_are_rejected(moment, reason):
    with pytest.raises(ValueError, match=f"since.*{reason}"):
        past_moment(moment, "since", NOW)


def test_an_interval_may_have_no_stop():
    assert past_interval(timedelta(seconds=2), None, NOW) == (NOON - 2_000_000_000, None)
    assert past_interval(timedelta(seconds=2), NOW, NOW) == (NOON - 2_000_000_000, NOON)


@pytest.mark.parametrize("stop", [timedelta(seconds=2), timedelta(seconds=3)])
def test_an_empty_interval_is_rejected(stop):
    with pytest.raises(ValueError, match=r"start must be before stop"):
        past_interval(timedelta(seconds=2), stop, NOW)


def test_the_error_names_the_argument():
    with pytest.raises(ValueError, match="stop"):
        past_interval(timedelta(seconds=2), datetime(2026, 3, 1), NOW)
