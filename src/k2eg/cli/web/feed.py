"""What one browser is sent: at each step what has changed since the last one, and no more than one message of it.

A slow browser makes fewer steps. Each has the newest value of a PV and its points, thinned: nothing waits in a queue.

Thread safety: one thread, that of the connection.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from k2eg.cli.charts.series import Series
from k2eg.cli.charts.thinning import thinned
from k2eg.cli.printing.formatting import printable
from k2eg.cli.printing.top_rows import TopRow
from k2eg.cli.web.board import Board, Shape
from k2eg_rx import Severity
from k2eg_rx.protocol import NANOSECONDS

_HISTORY_POINTS = 4000  # of a PV: twice the columns of a screen
_ALL_POINTS = 200_000  # of all PVs together, what a browser draws in a fraction of a second
_MESSAGE_POINTS = 20_000  # half a megabyte
_LEAST_POINTS = 100
_STEP_POINTS = 400  # of a PV in a step: 100 Hz for 4 s; more come from reading the history
_ROWS_SECONDS = 0.5  # numbers that change faster cannot be read
_SHAPES_SECONDS = 0.25
_ALIVE_SECONDS = 1.0

Seen = tuple[int, int]  # `Series.added` and `Series.inserted`


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / NANOSECONDS, 6)


def with_gaps(values: Iterable[tuple[int, float]], before: int | None, gap: int | None) -> list[tuple[float, float]]:
    """Returns points with seconds; NaN stands where a curve ends because no value came for too long.

    Args:
        values: Time in nanoseconds and value.
        before: Time of the value before them; None without one.
        gap: Nanoseconds that are too long; None for none.
    """
    points: list[tuple[float, float]] = []
    for time, value in values:
        if gap is not None and before is not None and time - before > gap:
            points.append((_seconds(before + 1000), math.nan))
        points.append((_seconds(time), value))
        before = time
    return points


def _columns(points: Sequence[tuple[float, float]]) -> dict[str, object]:
    return {"t": [time for time, _ in points], "v": [None if math.isnan(value) else value for _, value in points]}


class Feed:
    """The messages for one browser.

    Args:
        board: The data.
        span: Seconds that the chart shows at first.
    """

    def __init__(self, board: Board, span: float) -> None:
        self._board, self._span = board, span
        self._seen: list[Seen] = [(0, 0)] * len(board.names)
        self._rows: dict[str, dict[str, object]] = {}
        self._state = ""
        self._next = 0  # the PV whose points are sent first
        self._shapes: dict[int, int] = {}
        self._rows_at = self._shapes_at = self._sent_at = -math.inf

    def hello(self) -> str:
        """Returns the first message."""
        return json.dumps({"names": [printable(name) for name in self._board.names], "span": self._span})

    def step(self, now: int) -> list[str | Shape]:
        """Returns the next messages.

        Args:
            now: The present time in nanoseconds since the Unix epoch.
        """
        at = self._board.monotonic()
        message: dict[str, object] = {}
        if points := self._points():
            message["points"] = points
        if at - self._rows_at >= _ROWS_SECONDS:
            self._rows_at = at
            if rows := self._changed_rows(at):
                message["rows"] = rows
            state = self._board.status()
            if state != self._state:
                self._state = message["state"] = state
        found: list[str | Shape] = []
        if message or at - self._sent_at >= _ALIVE_SECONDS:
            self._sent_at = at
            found.append(json.dumps({"now": _seconds(now)} | message, allow_nan=False))
        if at - self._shapes_at >= _SHAPES_SECONDS:
            self._shapes_at = at
            found += self._board.shapes(self._shapes)
        return found

    def answer(self, request: str | bytes) -> str | None:
        """Returns the points of an interval that a browser has asked for; None for what is no such request."""
        try:
            asked = json.loads(request)
            start, stop = (int(float(asked[name]) * NANOSECONDS) for name in ("from", "to"))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        detail: list[dict[str, object]] = []
        book = self._board.book
        most = self._share(_MESSAGE_POINTS)
        for series in book.series:
            with book.lock:
                values, gap = series.between(start, stop), book.gap_of(series)
            detail.append(_columns(thinned(with_gaps(values, None, gap), most)))
        return json.dumps({"detail": detail, "from": _seconds(start), "to": _seconds(stop)}, allow_nan=False)

    def _share(self, points: int) -> int:
        """Returns how many of so many points a PV may have."""
        return min(_HISTORY_POINTS, max(points // len(self._board.names), _LEAST_POINTS))

    def _points(self) -> list[dict[str, object]]:
        """Returns the new points; those that would make the message too long come in the next one."""
        found: list[dict[str, object]] = []
        count, left = len(self._board.names), _MESSAGE_POINTS
        for number in [(self._next + place) % count for place in range(count)]:
            if left <= 0:
                self._next = number
                break
            with self._board.book.lock:
                values, is_new, gap = self._unseen(number, self._board.book.series[number])
            if not values and not is_new:
                continue
            before = None if is_new else values.pop(0)[0]
            points = thinned(with_gaps(values, before, gap), self._share(_ALL_POINTS) if is_new else _STEP_POINTS)
            left -= len(points)
            seconds = None if gap is None else gap / NANOSECONDS
            found.append({"pv": number, "gap": seconds, "new": is_new, **_columns(points)})
        return found

    def _unseen(self, number: int, series: Series) -> tuple[list[tuple[int, float]], bool, int | None]:
        """Returns the values that the browser has not, after the last one that it has; or all, and True."""
        added, inserted = self._seen[number]
        if series.added == added:
            return [], False, None
        self._seen[number] = series.added, series.inserted
        gap = self._board.book.gap_of(series)
        if added == 0 or series.inserted != inserted or series.added - added >= len(series):
            return series.points(0, series.added), True, gap
        return series.points(added - 1, series.added), False, gap

    def _changed_rows(self, at: float) -> list[dict[str, object]]:
        changed: list[dict[str, object]] = []
        limits = self._limits()
        for number, row in enumerate(self._board.rows.rows(at)):
            shown = _row(number, row, at) | limits[number]
            if self._rows.get(row.name) != shown:
                self._rows[row.name] = shown
                changed.append(shown)
        return changed

    def _limits(self) -> list[dict[str, object]]:
        with self._board.book.lock:
            newest = [series.newest for series in self._board.book.series]
        found: list[dict[str, object]] = []
        for update in newest:
            limits = None if update is None else update.limits
            lines = {"minor": limits.warning, "major": limits.alarm} if limits is not None else {}
            found.append({name: [end for end in ends or () if math.isfinite(end)] for name, ends in lines.items()})
        return found


def _row(number: int, row: TopRow, at: float) -> dict[str, object]:
    return {
        "pv": number,
        "value": row.value,
        "units": row.units,
        "severity": ""
        if row.state in ("no value", "disconnected") or row.severity is Severity.NO_ALARM
        else row.severity.name,
        "state": row.state,
        "rate": round(row.rate, 3),
        "arrived": None if math.isinf(row.age) else round(at - row.age, 3),
        "since": None if row.alarm_since is None else _seconds(row.alarm_since),
        "trend": row.trend,
    }
