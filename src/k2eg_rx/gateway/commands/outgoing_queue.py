"""Bounded queue of the records that wait for Kafka, in order per PV.

Thread safety: belongs to the event loop thread, but `Lane.reported` and `Lane.since`, which delivery reports change.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import count, islice

from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.transport import RecordSink

_RECORD_BYTES = 600  # memory of a record beside its value, roughly
_MAX_REPLIES = 1000  # replies of one topic and key that wait at most; events are dropped first
_ACCEPTED_BYTES = 900_000  # of a record; a broker's limit is 1 MiB unless configured otherwise
_LOOK_AHEAD = 100  # records beyond the oldest among which one to drop is looked for


class Outlet:
    """A sink, and the number of its records whose delivery was reported, which its thread counts."""

    __slots__ = ("reported", "sink")

    def __init__(self, sink: RecordSink) -> None:
        self.sink = sink
        self.reported = 0


class Lane:
    """The records of one topic and key, which stay in order: the events of a PV, the messages of a snapshot, replies.

    Args:
        outlet: Where its records go.

    Attributes:
        outlet: See above.
        waiting: The numbers of the records that wait, the oldest first.
        sent: Records passed to the sink.
        reported: Records whose delivery was reported.
        since: The publisher's tick of the last report, or of the first record without a report.
        lost: Records that were not published, or may not be stored, since a client was last told.
        tell: Makes the record that tells clients of them.
        owed: The tail of a snapshot's iteration that was dropped although its header was sent; it goes before the next
            header.
        held: The record whose report the others wait for, because Kafka may refuse it as too large.
        accepted: The bytes that Kafka is known to accept.
    """

    __slots__ = ("accepted", "held", "lost", "outlet", "owed", "reported", "sent", "since", "tell", "waiting")

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.waiting: deque[int] = deque()
        self.sent = 0
        self.reported = 0
        self.since = 0
        self.lost = 0
        self.tell: Callable[[str, int], OutgoingRecord | None] | None = None
        self.owed: OutgoingRecord | None = None
        self.held: OutgoingRecord | None = None
        self.accepted = _ACCEPTED_BYTES

    def is_settled(self) -> bool:
        """Whether no record waits or is to be confirmed."""
        return not self.waiting and self.sent == self.reported

    def is_idle(self) -> bool:
        """Whether nothing of the lane has to be remembered."""
        return self.is_settled() and not self.lost and self.owed is None


class OutgoingQueue:
    """The records that wait.

    Args:
        limit: The number of records.
        max_bytes: Their approximate memory in bytes.
        overflow: What is dropped beyond: with "latest" the older records of a PV that has several, so that the newest
            of each PV stays even beyond the limits; with "drop_oldest" the oldest of all. Replies stay as long as
            there are others.

    Attributes:
        bytes: The approximate memory of the records that wait. Any thread.
    """

    def __init__(self, limit: int, max_bytes: int, overflow: str) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._latest = overflow == "latest"
        self._numbers = count()
        self._records: OrderedDict[int, tuple[Lane, OutgoingRecord, int]] = OrderedDict()
        self._lanes: dict[Lane, None] = {}  # those with waiting records
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def lanes(self) -> list[Lane]:
        """Returns the lanes with waiting records; the one that waits longest for its turn first."""
        return list(self._lanes)

    def add(self, lane: Lane, record: OutgoingRecord, timestamp_ms: int) -> Iterator[tuple[Lane, OutgoingRecord]]:
        """Adds a record; yields each record that is dropped for it, with its lane. Must be iterated to its end."""
        number = next(self._numbers)
        self._records[number] = (lane, record, timestamp_ms)
        self.bytes += len(record.value) + _RECORD_BYTES
        lane.waiting.append(number)
        self._lanes[lane] = None
        while len(self._records) > self._limit or self.bytes > self._max_bytes:
            dropped = self._number_to_drop(lane, record)
            if dropped is None:
                return
            yield self._remove(dropped)

    def _number_to_drop(self, lane: Lane, record: OutgoingRecord) -> int | None:
        if self._latest and record.droppable and len(lane.waiting) > 1:
            return lane.waiting[0]
        for number in islice(self._records, _LOOK_AHEAD):
            owner, oldest, _ = self._records[number]
            if oldest.droppable and owner.waiting[0] == number and (len(owner.waiting) > 1 or not self._latest):
                return number
        if record.droppable:
            return None if self._latest or not lane.waiting else lane.waiting[0]
        return lane.waiting[0] if len(lane.waiting) > _MAX_REPLIES else None

    def _remove(self, number: int) -> tuple[Lane, OutgoingRecord]:
        lane, record, _ = self._records.pop(number)
        self.bytes -= len(record.value) + _RECORD_BYTES
        lane.waiting.popleft()
        if not lane.waiting:
            self._lanes.pop(lane, None)
        return lane, record

    def first(self, lane: Lane) -> tuple[OutgoingRecord, int]:
        """Returns the oldest waiting record of a lane and its time stamp."""
        _, record, timestamp_ms = self._records[lane.waiting[0]]
        return record, timestamp_ms

    def discard(self, lane: Lane, record: OutgoingRecord) -> None:
        """Removes a record that was the oldest waiting one of its lane; it may have been dropped since."""
        if lane.waiting and self._records[lane.waiting[0]][1] is record:
            self._remove(lane.waiting[0])

    def take(self, lane: Lane) -> list[OutgoingRecord]:
        """Removes and returns the waiting records of a lane."""
        lane.owed = None
        return [self._remove(number)[1] for number in list(lane.waiting)]

    def rotate(self, lane: Lane) -> None:
        """Lets other lanes go first."""
        if self._lanes.pop(lane, lane) is None:
            self._lanes[lane] = None

    def clear(self) -> int:
        """Removes all records; returns their number."""
        number = len(self._records)
        for lane in self._lanes:
            lane.waiting.clear()
        self._records.clear()
        self._lanes.clear()
        self.bytes = 0
        return number
