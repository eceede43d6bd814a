"""Parses durations and points in time as users type them: ``90s``, ``1h30m``, ``06:30``, ``2026-11-29 06:30``."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|h|d|w)\s*", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?", re.ASCII)
_LONGEST = 100 * 365 * 86_400.0  # seconds: beyond the age of Kafka, and within what a timedelta holds

_FORMS = "a duration such as 90s, 10m, 1h30m or 2d"


def parse_duration(text: str) -> float:
    """Returns a duration in seconds; a number without a unit is in seconds.

    Raises:
        ValueError: It is none, or not above 0.
    """
    word = text.strip().lower()
    seconds = float(word) if _NUMBER.fullmatch(word) else _sum_of_parts(word)
    if not (math.isfinite(seconds) and 0 < seconds <= _LONGEST):
        raise ValueError(f"must be {_FORMS}, above 0, got {text!r}")
    return seconds


def _sum_of_parts(word: str) -> float:
    parts, end = 0.0, 0
    for part in _PART.finditer(word):
        if part.start() != end:
            return 0.0
        parts, end = parts + float(part[1]) * _UNITS[part[2]], part.end()
    return parts if end == len(word) else 0.0


def parse_moment(text: str, now: datetime) -> datetime:
    """Returns a point in time: how long ago it was, a time of today or yesterday, or a date and time.

    Args:
        text: What was typed. Local time, unless it has a zone such as ``Z`` or ``+01:00``.
        now: The present time, with a zone.

    Raises:
        ValueError: It is none, or in the future.
    """
    word = text.strip()
    if word.lower() == "now":
        return now
    try:
        return now - timedelta(seconds=parse_duration(word))
    except (ValueError, OverflowError):
        pass
    moment = _clock_time(word, now) or _date(word, now)
    if moment is None:
        raise ValueError(f"must be {_FORMS} ago, a time such as 06:30, or 2026-11-29T06:30, got {text!r}")
    if moment > now:
        raise ValueError(f"must not be in the future, got {text!r}: {moment:%Y-%m-%d %H:%M:%S%z}")
    return moment


def _clock_time(word: str, now: datetime) -> datetime | None:
    """Returns the last time at which a clock had shown this; None if it is no such time."""
    found = _CLOCK.fullmatch(word)
    if found is None:
        return None
    try:
        today = now.replace(hour=int(found[1]), minute=int(found[2]), second=int(found[3] or 0), microsecond=0)
    except ValueError:
        return None
    return today if today <= now else today - timedelta(days=1)


def _date(word: str, now: datetime) -> datetime | None:
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        return None
    try:
        # without a zone, the machine's rules for that day apply: its offset may differ from today's
        return moment if moment.tzinfo else moment.astimezone()
    except (OverflowError, OSError):
        return moment.replace(tzinfo=now.tzinfo)
