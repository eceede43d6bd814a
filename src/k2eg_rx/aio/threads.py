"""Runs blocking functions on daemon threads of their own.

The event loop's executor is not used: it has few threads, which other code may occupy.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

_T = TypeVar("_T")


def start_thread(function: Callable[[], None], name: str) -> None:
    """Starts a function on a daemon thread, in a copy of the caller's context."""
    threading.Thread(target=copy_context().run, args=(function,), name=name, daemon=True).start()


async def run_in_thread(function: Callable[[], _T], name: str, undo: Callable[[_T], object] | None = None) -> _T:
    """Returns a function's result, or raises its error.

    Args:
        function: The function. It runs to its end even if the caller is cancelled.
        name: The thread's name.
        undo: Called on that thread with the result if the caller was cancelled.
    """
    done: Future[_T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            with suppress(InvalidStateError):  # the caller was cancelled
                done.set_exception(error)
            return
        try:
            done.set_result(result)
        except InvalidStateError:
            if undo is not None:
                undo(result)

    start_thread(run, name)
    return await asyncio.wrap_future(done)
