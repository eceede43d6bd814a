"""Checks points in time that callers give, and converts them to nanoseconds since the Unix epoch.

Thread safety: any thread; there is no state.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from k2eg_rx.protocol import nanoseconds_of
from k2eg_rx.texts import shown

Moment = datetime | timedelta


def past_moment(moment: Moment, name: str, now: datetime) -> int:
    """Returns a time in the past in nanoseconds since the Unix epoch.

    Args:
        moment: The time, or how long ago it was.
        name: The argument's name, for the error.
        now: The present time.

    Raises:
        ValueError: The time is in the future, has no time zone, or is neither a datetime nor a timedelta.
    """
    if isinstance(moment, timedelta):
        if moment < timedelta(0):
            raise ValueError(f"{name} must not be negative (a timedelta is how long ago), got {shown(moment)}")
        try:
            return nanoseconds_of(now - moment)
        except OverflowError:
            raise ValueError(f"{name} must not be before the year 1, got {shown(moment)}") from None
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise ValueError(
            f"{name} must be a datetime with a time zone, or a timedelta back from now, got {shown(moment)}"
        )
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name} must have a time zone, got {shown(moment)}: pass datetime(..., tzinfo=UTC), or"
            " .astimezone() of a local time"
        )
    if moment > now:
        raise ValueError(f"{name} must not be in the future, got {shown(moment)}")
    return nanoseconds_of(moment)


def past_interval(start: Moment, stop: Moment | None, now: datetime) -> tuple[int, int | None]:
    """Returns an interval of the past in nanoseconds since the Unix epoch, open if there is no stop.

    Raises:
        ValueError: A time is wrong, see `past_moment`, or the interval is empty.
    """
    begin = past_moment(start, "start", now)
    end = None if stop is None else past_moment(stop, "stop", now)
    if end is not None and begin >= end:
        raise ValueError(f"start must be before stop, got start={start!r} and stop={stop!r}")
    return begin, end
