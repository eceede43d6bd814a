"""What happens to events that a subscriber is too slow for: its choice, and the buffers that carry it out.

In: items, in order. Out: those that still count, and how many do not. One owner at a time: the mailbox's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

_T = TypeVar("_T")


class Overflow(StrEnum):
    """What happens to events that a subscriber is too slow for.

    BLOCK: nothing is lost. The client stops reading events from Kafka until there is room, for its other event
    subscribers too; Kafka is the buffer. LATEST: of each PV the newest waits, older ones are dropped. DROP_OLDEST:
    the newest `capacity` events wait, older ones are dropped.
    """

    BLOCK = "block"
    LATEST = "latest"
    DROP_OLDEST = "drop_oldest"


class Buffer(Protocol[_T]):
    """Holds a subscriber's items until their turn."""

    def add(self, items: Iterable[_T]) -> int:
        """Takes items; returns how many, old or new, were dropped."""
        ...

    def take(self, count: int) -> list[_T]:
        """Returns, and forgets, the oldest items."""
        ...

    def __len__(self) -> int: ...


class Queue(Generic[_T]):
    """Keeps all, or the newest `bound`."""

    def __init__(self, bound: int | None) -> None:
        self._items: deque[_T] = deque(maxlen=bound)

    def add(self, items: Iterable[_T]) -> int:
        new = list(items)
        bound = self._items.maxlen
        dropped = 0 if bound is None else max(0, len(self._items) + len(new) - bound)
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


class Newest(Generic[_T]):
    """Keeps the newest item of each name, in the order in which the names began to wait."""

    def __init__(self) -> None:
        self._items: dict[Any, _T] = {}

    def add(self, items: Iterable[_T]) -> int:
        dropped = 0
        for item in items:
            name = getattr(item, "name", None)
            dropped += name in self._items
            self._items[name] = item
        return dropped

    def take(self, count: int) -> list[_T]:
        names = list(self._items)[:count]
        return [self._items.pop(name) for name in names]

    def __len__(self) -> int:
        return len(self._items)


def buffer_for(overflow: Overflow, capacity: int) -> Buffer[Any]:
    """Returns the buffer that does what a subscriber has chosen."""
    if overflow is Overflow.LATEST:
        return Newest()
    return Queue(capacity if overflow is Overflow.DROP_OLDEST else None)
