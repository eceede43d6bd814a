"""The past of some PVs in order, out of partitions that are read side by side.

In: records, pulled from a transport's `History`, a partition at a time. Out: updates, in the order of their event time,
those of one partition in the order of their offsets. Memory is bounded whatever the length of the past. Belongs to the
one thread that reads.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping

from k2eg_rx.history.selection import Selection, TimedUpdate
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.transport import History, Partition, Record, Span

_BUDGET = 16 * 1024 * 1024  # bytes of records that wait, of all partitions together; as much as the prefetch
_RECORD_BYTES = 400  # what a record takes in memory besides its body
_SLICE = 256  # updates at a time, as many as a mailbox hands over without a break


class _Shelf:
    """The records of one partition on their way.

    Attributes:
        position: The offset that is to be read next.
        end: The offset before which it is to be read.
        head: Its next update.
        newest_ms: The latest of Kafka's time stamps that was read; -1 if none.
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

    def put(self, record: Record, *, wanted: bool) -> None:
        """Takes what was read; what is not wanted only moves the position."""
        self.position = record.offset + 1
        self.newest_ms = max(self.newest_ms, record.timestamp_ms)
        if wanted:
            self.records.append(record)
            self.size += len(record.value or b"") + _RECORD_BYTES

    def take(self) -> Record:
        """Returns the oldest record, and forgets it."""
        record = self.records.popleft()
        self.size -= len(record.value or b"") + _RECORD_BYTES
        return record


class Merge:
    """The updates of several partitions in the order of their event time.

    Looks ahead in each partition only as far as it takes to know which update is next, and a bounded number of bytes.

    Args:
        history: What reads.
        selection: What the records tell.
        spans: What is to be read.
        most: How many updates to return at a time, at most.
    """

    def __init__(
        self, history: History, selection: Selection, spans: Mapping[Partition, Span], most: int = _SLICE
    ) -> None:
        self._history = history
        self._selection = selection
        self._most = min(most, _SLICE)
        self._shelves = {partition: _Shelf(partition, span) for partition, span in spans.items()}
        self._heads: list[tuple[int, Partition]] = []
        self._hungry = {shelf.partition for shelf in self._shelves.values() if not shelf.is_read}
        self._wanted: set[Partition] = set()
        self._doubtful = False
        self.records_read = 0

    @property
    def is_done(self) -> bool:
        """Whether everything was returned."""
        return not self._hungry and not self._heads

    def covered(self) -> dict[Partition, tuple[int, int]]:
        """Returns, for each partition, the offset before which all was read, and the latest of Kafka's times there."""
        return {partition: (shelf.position, shelf.newest_ms) for partition, shelf in self._shelves.items()}

    def extend(self, spans: Mapping[Partition, Span]) -> None:
        """Has more read: each partition up to the end given; one that is new, from the beginning given."""
        for partition, span in spans.items():
            shelf = self._shelves.setdefault(partition, _Shelf(partition, span))
            shelf.end = max(shelf.end, span.end)
            if shelf.head is None and not shelf.is_read:
                self._hungry.add(partition)

    def advance(self, timeout: float) -> list[TimedUpdate]:
        """Returns the next updates, perhaps none; reads, for about `timeout` seconds at most, if that is needed."""
        if self._hungry:
            self._read(timeout)
        told: list[TimedUpdate] = []
        while self._heads and not self._hungry and len(told) < self._most:
            time, partition = heapq.heappop(self._heads)
            shelf = self._shelves[partition]
            if shelf.head is not None:
                told.append(TimedUpdate(time, shelf.head))
            self._raise_head(shelf)
        return told

    def _raise_head(self, shelf: _Shelf) -> None:
        shelf.head = None
        while shelf.records:
            told = self._selection.update(shelf.take())
            if told is not None:
                shelf.head = told.update
                heapq.heappush(self._heads, (told.time, shelf.partition))
                self._hungry.discard(shelf.partition)
                return
        if shelf.is_read:
            self._hungry.discard(shelf.partition)
        else:
            self._hungry.add(shelf.partition)

    def _read(self, timeout: float) -> None:
        if self._doubtful:
            self._look_for_ends(timeout)
        wanted = self._choose()
        records, ends = self._history.read(wanted, timeout)
        self.records_read += len(records)
        for record in records:
            shelf = self._shelves.get(record[:2])
            if shelf is None or record.offset < shelf.position:
                continue
            if record.offset >= shelf.end:
                shelf.position = max(shelf.position, shelf.end)
            else:
                shelf.put(record, wanted=self._selection.concerns(record))
        for partition, end in ends.items():
            self._note_end(self._shelves.get(partition), end)
        for partition in list(self._hungry):
            self._raise_head(self._shelves[partition])

    def _choose(self) -> dict[Partition, int]:
        """The partitions to read on, and where: those with little in stock. Each has a share of the memory."""
        unread = [shelf for shelf in self._shelves.values() if not shelf.is_read]
        share = _BUDGET // max(1, len(unread))
        chosen = [
            shelf
            for shelf in unread
            if shelf.partition in self._hungry
            or shelf.size < (share if shelf.partition in self._wanted else share // 2)
        ]
        self._wanted = {shelf.partition for shelf in chosen}
        return {shelf.partition: shelf.position for shelf in chosen}

    def _note_end(self, shelf: _Shelf | None, end: int) -> None:
        if shelf is None or shelf.is_read:
            return
        if end >= shelf.end:
            shelf.position = shelf.end  # what is missing up to there was never a record, or is not any more
        else:
            self._doubtful = True  # word from before there was more, or the topic was deleted and made again

    def _look_for_ends(self, timeout: float) -> None:
        """Gives up what is not there any more."""
        spans = self._history.locate(0, None, timeout)
        if spans is None:
            return
        self._doubtful = False
        for shelf in self._shelves.values():
            span = spans.get(shelf.partition)
            if not shelf.is_read and (span is None or span.end < shelf.end):
                shelf.end = shelf.position
