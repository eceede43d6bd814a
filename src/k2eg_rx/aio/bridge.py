"""The way of a stream's items from whatever thread they come on to the coroutines that take them.

In: items, one at a time, on the stream's threads. Out: the same, on the loop's thread, when a coroutine asks for one.
At most `maxsize` wait in between: by the policy, the stream's thread is then held back, or items are dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

from k2eg_rx.concurrency import current_runtime, held_back
from k2eg_rx.delivery import Buffer, Overflow, buffer_for

_T = TypeVar("_T")

# Seconds between looks of a thread that is held back, whether loop and client are still there; all else it is told.
_LOOK = 1.0
_STREAK = 64  # items taken in a row before others on the loop have their turn


class Bridge(Generic[_T]):
    """A bounded queue from threads to an event loop.

    All state belongs to the condition's lock, but the streak, which is the loop's thread's. Waiters are added and taken
    there only, too.

    Args:
        loop: The loop; it is the calling thread's.
        overflow: What happens to items that the coroutines are too slow for.
        maxsize: How many may wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, overflow: Overflow, maxsize: int) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._condition = threading.Condition()
        self._buffer: Buffer[_T] = buffer_for(overflow, maxsize)
        # in virtual time one thread does everything: were it held back, nothing would ever happen again
        self._holds = overflow is Overflow.BLOCK and current_runtime() is None
        self._high = maxsize
        self._low = maxsize // 2
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._streak = 0
        self._ended = False
        self._error: Exception | None = None
        self.dropped = 0

    def is_open(self) -> bool:
        """Whether items are still wanted."""
        return not self._ended

    def offer(self, item: _T) -> None:
        """Adds an item; where the policy says so, returns only when there is room. Any thread but the loop's."""
        with self._condition:
            if self._loop.is_closed():
                self._end(None)
            elif self._holds and len(self._buffer) >= self._high:
                self._hold_back()
            if not self._ended:
                self.dropped += self._buffer.add((item,))
                self._wake()

    def finish(self, error: Exception | None = None) -> None:
        """Ends it after what was offered: completed, or failed. Any thread."""
        with self._condition:
            self._end(error)

    def close(self) -> None:
        """Ends it at once: nothing more is handed over, and nobody is held back. Any thread."""
        with self._condition:
            self._buffer.take(len(self._buffer))
            self._error = None
            self._end(None)

    async def take(self) -> _T:
        """Returns the next item.

        Raises:
            StopAsyncIteration: There are no more.
            Exception: What the stream has failed with; once.
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
            await self._called(waiter)

    async def _called(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        except asyncio.CancelledError:
            with self._condition, suppress(ValueError):  # it was called already
                self._waiters.remove(waiter)
            raise

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._condition.notify_all()
            self._wake()

    def _hold_back(self) -> None:
        """Returns when there is room for a good deal, or it has ended."""
        if threading.get_ident() == self._loop_thread:
            self._end(
                RuntimeError(
                    f"{self._high} items wait, and the next came on the event loop's own thread, which cannot be held"
                    " back: emit on another thread, make maxsize larger, or say overflow='latest' or 'drop_oldest'"
                )
            )
            return
        with held_back() as is_to_end:
            while not self._ended and len(self._buffer) > self._low:
                if not self._condition.wait(_LOOK) and (self._loop.is_closed() or is_to_end()):
                    self._end(None)

    def _wake(self) -> None:
        """Has the loop look, if somebody waits there and it is not about to."""
        if not self._waiters or self._waking:
            return
        try:
            self._loop.call_soon_threadsafe(self._call_waiters)
        except RuntimeError:  # the loop is closed: nobody will ever ask
            self._ended = True
        else:
            self._waking = True

    def _call_waiters(self) -> None:
        with self._condition:
            waiters, self._waiters = self._waiters, deque()
            self._waking = False
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _raisable(error: Exception | None) -> Exception:
    """Returns what a coroutine raises for the end, such that a stream's failure is never taken for its completion."""
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        failure = RuntimeError(f"the stream failed with {error!r}")
        failure.__cause__ = error
        return failure
    return error or StopAsyncIteration()
