"""Checks points in time that callers give, and converts them to nanoseconds since the Unix epoch.

Thread safety: any thread; there is no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from k2eg_rx.protocol import nanoseconds_of
from k2eg_rx.texts import shown
from k2eg_rx.transport import Partition, Span

Moment = datetime | timedelta


@dataclass(frozen=True, slots=True)
class Positions:
    """Where reading goes on in topics, as `k2eg_rx.recording.positions` returns it for a recording.

    Attributes:
        next: The next offset to read, by topic and partition. Others are read from the oldest record that Kafka keeps.
    """

    next: Mapping[Partition, int]

    def within(self, spans: Mapping[Partition, Span]) -> dict[Partition, Span]:
        """Returns the offsets to read of those that exist.

        A topic that ends before its position was deleted and created again: all of it is read.
        """
        return {
            partition: Span(max(span.begin, position), span.end)
            if (position := self.next.get(partition, span.begin)) <= span.end
            else span
            for partition, span in spans.items()
        }


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
