"""Errors of subscribers behind operators whose timers are not this library's: `guarded`, `shared_scheduler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.concurrency import current_runtime
from k2eg_rx.operators.stage import Stage, staged

_T = TypeVar("_T")


def shared_scheduler() -> abc.SchedulerBase:
    """Returns the scheduler of operators that are given none: one that the process shares, or a test's virtual time.

    Pass it to timed operators of reactivex (``sample``, ``debounce``, ``buffer_with_time``, ``timeout``), which
    otherwise start a thread for each timer. What a subscriber raises there is logged once; see `guarded`.

    Example:
        >>> from reactivex import operators as ops
        >>> from k2eg_rx.operators import guarded, shared_scheduler
        >>> def show_twice_a_second(client):
        ...     updates = client.monitor_stream("pva://my:x")
        ...     sampled = updates.pipe(ops.sample(0.5, scheduler=shared_scheduler()), guarded())
        ...     return sampled.subscribe(print, on_error=print)
    """
    return current_runtime().scheduler


class _Guard(Stage[_T, _T]):
    """Passes items on; an exception of the subscriber fails the stream."""

    def take(self, item: _T) -> None:
        self.emit(item)

    def run(self, source: Observable[_T], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        self.guarded(self.start)()
        take, failed, completed = (
            self.catching(self.take),
            self.guarded(self.source_failed),
            self.guarded(self.source_completed),
        )
        self.hold(source.subscribe(take, failed, completed, scheduler=subscribed))
        return Disposable(self.dispose)


def guarded() -> Callable[[Observable[_T]], Observable[_T]]:
    """Passes what a subscriber raises to its `on_error`, and ends the subscription.

    This library's streams and operators do so themselves. Operators of reactivex that emit on a timer do not: the
    exception ends in the timer's thread, no further item arrives, and `on_error` is not called. Put this operator
    last in the pipe behind them. What functions in the pipe raise, as in ``map``, reaches `on_error` in any case.

    Emits:
        Items of the source.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx.operators import guarded
        >>> def show(number):
        ...     print(1 / number)
        >>> _ = rx.of(2, 0, 4).pipe(guarded()).subscribe(show, on_error=print)
        0.5
        division by zero
    """

    def operator(source: Observable[_T]) -> Observable[_T]:
        def make(observer: abc.ObserverBase[_T], timing: abc.SchedulerBase) -> _Guard[_T]:
            return _Guard(observer, timing)

        return staged(source, make, None)

    return operator
