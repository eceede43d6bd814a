"""Awaits the first item of a stream.

The stream is subscribed to with a scheduler of the event loop, so that waiting occupies no thread of a client's pool.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.aio.scheduler import LoopScheduler
from k2eg_rx.arguments import instance, timeout_of
from k2eg_rx.delivery import label_of
from k2eg_rx.errors import EmptyStreamError, OperationTimeout

_T = TypeVar("_T")


async def first(stream: Observable[_T], timeout: float | None = None) -> _T:
    """Returns the first item of a stream and unsubscribes; cancellation unsubscribes too.

    Time-based operators of the stream run on the event loop.

    Args:
        stream: The stream.
        timeout: Seconds to wait; None waits until the stream emits or ends.

    Raises:
        OperationTimeout: No item arrived in time.
        Exception: The stream's error; `EmptyStreamError` if it completes without an item.

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
    instance(stream, "stream", Observable, "an Observable")
    seconds = None if timeout is None else timeout_of(timeout)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    items: list[_T] = []
    errors: list[Exception] = []

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def notify() -> None:  # on any thread
        with suppress(RuntimeError):  # the loop is closed, and the coroutine with it
            loop.call_soon_threadsafe(end)

    def on_error(error: Exception) -> None:
        errors.append(error)
        notify()

    subscription = stream.pipe(ops.take(1)).subscribe(items.append, on_error, notify, scheduler=LoopScheduler(loop))
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await ended
    except TimeoutError:
        if seconds is not None and limit.expired():
            raise OperationTimeout("first item", label_of(stream), seconds, missing="nothing") from None
        raise
    finally:
        subscription.dispose()
    if items:
        return items[0]
    raise errors[0] if errors else EmptyStreamError(f"{label_of(stream)}: completed without an item")
