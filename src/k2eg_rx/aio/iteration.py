"""Iterates over a stream with ``async for``.

Thread safety: an iteration belongs to one event loop. It subscribes on a thread of its own, because a stream may emit
all its items during subscription.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from reactivex import Observable
from reactivex import operators as ops
from reactivex.disposable import SingleAssignmentDisposable

from k2eg_rx.aio.async_queue import AsyncQueue
from k2eg_rx.aio.threads import start_thread
from k2eg_rx.arguments import at_least_one, instance, one_of
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow

_T = TypeVar("_T")


class _Subscription(Generic[_T]):
    """A subscription that fills a queue; it outlives the iterator until it is disposed of.

    Args:
        stream: The stream.
        overflow: What happens to items beyond the capacity.
        capacity: Maximum number of queued items.
    """

    def __init__(self, stream: Observable[_T], overflow: Overflow, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._disposable = SingleAssignmentDisposable()
        self.queue: AsyncQueue[_T] = AsyncQueue(self._loop, overflow, capacity)
        self.subscribed: asyncio.Future[None] = self._loop.create_future()
        self._notifications = [self._set_subscribed]  # popped by the first thread that emits or subscribes
        start_thread(self._subscribe, "k2eg-aio-subscribe")

    def _subscribe(self) -> None:
        queue = self.queue

        def on_next(item: _T) -> None:
            self._notify_subscribed()
            queue.put(item)

        # take_while stops a stream that emits during subscription, before there is anything to dispose of
        items = self._stream.pipe(ops.take_while(lambda _: queue.is_open()))
        try:
            self._disposable.disposable = items.subscribe(on_next, queue.finish, queue.finish)
        except Exception as error:
            queue.finish(error)
        self._notify_subscribed()

    def _notify_subscribed(self) -> None:
        while self._notifications:
            with suppress(RuntimeError, IndexError):  # the loop is closed; another thread was faster
                self._loop.call_soon_threadsafe(self._notifications.pop())

    def _set_subscribed(self) -> None:
        if not self.subscribed.done():
            self.subscribed.set_result(None)

    def end(self) -> None:
        """Unsubscribes; queued items can still be read."""
        self.queue.finish()
        self._disposable.dispose()

    def close(self) -> None:
        """Unsubscribes and discards queued items."""
        self.queue.close()
        self._disposable.dispose()

    def close_soon(self) -> None:
        """Closes on the loop: garbage collection may run while the calling thread holds any lock."""
        with suppress(RuntimeError):  # the loop is closed, which the next item detects
            self._loop.call_soon_threadsafe(self.close)


class Iteration(Generic[_T]):
    """The items of a stream, for ``async for``; see `iterate`. Tasks of one event loop may share it.

    It is also an asynchronous context manager that unsubscribes. Waiting for an item may be cancelled or time out and
    be repeated without losing an item.
    """

    def __init__(self, stream: Observable[_T], *, capacity: int, overflow: Overflow) -> None:
        self._stream = stream
        self._capacity = capacity
        self._overflow = overflow
        self._subscription: _Subscription[_T] | None = None
        self._closed = False

    @property
    def dropped(self) -> int:
        """Number of items dropped because the iteration was too slow."""
        return self._subscription.queue.dropped if self._subscription else 0

    def _subscribe(self) -> _Subscription[_T]:
        subscription = self._subscription
        if subscription is None:
            subscription = self._subscription = _Subscription(self._stream, self._overflow, self._capacity)
            # for a loop left by break or an exception without a context manager
            weakref.finalize(self, subscription.close_soon).atexit = False
        return subscription

    async def __aenter__(self) -> Self:
        """Subscribes, so that no later item is missed."""
        if not self._closed:
            try:
                await self._subscribe().subscribed
            except asyncio.CancelledError:
                await self.aclose()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        if self._closed:
            raise StopAsyncIteration
        return await self._subscribe().queue.get()

    async def aclose(self) -> None:
        """Unsubscribes and ends the iteration for all tasks that share it. Idempotent."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()

    def end(self) -> None:
        """Unsubscribes; the iteration ends after the queued items. Any thread."""
        if self._subscription is not None:
            self._subscription.end()


def iterate(
    stream: Observable[_T], *, capacity: int = DEFAULT_CAPACITY, overflow: Overflow | str = Overflow.BLOCK
) -> Iteration[_T]:
    """Returns a stream as an asynchronous iterator and context manager that unsubscribes at its end.

    The stream's operators run on the stream's threads; only items are passed to the event loop. An error of the stream
    is raised after the items before it.

    Args:
        stream: The stream.
        capacity: Maximum number of items queued for the loop.
        overflow: What happens to further items. ``block``: the emitting thread waits, which slows down what is
            upstream: the queue of a client's stream fills to its own capacity, then its own policy applies (a pool
            thread holds up to 256 items meanwhile). ``latest``: the newest item of each PV is kept, or of the stream
            if items have no name. ``drop_oldest``: the newest `capacity` items are kept. `Iteration.dropped` counts
            dropped items.

    Raises:
        ValueError: `capacity` or `overflow` is invalid.

    Example:
        >>> import asyncio
        >>> import reactivex as rx
        >>> from k2eg_rx import aio
        >>> async def follow() -> None:
        ...     async with aio.iterate(rx.of(98.5, 99.5, 100.5, 101.5), capacity=10) as currents:
        ...         async for current in currents:
        ...             print(current)
        ...             if current > 100.0:
        ...                 break
        >>> asyncio.run(follow())
        98.5
        99.5
        100.5

    ``contextlib.aclosing`` works as well as ``async with``. A loop that is left without either stays subscribed until
    the iterator is garbage-collected.
    """
    instance(stream, "stream", Observable, "an Observable")
    policy = Overflow(one_of(overflow, "overflow", list(Overflow)))
    return Iteration(stream, capacity=at_least_one(capacity, "capacity"), overflow=policy)
