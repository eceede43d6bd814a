"""A stream as an asynchronous iterator.

In: a stream. Out: its items, to ``async for``. It is subscribed to when the iteration begins, on a thread of its own
(a stream may emit all it has while it is being subscribed to), and unsubscribed from when it ends.
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

from k2eg_rx.aio.bridge import Bridge
from k2eg_rx.aio.threads import start_thread
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow

_T = TypeVar("_T")


class _Subscription(Generic[_T]):
    """A stream being iterated over: what outlives the iterator until it is unsubscribed from.

    It is made on the loop's thread. Whether it has begun is told once, by the thread that emits or subscribes first.

    Args:
        stream: The stream.
        overflow: What happens to items that the coroutines are too slow for.
        maxsize: How many may wait.
    """

    def __init__(self, stream: Observable[_T], overflow: Overflow, maxsize: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._disposable = SingleAssignmentDisposable()
        self.bridge: Bridge[_T] = Bridge(self._loop, overflow, maxsize)
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self._untold = [self._begin]
        start_thread(self._subscribe, "k2eg-aio-subscribe")

    def _subscribe(self) -> None:
        bridge = self.bridge

        def offer(item: _T) -> None:
            self._tell_begun()
            bridge.offer(item)

        # take_while: a stream that emits while it is subscribed to can be told only so that nobody listens any more
        wanted = self._stream.pipe(ops.take_while(lambda _: bridge.is_open()))
        try:
            self._disposable.disposable = wanted.subscribe(offer, bridge.finish, bridge.finish)
        except Exception as error:
            bridge.finish(error)
        self._tell_begun()

    def _tell_begun(self) -> None:
        while self._untold:
            with suppress(RuntimeError, IndexError):  # the loop is closed; another thread was faster
                self._loop.call_soon_threadsafe(self._untold.pop())

    def _begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def end(self) -> None:
        """Unsubscribes; what waits is still handed over."""
        self.bridge.finish()
        self._disposable.dispose()

    def close(self) -> None:
        """Unsubscribes; nothing more is handed over."""
        self.bridge.close()
        self._disposable.dispose()

    def abandon(self) -> None:
        """Has it closed by the loop: the iterator is gone, and wherever that was noticed is no place for locks."""
        with suppress(RuntimeError):  # the loop is closed: the next item sees that
            self._loop.call_soon_threadsafe(self.close)


class Iteration(Generic[_T]):
    """The items of a stream, for ``async for``; see `iterate`. Belongs to one event loop, and may be shared there.

    It is also an asynchronous context manager that unsubscribes. Waiting for an item may be cancelled, or given up by
    a timeout, and gone on with afterwards: no item is lost by it.
    """

    def __init__(self, stream: Observable[_T], maxsize: int, overflow: Overflow) -> None:
        self._stream = stream
        self._maxsize = maxsize
        self._overflow = overflow
        self._subscription: _Subscription[_T] | None = None
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many items were dropped, because this iteration was too slow for them."""
        return self._subscription.bridge.dropped if self._subscription else 0

    def _begin(self) -> _Subscription[_T]:
        subscription = self._subscription
        if subscription is None:
            subscription = self._subscription = _Subscription(self._stream, self._overflow, self._maxsize)
            # for a loop that was left by break or an exception, without a context manager
            weakref.finalize(self, subscription.abandon).atexit = False
        return subscription

    async def __aenter__(self) -> Self:
        """Subscribes: what the stream emits from now on is not missed."""
        if not self._closed:
            try:
                await self._begin().begun
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
        return await self._begin().bridge.take()

    async def aclose(self) -> None:
        """Unsubscribes and ends the iteration, for all who wait in it. Idempotent."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()

    def end(self) -> None:
        """Unsubscribes; the iteration ends after what waits already. Any thread."""
        if self._subscription is not None:
            self._subscription.end()


def iterate(
    stream: Observable[_T], maxsize: int = DEFAULT_CAPACITY, overflow: Overflow | str = Overflow.BLOCK
) -> Iteration[_T]:
    """Returns a stream as an asynchronous iterator and context manager, which unsubscribes when it is left.

    The stream's operators run on the stream's threads, only its items come to the loop. An error of the stream is
    raised where the iteration waits, after the items that came before it.

    Args:
        stream: The stream.
        maxsize: How many items may wait for the loop.
        overflow: What happens when there are more. ``block``: the thread that the stream emits on is held back, and
            with it what is upstream: the mailbox of a client's stream fills to its capacity, and then its own policy
            applies (a pool thread has up to 256 items in hand meanwhile). ``latest``: of each PV (of all, if items have
            no name) the newest waits; ``drop_oldest``: the newest `maxsize` wait. What is dropped is counted:
            `Iteration.dropped`.

    Raises:
        ValueError: `maxsize` or `overflow` is none.

    Example:
        >>> import asyncio
        >>> import reactivex as rx
        >>> from k2eg_rx import aio
        >>> async def follow() -> None:
        ...     async with aio.iterate(rx.of(98.5, 99.5, 100.5, 101.5), maxsize=10) as currents:
        ...         async for current in currents:
        ...             print(current)
        ...             if current > 100.0:
        ...                 break
        >>> asyncio.run(follow())
        98.5
        99.5
        100.5

    ``contextlib.aclosing`` does the same as the ``async with``. A loop without either is left subscribed until the
    iterator is collected as garbage.
    """
    if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"maxsize is a number of items of at least 1, not {maxsize!r}")
    return Iteration(stream, maxsize, Overflow(overflow))
