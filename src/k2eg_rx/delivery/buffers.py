"""The overflow policies of slow subscribers, and the buffers that implement them.

Thread safety: none; a buffer belongs to the lock of its queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sized
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from k2eg_rx.protocol import ConnectionEvent, PVUpdate, Record
from k2eg_rx.pv import PVAddress

if TYPE_CHECKING:
    from k2eg_rx.protocol import EventRun

_T = TypeVar("_T")


class Overflow(StrEnum):
    """What happens to events while a subscriber is slower than they arrive.

    Attributes:
        BLOCK: Nothing is lost. The client stops reading events from Kafka until there is room, for its other event
            subscribers too; Kafka is the buffer.
        LATEST: The newest event of each PV is queued, older ones are dropped.
        DROP_OLDEST: The newest `capacity` events are queued, older ones are dropped.
    """

    BLOCK = "block"
    LATEST = "latest"
    DROP_OLDEST = "drop_oldest"


class Buffer(Protocol[_T]):
    """Holds the items of one subscriber."""

    def add(self, items: Iterable[_T]) -> int:
        """Adds items; returns how many items, old or new, were dropped."""
        ...

    def take(self, count: int) -> list[_T]:
        """Removes and returns the oldest items."""
        ...

    def __len__(self) -> int: ...


class FIFOBuffer(Generic[_T]):
    """Keeps all items, or the newest `capacity`."""

    def __init__(self, capacity: int | None) -> None:
        self._items: deque[_T] = deque(maxlen=capacity)

    def add(self, items: Iterable[_T]) -> int:
        new = list(items)
        capacity = self._items.maxlen
        dropped = 0 if capacity is None else max(0, len(self._items) + len(new) - capacity)
        self._items.extend(new)
        return dropped

    def take(self, count: int) -> list[_T]:
        items = self._items
        if count >= len(items):
            taken = list(items)
            items.clear()
            return taken
        return [items.popleft() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._items)


class LatestBuffer(Generic[_T]):
    """Keeps the newest item of each name, in the order in which the names were added.

    Of a PV it keeps the newest update and the newest event of its connection, in the order in which these two arrived.
    """

    def __init__(self) -> None:
        self._items: dict[Any, _T] = {}
        self._has_connections = False

    def add(self, items: Iterable[_T]) -> int:
        dropped = 0
        for item in items:
            # two protocols of one PV are two PVs
            name = item.address.uri if isinstance(item, PVUpdate) else getattr(item, "name", None)
            if isinstance(item, ConnectionEvent):
                self._has_connections, name = True, (item.uri,)
            dropped += name in self._items
            if self._has_connections:
                self._items.pop(name, None)
            self._items[name] = item
        return dropped

    def take(self, count: int) -> list[_T]:
        names = list(self._items)[:count]
        return [self._items.pop(name) for name in names]

    def __len__(self) -> int:
        return len(self._items)


class RecordRun:
    """Events of one PV that follow each other, as records.

    Attributes:
        address: The PV.
        records: The records.
        are_usual: Whether all have a value and usual headers; see `has_usual_headers`.
        read: What was read of the events; None if they were not read.
    """

    __slots__ = ("address", "are_usual", "read", "records")

    def __init__(
        self, address: PVAddress, records: list[Record], *, are_usual: bool = False, read: EventRun | None = None
    ) -> None:
        self.address = address
        self.records = records
        self.are_usual = are_usual
        self.read = read

    def __len__(self) -> int:
        return len(self.records)

    def cut(self, begin: int, end: int | None = None) -> RecordRun:
        """Returns some of the events."""
        read = None if self.read is None else self.read.cut(begin, end)
        return RecordRun(self.address, self.records[begin:end], are_usual=self.are_usual, read=read)


class RunBuffer:
    """Keeps runs of records, or those with the newest `capacity` events. Items without events count nothing."""

    def __init__(self, capacity: int | None) -> None:
        self._runs: deque[RecordRun | Sized] = deque()
        self._capacity = capacity
        self._events = 0

    def add(self, items: Iterable[RecordRun | Sized]) -> int:
        new = list(items)
        self._runs.extend(new)
        self._events += sum(map(len, new))
        if self._capacity is None or self._events <= self._capacity:
            return 0
        dropped = self._events - self._capacity
        self._drop(dropped)
        return dropped

    def _drop(self, excess: int) -> None:
        self._events -= excess
        kept: list[RecordRun | Sized] = []
        while excess:
            run = self._runs.popleft()
            if not isinstance(run, RecordRun):
                kept.append(run)
            elif len(run) <= excess:
                excess -= len(run)
            else:
                kept.append(run.cut(excess))
                excess = 0
        self._runs.extendleft(reversed(kept))

    def take(self, count: int) -> list[RecordRun | Sized]:
        taken: list[RecordRun | Sized] = []
        while self._runs and count > 0:
            run = self._runs.popleft()
            taken.append(run)
            self._events -= len(run)
            count -= max(len(run), 1)
        return taken

    def __len__(self) -> int:
        return self._events


def run_buffer_for(overflow: Overflow, capacity: int) -> Buffer[Any]:
    """Returns the buffer of an overflow policy for runs of records. There is none for `LATEST`."""
    return RunBuffer(capacity if overflow is Overflow.DROP_OLDEST else None)


def buffer_for(overflow: Overflow, capacity: int) -> Buffer[Any]:
    """Returns the buffer of an overflow policy. With `BLOCK` it is unbounded: the queue stops its source instead."""
    if overflow is Overflow.LATEST:
        return LatestBuffer()
    return FIFOBuffer(capacity if overflow is Overflow.DROP_OLDEST else None)
