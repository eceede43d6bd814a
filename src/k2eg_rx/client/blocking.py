"""Blocks the calling thread until a stream has its first item.

The stream is subscribed to with a scheduler that runs on the calling thread. No other thread is needed to call the
subscriber, so that blocking is safe in a subscriber, too. A request needs no scheduler at all: the thread waits for
the reply, which takes three quarters of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase, StartableBase
from reactivex.scheduler import EventLoopScheduler
from reactivex.typing import StartableTarget

from k2eg_rx.arguments import instance, timeout_of
from k2eg_rx.concurrency import INTERRUPTION_SECONDS, current_runtime, is_main_thread
from k2eg_rx.delivery import LabelledObservable, label_of
from k2eg_rx.errors import EmptyStreamError, OperationTimeout

_T = TypeVar("_T")


class RequestObservable(LabelledObservable[_T]):
    """A single-item Observable of a request, whose result a thread can wait for without subscribing.

    Args:
        stream: Makes the Observable.
        wait: Sends the request and returns the result or raises the error; its argument is a timeout in seconds that
            applies if it is shorter than the request's.
        label: The PV's URI.
    """

    def __init__(self, stream: Callable[[], Observable[_T]], wait: Callable[[float | None], _T], label: str) -> None:
        def subscribe(observer: ObserverBase[_T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return stream().subscribe(observer, scheduler=scheduler)

        super().__init__(subscribe, label)
        self.wait = wait


class _CallingThread(StartableBase):
    """Stands in for the thread that reactivex would start: the caller runs the loop."""

    def __init__(self, target: StartableTarget) -> None:
        self._target = target

    def start(self) -> None:
        """Does nothing."""


class _Stop(Exception):
    """Ends the loop from within; `dispose` would leave it waiting."""


class _ThreadLoop:
    """An event loop on the calling thread."""

    def __init__(self) -> None:
        self.scheduler = EventLoopScheduler(thread_factory=_CallingThread)

    def stop(self) -> None:
        """Makes `run` return."""

        def raise_stop(_scheduler: SchedulerBase, _state: object = None) -> None:
            raise _Stop

        self.scheduler.schedule(raise_stop)

    def run(self) -> None:
        """Runs what is scheduled until `stop`; on the main thread, also handlers of signals that others received."""
        if is_main_thread():
            self._wake()
        with suppress(_Stop):
            self.scheduler.run()

    def _wake(self, _scheduler: SchedulerBase | None = None, _state: object = None) -> None:
        self.scheduler.schedule_relative(INTERRUPTION_SECONDS, self._wake)

    def dispose(self) -> None:
        """Drops what is still scheduled."""
        self.scheduler.dispose()


class _VirtualLoop:
    """The scheduler of a runtime with virtual time."""

    def __init__(self, scheduler: SchedulerBase, wait: Callable[[Callable[[], bool]], None]) -> None:
        self.scheduler = scheduler
        self._wait = wait
        self._stopped = False

    def stop(self) -> None:
        """Makes `run` return."""
        self._stopped = True

    def run(self) -> None:
        """Advances virtual time until `stop`."""
        self._wait(lambda: self._stopped)

    def dispose(self) -> None:
        """Does nothing: the scheduler is shared."""


def _own_traceback(error: Exception) -> TracebackType | None:
    """Returns the traceback of an error from before `first` raised it: it may be shared, and each raise extends it."""
    own = each = error.__traceback__
    while each is not None:
        if each.tb_frame.f_code is first.__code__:
            own = each.tb_next
        each = each.tb_next
    return own


def first(stream: Observable[_T], timeout: float | None = None) -> _T:
    """Subscribes to a stream, blocks, and returns its first item.

    `reactivex.operators.first` is an operator: it returns an Observable and neither subscribes nor blocks. This
    function unsubscribes after the first item. Operators in the stream's pipe run on the calling thread. It may be
    called in a subscriber.

    Args:
        stream: The stream.
        timeout: Seconds to wait for the item; None waits until the stream emits an item or ends.

    Raises:
        OperationTimeout: No item arrived within `timeout`. It names the PV, or the stream, where the stream is the
            client's own or its first `pipe`.
        EmptyStreamError: The stream completed without an item.
        Exception: The stream's error, with the traceback of the code that raised it.

    Example:
        >>> from reactivex import operators as ops
        >>> from k2eg_rx import first
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     _ = gateway.pv("my:x", 1.5)
        ...     print(first(client.get_stream("pva://my:x")).value)
        ...     updates = client.monitor_stream("pva://my:x")
        ...     first(updates.pipe(ops.filter(lambda update: update.value > 2)), timeout=0.5)
        Traceback (most recent call last):
        k2eg_rx.errors.OperationTimeout: Timeout: first item of pva://my:x: nothing within 0.5 s
    """
    instance(stream, "stream", Observable, "an Observable")
    seconds = None if timeout is None else timeout_of(timeout)
    runtime = current_runtime()
    if runtime.wait is None and isinstance(stream, RequestObservable):
        return stream.wait(seconds)
    loop = _ThreadLoop() if runtime.wait is None else _VirtualLoop(runtime.scheduler, runtime.wait)
    items: list[_T] = []
    errors: list[Exception] = []

    def fail(error: Exception) -> None:
        errors.append(error)
        loop.stop()

    single = stream.pipe(ops.take(1))
    if seconds is not None:
        expired = OperationTimeout("first item", label_of(stream), seconds, missing="nothing")
        single = single.pipe(ops.timeout(seconds, rx.throw(expired), scheduler=loop.scheduler))
    subscription = single.subscribe(items.append, fail, loop.stop, scheduler=loop.scheduler)
    try:
        loop.run()
    finally:
        subscription.dispose()
        loop.dispose()
    if items:
        return items[0]
    if errors:
        raise errors[0].with_traceback(_own_traceback(errors[0]))
    raise EmptyStreamError(f"{label_of(stream)}: completed without an item")
