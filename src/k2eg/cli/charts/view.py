"""What part of its data a chart shows, and how: window, cursor, scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

from k2eg_rx.protocol import NANOSECONDS

_LEAST_SPAN = 0.1  # seconds: less has no tick of its own
_MOST_SPAN = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class View:
    """What a chart shows. Times are nanoseconds since the Unix epoch.

    Attributes:
        span: Seconds from the left to the right.
        end: The time at the right; None for the present, with which the chart moves.
        cursor: The time of the cursor; None for no cursor.
        own: Whether each PV has a scale of its own, or all share one.
        is_log: Whether the scales are logarithmic.
        selected: The number of the PV whose limits, and own scale, are shown.
    """

    span: float
    end: int | None = None
    cursor: int | None = None
    own: bool = False
    is_log: bool = False
    selected: int = 0

    def window(self, now: int) -> tuple[int, int]:
        """Returns the times at the left and at the right."""
        end = now if self.end is None else self.end
        return end - int(self.span * NANOSECONDS), end

    def paused(self, now: int) -> View:
        """Returns the view that stands still, or moves again if it stood."""
        return replace(self, end=now if self.end is None else None)

    def panned(self, now: int, part: float) -> View:
        """Returns the view moved by a part of its width; at the present it moves on.

        Args:
            now: The present time.
            part: Below 0 for earlier.
        """
        end = self.window(now)[1] + int(part * self.span * NANOSECONDS)
        return replace(self, end=end if end < now else None)

    def zoomed(self, now: int, factor: float) -> View:
        """Returns the view of another span; a cursor stays where it is, otherwise the right end does.

        Args:
            now: The present time.
            factor: Of the span; below 1 shows less, in more detail.
        """
        span = min(max(self.span * factor, _LEAST_SPAN), _MOST_SPAN)
        start, end = self.window(now)
        if self.cursor is None or not start <= self.cursor <= end:
            return replace(self, span=span)
        right = self.cursor + int((end - self.cursor) * (span / self.span))
        return replace(self, span=span, end=right if right < now else None)

    def pointed(self, now: int, part: float) -> View:
        """Returns the view with its cursor moved by a part of the width, within the window.

        The first move sets the cursor to the middle, and the view stands still, so that it is not left behind.
        """
        start, end = self.window(now)
        middle = (start + end) // 2
        cursor = middle if self.cursor is None else self.cursor + int(part * self.span * NANOSECONDS)
        return replace(self, end=end, cursor=min(max(cursor, start), end))

    def next(self, count: int) -> View:
        """Returns the view with the next of several PVs selected."""
        return replace(self, selected=(self.selected + 1) % count)
