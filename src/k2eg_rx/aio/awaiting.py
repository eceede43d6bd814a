"""Waiting for a stream's value in a coroutine.

In: a stream. Out: its first value, or its error raised. What the stream does for its subscriber is done on the loop's
thread, so that waiting needs no thread of the client's pool.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable
from reactivex import operators as ops
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from k2eg_rx.aio.scheduler import LoopScheduler
from k2eg_rx.arguments import positive

_T = TypeVar("_T")


async def first(stream: Observable[_T], timeout: float | None = None) -> _T:
    """Returns the first value of a stream, and unsubscribes; so it does if it is cancelled.

    Operators in the stream's pipe run on the loop's thread.

    Args:
        stream: The stream.
        timeout: Seconds to wait at most; without end if None, as far as the stream itself knows none.

    Raises:
        TimeoutError: Nothing came in time.
        Exception: The stream's error; `SequenceContainsNoElementsError` if it completes without a value.

    Example:
        >>> import asyncio
        >>> from k2eg_rx import aio
        >>> from k2eg_rx.operators import value
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> async def high() -> float:
        ...     async with aio.Client("demo", "my-service") as client:
        ...         values = client.streams.monitor_stream("pva://my:current").pipe(value())
        ...         return await aio.first(values.pipe(ops.filter(lambda current: current > 100.0)), timeout=30.0)
        >>> with ScriptedGateway() as gateway, gateway.clock.running():
        ...     _ = gateway.pv("my:current", 101.5)
        ...     print(asyncio.run(high()))
        101.5
    """
    seconds = None if timeout is None else positive(timeout, "timeout")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    values: list[_T] = []
    errors: list[Exception] = [SequenceContainsNoElementsError()]

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def told() -> None:  # on whatever thread
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(end)

    def failed(error: Exception) -> None:
        errors.append(error)
        told()

    subscription = stream.pipe(ops.take(1)).subscribe(values.append, failed, told, scheduler=LoopScheduler(loop))
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await ended
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"nothing came within {timeout:g} s") from None
        raise
    finally:
        subscription.dispose()
    if values:
        return values[0]
    raise errors[-1]
