"""A bounded queue from the threads of a stream to the coroutines of one event loop.

Thread safety: a condition's lock guards all state but the streak and new waiters, which belong to the loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

from k2eg_rx.concurrency import blocking_section, current_runtime
from k2eg_rx.delivery import Buffer, Overflow, buffer_for

_T = TypeVar("_T")

# Seconds between checks of a blocked thread that loop and client still exist; all other changes notify it.
_CHECK_INTERVAL = 1.0
_STREAK = 64  # items taken without suspending before other tasks of the loop get their turn


class AsyncQueue(Generic[_T]):
    """A bounded queue: any thread puts items, coroutines get them.

    Args:
        loop: The loop of the calling thread.
        overflow: What happens to items beyond the capacity.
        capacity: Maximum number of queued items.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, overflow: Overflow, capacity: int) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._condition = threading.Condition()
        self._buffer: Buffer[_T] = buffer_for(overflow, capacity)
        # In virtual time a single thread runs everything, so blocking it would be a deadlock.
        self._blocks = overflow is Overflow.BLOCK and not current_runtime().is_virtual
        self._high = capacity
        self._low = capacity // 2
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._streak = 0
        self._ended = False
        self._error: Exception | None = None
        self.dropped = 0

    def is_open(self) -> bool:
        """Whether the queue accepts items."""
        return not self._ended

    def put(self, item: _T) -> None:
        """Adds an item; with `Overflow.BLOCK`, waits until there is space. Any thread but the loop's."""
        with self._condition:
            if self._loop.is_closed():
                self._end(None)
            elif self._blocks and len(self._buffer) >= self._high:
                self._wait_for_space()
            if not self._ended:
                self.dropped += self._buffer.add((item,))
                self._wake()

    def finish(self, error: Exception | None = None) -> None:
        """Ends the queue, with an error or without, after the items in it. Any thread."""
        with self._condition:
            self._end(error)

    def close(self) -> None:
        """Ends the queue at once: discards its items and releases blocked threads. Any thread."""
        with self._condition:
            self._buffer.take(len(self._buffer))
            self._error = None
            self._end(None)

    async def get(self) -> _T:
        """Returns the next item.

        Raises:
            StopAsyncIteration: The queue has ended.
            Exception: The error that the queue was finished with; raised once.
        """
        self._streak += 1
        if self._streak > _STREAK:
            self._streak = 0
            await asyncio.sleep(0)
        while True:
            with self._condition:
                items = self._buffer.take(1)
                if items:
                    if len(self._buffer) <= self._low:
                        self._condition.notify_all()
                    return items[0]
                if self._ended:
                    error, self._error = self._error, None
                    raise _raisable(error)
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._waiters.append(waiter)
            self._streak = 0
            await self._wait(waiter)

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        except asyncio.CancelledError:
            with self._condition, suppress(ValueError):  # it has been woken already
                self._waiters.remove(waiter)
            raise

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._condition.notify_all()
            self._wake()

    def _wait_for_space(self) -> None:
        """Waits until the queue is half empty or ended."""
        if threading.get_ident() == self._loop_thread:
            self._end(
                RuntimeError(
                    f"{self._high} items are queued and the next arrived on the event loop's own thread, which cannot"
                    " block: emit on another thread, increase capacity, or use overflow='latest' or 'drop_oldest'"
                )
            )
            return
        with blocking_section() as is_to_end:
            while not self._ended and len(self._buffer) > self._low:
                if not self._condition.wait(_CHECK_INTERVAL) and (self._loop.is_closed() or is_to_end()):
                    self._end(None)

    def _wake(self) -> None:
        """Schedules the waiters to be woken, unless that is scheduled already."""
        if not self._waiters or self._waking:
            return
        try:
            self._loop.call_soon_threadsafe(self._wake_waiters)
        except RuntimeError:  # the loop is closed: no coroutine will ask for an item
            self._ended = True
        else:
            self._waking = True

    def _wake_waiters(self) -> None:
        with self._condition:
            waiters, self._waiters = self._waiters, deque()
            self._waking = False
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _raisable(error: Exception | None) -> Exception:
    """Returns what `get` raises at the end; a stream's StopIteration must not look like its completion."""
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        failure = RuntimeError(f"the stream failed with {error!r}")
        failure.__cause__ = error
        return failure
    return error or StopAsyncIteration()
