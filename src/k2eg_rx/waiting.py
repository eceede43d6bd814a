"""Waiting for a stream's value in the calling thread.

In: a stream. Out: its first value, or its error raised. Everything the stream does for its subscriber is done on the
calling thread, so waiting is safe anywhere, inside a handler too: it needs no other thread of the pool.
"""

from __future__ import annotations

from typing import TypeVar

from reactivex import Observable
from reactivex import operators as ops
from reactivex.abc import SchedulerBase, StartableBase
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.scheduler import EventLoopScheduler
from reactivex.typing import StartableTarget

_T = TypeVar("_T")


class _CallingThread(StartableBase):
    """Stands where reactivex would start a thread: the loop is run by whoever waits."""

    def __init__(self, target: StartableTarget) -> None:
        self._target = target

    def start(self) -> None:
        """Does nothing."""


class _Done(Exception):
    """Takes the loop out of its wait: disposing it from within would leave it waiting."""


def _leave(_scheduler: SchedulerBase, _state: object = None) -> None:
    raise _Done


def first(stream: Observable[_T]) -> _T:
    """Returns the first value of a stream, and unsubscribes.

    Blocks until there is one. Operators in the stream's pipe run on the calling thread.

    Raises:
        Exception: The stream's error; `SequenceContainsNoElementsError` if it completes without a value.
    """
    loop = EventLoopScheduler(thread_factory=_CallingThread)
    values: list[_T] = []
    errors: list[Exception] = [SequenceContainsNoElementsError()]

    def done() -> None:
        loop.schedule(_leave)

    def failed(error: Exception) -> None:
        errors.append(error)
        done()

    subscription = stream.pipe(ops.take(1)).subscribe(values.append, failed, done, scheduler=loop)
    try:
        loop.run()
    except _Done:
        pass
    finally:
        subscription.dispose()
        loop.dispose()
    if values:
        return values[0]
    raise errors[-1]
