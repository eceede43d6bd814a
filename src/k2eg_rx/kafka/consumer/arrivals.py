"""Which records were certainly written a moment ago, whatever their time stamps say.

Several times a second librdkafka reports, for each partition, the end offset of the latest fetch and how long ago its
broker answered. A record at or after an end offset that was reported a moment ago was written after that. During an
outage, a pause or a backlog there are no such reports, so that nothing is known of the records read then.

Thread safety: belongs to the poll thread, on which librdkafka calls `Arrivals.on_report`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.kafka.consumer.ownership import elapsed
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_INTERVAL = 0.25  # seconds between reports: 0.2 ms of work each
_VALIDITY = 2.5  # seconds that an end offset counts: several reports, so that a short backlog counts too
_LONGEST_DELAY = 1.0  # seconds: brokers answer a fetch after 0.1 s (fetch.wait.max.ms), the loop polls as often


def _report_clock() -> float:
    """Returns the seconds of the clock of the reports' `ts`."""
    return time.time() if sys.platform == "darwin" else time.monotonic()


class _End(NamedTuple):
    broker: int
    offset: int
    reported_at: float
    answered_at: float  # the latest answer of the broker


def _ends(report: Mapping[str, Any], at: float) -> Iterator[tuple[Partition, _End]]:
    """Yields the ends of the partitions that are read without a backlog from a broker that answers."""
    idle = {
        broker["nodeid"]: broker["rxidle"] / 1e6
        for broker in report["brokers"].values()
        if broker["nodeid"] >= 0 and broker["state"] == "UP" and 0 <= broker["rxidle"] <= _LONGEST_DELAY * 1e6
    }
    for topic, known in report["topics"].items():
        for partition in known["partitions"].values():
            broker, end = partition["broker"], partition["hi_offset"]
            is_at_end = partition["fetch_state"] == "active" and 0 <= end <= partition["next_offset"]
            if is_at_end and broker in idle:
                yield (topic, partition["partition"]), _End(broker, end, at, at - idle[broker])


class Arrivals:
    """The recent end offsets of a consumer's partitions.

    Args:
        clock: Returns seconds that also run while the computer is suspended.
        report_clock: Returns the seconds of the reports' clock.
    """

    def __init__(self, clock: Callable[[], float] = elapsed, report_clock: Callable[[], float] = _report_clock) -> None:
        self._clock = clock
        self._report_clock = report_clock
        self._polled_at = clock()
        # The first of the reports without interruption by which a partition is read from one broker: its end may be
        # that of an answer before an outage, or of another broker. Later ones count once the broker has answered again.
        self._first: dict[Partition, _End] = {}
        self._recent: dict[Partition, list[_End]] = {}

    @property
    def properties(self) -> Properties:
        """The properties of the consumer that make it report."""
        return {"statistics.interval.ms": round(_INTERVAL * 1000), "stats_cb": self.on_report}

    def reset(self) -> None:
        """Forgets all ends: partitions were assigned, moved, paused, or not read for a while."""
        self._first, self._recent = {}, {}

    def on_poll(self) -> None:
        """Notices whether the consumer was not polled for a while. Called before each poll."""
        now = self._clock()
        if now - self._polled_at > _LONGEST_DELAY:  # the process was frozen, or waited for the coordinator
            self.reset()
        self._polled_at = now

    def on_report(self, text: str) -> None:
        """Takes a report of librdkafka: its `stats_cb`."""
        self.on_poll()
        try:
            report = json.loads(text)
            is_current = self._report_clock() - report["ts"] / 1e6 <= _LONGEST_DELAY
            ends = dict(_ends(report, self._polled_at)) if is_current else {}
        except (KeyError, TypeError, ValueError):
            _log.exception("report of librdkafka not understood")
            ends = {}
        previous, self._first = self._first, {}
        for key, end in ends.items():
            first = previous.get(key)
            if first is None or first.broker != end.broker:
                first = end
            self._first[key] = first
            if end.answered_at > first.reported_at:
                recent = [each for each in self._recent.get(key, ()) if self._is_recent(each)]
                self._recent[key] = [*recent, end]

    def is_live(self, partition: Partition, offset: int) -> bool:
        """Whether a record was certainly written within the last seconds."""
        return any(end.offset <= offset and self._is_recent(end) for end in self._recent.get(partition, ()))

    def _is_recent(self, end: _End) -> bool:
        return self._clock() - end.answered_at <= _VALIDITY
