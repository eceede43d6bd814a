"""Points in time as callers give them, checked.

In: a `datetime` with a time zone, or a `timedelta` back from now. Out: integer nanoseconds since the Unix epoch, or a
ValueError that says what to pass. Pure; any thread.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from k2eg_rx.protocol import nanoseconds_of

Moment = datetime | timedelta


def past_moment(moment: Moment, name: str, now: datetime) -> int:
    """Returns a time in the past in nanoseconds since the Unix epoch.

    Args:
        moment: The time, or how long ago.
        name: The argument's name, for the error.
        now: The present time.

    Raises:
        ValueError: It is in the future, has no time zone, or is neither a time nor a duration.
    """
    if isinstance(moment, timedelta):
        if moment < timedelta(0):
            raise ValueError(f"{name}={moment!r}: a duration says how long ago; it may not be negative")
        try:
            return nanoseconds_of(now - moment)
        except OverflowError:
            raise ValueError(f"{name}={moment!r}: that is before the calendar begins") from None
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise ValueError(f"{name} is a datetime with a time zone, or a timedelta back from now, not {moment!r}")
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name}={moment!r} has no time zone, so it could be of any: pass datetime(..., tzinfo=UTC), or"
            " .astimezone() of a local time"
        )
    if moment > now:
        raise ValueError(f"{name}={moment!r} is in the future")
    return nanoseconds_of(moment)


def past_interval(start: Moment, stop: Moment | None, now: datetime) -> tuple[int, int | None]:
    """Returns an interval of the past in nanoseconds since the Unix epoch; it stays open where no stop is given.

    Raises:
        ValueError: One of the times is wrong, see `past_moment`, or the interval is empty.
    """
    begin = past_moment(start, "start", now)
    end = None if stop is None else past_moment(stop, "stop", now)
    if end is not None and begin >= end:
        raise ValueError(f"start={start!r} is not before stop={stop!r}")
    return begin, end
