"""Merges the records of several partitions by event time, in bounded memory.

Updates of one partition keep the order of their offsets.

Thread safety: none; all belongs to the thread that reads.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping

from k2eg_rx.history.selection import Selection, TimedUpdate
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.transport import History, Partition, Record, Span

_BUDGET = 16 * 1024 * 1024  # bytes of buffered records, of all partitions together; as much as the prefetch
_RECORD_BYTES = 400  # memory of a record besides its value
_SLICE = 256  # updates returned at a time


class _PartitionBuffer:
    """The records of one partition that were read but not returned. Belongs to its `Merge`.

    Attributes:
        position: The next offset to read.
        end: The offset at which reading ends.
        head: The next update to return.
        newest_ms: The latest Kafka time stamp that was read; -1 if none.
    """

    __slots__ = ("end", "head", "newest_ms", "partition", "position", "records", "size")

    def __init__(self, partition: Partition, span: Span) -> None:
        self.partition = partition
        self.position, self.end = span
        self.records: deque[Record] = deque()
        self.size = 0
        self.head: PVUpdate | None = None
        self.newest_ms = -1

    @property
    def is_read(self) -> bool:
        return self.position >= self.end

    def add(self, record: Record, *, wanted: bool) -> None:
        """Adds a record; an unwanted one only advances the position."""
        self.position = record.offset + 1
        self.newest_ms = max(self.newest_ms, record.timestamp_ms)
        if wanted:
            self.records.append(record)
            self.size += len(record.value or b"") + _RECORD_BYTES

    def take(self) -> Record:
        """Removes and returns the oldest record."""
        record = self.records.popleft()
        self.size -= len(record.value or b"") + _RECORD_BYTES
        return record


class Merge:
    """The updates of several partitions in the order of their event time.

    Each partition is read ahead only as far as the next update requires, up to a bounded number of bytes.

    Args:
        history: Reads the records.
        selection: Decides which records are wanted, and decodes them.
        spans: The offsets to read.
        limit: How many updates to return at a time, at most.
    """

    def __init__(
        self, history: History, selection: Selection, spans: Mapping[Partition, Span], limit: int = _SLICE
    ) -> None:
        self._history = history
        self._selection = selection
        self._limit = min(limit, _SLICE)
        self._buffers = {partition: _PartitionBuffer(partition, span) for partition, span in spans.items()}
        self._heads: list[tuple[int, Partition]] = []
        self._needs_data = {buffer.partition for buffer in self._buffers.values() if not buffer.is_read}
        self._requested: set[Partition] = set()
        self._recheck_ends = False
        self.records_read = 0

    @property
    def is_done(self) -> bool:
        """Whether all updates were returned."""
        return not self._needs_data and not self._heads

    def covered(self) -> dict[Partition, tuple[int, int]]:
        """Returns the position and the latest Kafka time stamp of each partition."""
        return {partition: (buffer.position, buffer.newest_ms) for partition, buffer in self._buffers.items()}

    def extend(self, spans: Mapping[Partition, Span]) -> None:
        """Extends each partition to the given end; a new one begins at the given offset."""
        for partition, span in spans.items():
            buffer = self._buffers.setdefault(partition, _PartitionBuffer(partition, span))
            buffer.end = max(buffer.end, span.end)
            if buffer.head is None and not buffer.is_read:
                self._needs_data.add(partition)

    def advance(self, timeout: float) -> list[TimedUpdate]:
        """Returns the next updates, perhaps none; if records are missing, reads for about `timeout` seconds."""
        if self._needs_data:
            self._read(timeout)
        updates: list[TimedUpdate] = []
        while self._heads and not self._needs_data and len(updates) < self._limit:
            time, partition = heapq.heappop(self._heads)
            buffer = self._buffers[partition]
            if buffer.head is not None:
                updates.append(TimedUpdate(time, buffer.head))
            self._next_head(buffer)
        return updates

    def _next_head(self, buffer: _PartitionBuffer) -> None:
        buffer.head = None
        while buffer.records:
            timed = self._selection.update(buffer.take())
            if timed is not None:
                buffer.head = timed.update
                heapq.heappush(self._heads, (timed.time, buffer.partition))
                self._needs_data.discard(buffer.partition)
                return
        if buffer.is_read:
            self._needs_data.discard(buffer.partition)
        else:
            self._needs_data.add(buffer.partition)

    def _read(self, timeout: float) -> None:
        if self._recheck_ends:
            self._check_ends(timeout)
        records, ends = self._history.read(self._request(), timeout)
        self.records_read += len(records)
        for record in records:
            buffer = self._buffers.get(record[:2])
            if buffer is None or record.offset < buffer.position:
                continue
            if record.offset >= buffer.end:
                buffer.position = max(buffer.position, buffer.end)
            else:
                buffer.add(record, wanted=self._selection.may_contain(record))
        for partition, end in ends.items():
            self._on_end(self._buffers.get(partition), end)
        for partition in list(self._needs_data):
            self._next_head(self._buffers[partition])

    def _request(self) -> dict[Partition, int]:
        """Returns the partitions to read and their positions: those with few records, by their share of the memory."""
        unread = [buffer for buffer in self._buffers.values() if not buffer.is_read]
        share = _BUDGET // max(1, len(unread))
        chosen = [
            buffer
            for buffer in unread
            if buffer.partition in self._needs_data
            or buffer.size < (share if buffer.partition in self._requested else share // 2)
        ]
        self._requested = {buffer.partition for buffer in chosen}
        return {buffer.partition: buffer.position for buffer in chosen}

    def _on_end(self, buffer: _PartitionBuffer | None, end: int) -> None:
        if buffer is None or buffer.is_read:
            return
        if end >= buffer.end:
            buffer.position = buffer.end  # the missing offsets are no records (transaction markers), or were deleted
        else:
            self._recheck_ends = True  # an end from before the last records, or the topic was deleted and created again

    def _check_ends(self, timeout: float) -> None:
        """Ends partitions at what they hold now."""
        spans = self._history.locate(0, None, timeout)
        if spans is None:
            return
        self._recheck_ends = False
        for buffer in self._buffers.values():
            span = spans.get(buffer.partition)
            if not buffer.is_read and (span is None or span.end < buffer.end):
                buffer.end = buffer.position
