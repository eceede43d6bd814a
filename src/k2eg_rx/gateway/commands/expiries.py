"""Times at which items expire, in buckets, so that a look at them costs what is due, not what waits.

Thread safety: none; one thread uses it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Expiries(Generic[_T]):
    """The items that expire; those of the same period are in one bucket.

    Args:
        period: Seconds between looks at what is due.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._buckets: dict[int, dict[_T, datetime]] = {}
        self._bucket_of: dict[_T, int] = {}

    def __len__(self) -> int:
        return len(self._bucket_of)

    def set(self, item: _T, at: datetime | None) -> None:
        """Sets when an item expires, instead of an earlier setting; None: never."""
        number = None if at is None else int(at.timestamp() // self._period)
        previous = self._bucket_of.get(item)
        if previous is not None and previous != number:
            self.discard(item)
        if at is not None and number is not None:
            self._buckets.setdefault(number, {})[item] = at
            self._bucket_of[item] = number

    def discard(self, item: _T) -> None:
        """Removes an item. Idempotent."""
        number = self._bucket_of.pop(item, None)
        if number is not None:
            bucket = self._buckets[number]
            del bucket[item]
            if not bucket:
                del self._buckets[number]

    def due(self, now: datetime, limit: int) -> list[_T]:
        """Returns at most `limit` items that have expired, the earliest buckets first. They stay until discarded."""
        last = int(now.timestamp() // self._period)
        due: list[_T] = []
        for number in sorted(number for number in self._buckets if number <= last):
            for item, at in self._buckets[number].items():
                if at <= now:
                    due.append(item)
                    if len(due) == limit:
                        return due
        return due
