"""Waiting for a stream's value in the calling thread.

In: a stream. Out: its first value, or its error raised. Everything the stream does for its subscriber is done on the
calling thread, so waiting is safe anywhere, inside a handler too: it needs no other thread of the pool. For an `Answer`
that is nothing, and the thread waits for the answer itself: a stream's machinery would take a quarter of a get's time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable
from reactivex import operators as ops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase, StartableBase
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.scheduler import EventLoopScheduler
from reactivex.typing import StartableTarget

from k2eg_rx.concurrency import current_runtime

_T = TypeVar("_T")


class Answer(Observable[_T]):
    """A stream of one, each subscription of which asks for it; a thread can ask and wait for it without the stream.

    Args:
        stream: Makes the stream.
        wait: Asks, and returns the value that the stream would have, or raises its error.
    """

    def __init__(self, stream: Callable[[], Observable[_T]], wait: Callable[[], _T]) -> None:
        def subscribe(observer: ObserverBase[_T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return stream().subscribe(observer, scheduler=scheduler)

        super().__init__(subscribe)
        self.wait = wait


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


class _Loop:
    """What a waiting thread runs: a loop of its own."""

    def __init__(self) -> None:
        self.scheduler = EventLoopScheduler(thread_factory=_CallingThread)

    def end(self) -> None:
        """Has `run` return."""
        self.scheduler.schedule(_leave)

    def run(self) -> None:
        """Does what is scheduled, until the end."""
        with suppress(_Done):
            self.scheduler.run()

    def dispose(self) -> None:
        """Forgets what is left."""
        self.scheduler.dispose()


class _Surrounded:
    """What a waiting thread runs in virtual time: all that is due."""

    def __init__(self, scheduler: SchedulerBase, wait: Callable[[Callable[[], bool]], None]) -> None:
        self.scheduler = scheduler
        self._wait = wait
        self._ended = False

    def end(self) -> None:
        """Has `run` return."""
        self._ended = True

    def run(self) -> None:
        """Does what there is to do, until the end."""
        self._wait(lambda: self._ended)

    def dispose(self) -> None:
        """Does nothing: what is left is not this thread's alone."""


def first(stream: Observable[_T]) -> _T:
    """Returns the first value of a stream, and unsubscribes.

    Blocks until there is one. Operators in the stream's pipe run on the calling thread.

    Raises:
        Exception: The stream's error; `SequenceContainsNoElementsError` if it completes without a value.
    """
    runtime = current_runtime()
    if runtime.wait is None and isinstance(stream, Answer):
        return stream.wait()
    loop = _Loop() if runtime.wait is None else _Surrounded(runtime.scheduler, runtime.wait)
    values: list[_T] = []
    errors: list[Exception] = [SequenceContainsNoElementsError()]

    def failed(error: Exception) -> None:
        errors.append(error)
        loop.end()

    subscription = stream.pipe(ops.take(1)).subscribe(values.append, failed, loop.end, scheduler=loop.scheduler)
    try:
        loop.run()
    finally:
        subscription.dispose()
        loop.dispose()
    if values:
        return values[0]
    raise errors[-1].with_traceback(None)  # it may be shared, and would grow by each raise
