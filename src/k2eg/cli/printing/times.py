"""The column of times: EPICS time, the arrival here or in Kafka, or the time since the start or the last update.

Thread safety: one thread at a time, as a stream delivers its updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from k2eg.cli.printing.formatting import local_time
from k2eg_rx import PVData, PVUpdate

_NANOSECONDS = 1_000_000_000
_MILLISECOND = 1_000_000  # in nanoseconds


class TimeColumn:
    """The text of the time of each value.

    Args:
        kind: ``server`` for EPICS time, ``client`` for the arrival here, ``kafka`` for Kafka's time of the record,
            ``relative`` and ``delta`` for seconds of EPICS time since the start and since the PV's last update.
        clock: Returns the time in nanoseconds since the Unix epoch.
    """

    def __init__(self, kind: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._kind = kind
        self._clock = clock
        self._start = clock()
        self._last: dict[str, int] = {}

    def text(self, data: PVData) -> str:
        """Returns the text of a value's time."""
        match self._kind:
            case "client":
                return local_time(self._clock())
            case "kafka":
                milliseconds = data.record.timestamp_ms if isinstance(data, PVUpdate) else -1
                return local_time(milliseconds * _MILLISECOND if milliseconds >= 0 else None)
            case "relative":
                return self._seconds(data.timestamp, self._start)
            case "delta":
                now = data.timestamp
                last = self._last.get(data.name)
                if now is not None:
                    self._last[data.name] = now
                return self._seconds(now, last)
            case _:
                return local_time(data.timestamp)

    @staticmethod
    def _seconds(now: int | None, before: int | None) -> str:
        if now is None:
            return "<undefined>"
        return f"{(now - (now if before is None else before)) / _NANOSECONDS:+14.6f}"
