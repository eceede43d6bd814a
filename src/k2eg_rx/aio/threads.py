"""Work that would hold up an event loop, done on a thread.

In: a function. Out: its result, to the coroutine that waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


def start_thread(work: Callable[[], None], name: str) -> None:
    """Does something on a daemon thread of its own: the loop's executor has few, and others may occupy them."""
    threading.Thread(target=work, name=name, daemon=True).start()


async def in_thread(work: Callable[[], _T], name: str, undo: Callable[[_T], object] | None = None) -> _T:
    """Returns what a function returns, or raises what it raises.

    Args:
        work: The function. It is done to its end, even if the caller is cancelled.
        name: The thread's.
        undo: Called on that thread with the result, if the caller was cancelled and cannot have it.
    """
    done: Future[_T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            with suppress(InvalidStateError):  # cancelled: nobody asks any more
                done.set_exception(error)
            return
        try:
            done.set_result(result)
        except InvalidStateError:
            if undo is not None:
                undo(result)

    start_thread(run, name)
    return await asyncio.wrap_future(done)
