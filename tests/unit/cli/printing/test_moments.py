"""Durations and points in time as users type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from k2eg.cli.printing.moments import parse_duration, parse_moment

NOW = datetime(2026, 11, 29, 6, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("10min", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("500ms", 0.5),
        ("0.5s", 0.5),
        ("1.5H", 5400.0),
        ("12", 12.0),
        (".5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1s", "h", "1x", "1h30", "x1h", "1hx", "1e400", "nan", "inf", "9999999w", "٣s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1h", NOW - timedelta(hours=1)),
        ("now", NOW),
        ("06:00", NOW.replace(minute=0, second=0)),
        ("6:30:15", NOW),
        ("07:00", NOW.replace(day=28, hour=7, minute=0, second=0)),
        ("2026-11-28T06:00Z", datetime(2026, 11, 28, 6, tzinfo=UTC)),
        ("2026-11-28 06:00:00+01:00", datetime(2026, 11, 28, 5, tzinfo=UTC)),
    ],
)
def test_points_in_time(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW) == moment


def test_a_date_without_a_zone_is_local_time() -> None:
    assert parse_moment("2026-11-28T06:00", NOW) == datetime(2026, 11, 28, 6).astimezone()


@pytest.mark.parametrize("text", ["", "soon", "25:00", "12:61", "2026-13-01", "-1h"])
def test_what_is_no_point_in_time(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_moment(text, NOW)


def test_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be in the future, got '2027-01-01T00:00Z'"):
        parse_moment("2027-01-01T00:00Z", NOW)
