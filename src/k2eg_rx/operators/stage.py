"""Base of operators with timers: serializes source items and timer ticks under one lock. Also for those without timers.

Thread safety: the lock protects all state of a `Stage` and its subclasses, and is held while an item is emitted. Other
threads wait meanwhile, as they would for a slow subscriber. The lock is reentrant, so that a subscriber may feed the
source. `dispose` takes no lock: it never waits for a subscriber, and a call in progress runs to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.concurrency import check_scheduler, scheduler_or
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_In_contra = TypeVar("_In_contra", contravariant=True)
_Out_co = TypeVar("_Out_co", covariant=True)

RESOLUTION = 1e-6
"""Resolution of a scheduler's clock, a datetime, in seconds: what is due within it is due now."""


class Stage(Generic[_In, _Out]):
    """One subscription of an operator. Subclasses handle items, ticks and the end of the source.

    All methods except `dispose` are called with the lock held.

    Args:
        observer: The subscriber.
        scheduler: Clock and timer threads.
    """

    def __init__(self, observer: abc.ObserverBase[_Out], scheduler: abc.SchedulerBase) -> None:
        self.scheduler = scheduler
        self._subscribed_at = scheduler.now
        self._observer = observer
        self._lock = threading.RLock()
        self._open = True  # cleared by `dispose` without the lock
        self._timer = SerialDisposable()
        self._held = CompositeDisposable(self._timer)

    # Overridden by subclasses

    def start(self) -> None:
        """Called before the subscription to the source."""

    def take(self, item: _In) -> None:
        """Called with each item of the source."""
        raise NotImplementedError

    def tick(self) -> None:
        """Called when the time given to `tick_in` has passed."""

    def source_completed(self) -> None:
        """Called when the source completes."""
        self.complete()

    def source_failed(self, error: Exception) -> None:
        """Called when the source fails."""
        self.fail(error)

    # Called by subclasses

    @property
    def is_open(self) -> bool:
        """Whether items may still be emitted."""
        return self._open

    def now(self) -> float:
        """Returns seconds since the subscription, by the scheduler's clock."""
        return (self.scheduler.now - self._subscribed_at).total_seconds()

    def emit(self, item: _Out) -> None:
        """Emits an item."""
        if self._open:
            self._observer.on_next(item)

    def complete(self) -> None:
        """Completes the stream."""
        if self._open:
            self.dispose()
            self._observer.on_completed()

    def fail(self, error: Exception) -> None:
        """Fails the stream."""
        if self._open:
            self.dispose()  # first: timers and source must not run while the subscriber handles the error
            self._observer.on_error(error)

    def tick_in(self, seconds: float) -> None:
        """Schedules `tick`, in place of one scheduled before."""
        self._timer.disposable = self.scheduler.schedule_relative(max(0.0, seconds), self._on_tick)

    def hold(self, subscription: abc.DisposableBase) -> None:
        """Disposes a subscription together with this one."""
        self._held.add(subscription)

    def guarded(self, action: Callable[..., None]) -> Callable[..., None]:
        """Returns the action under the lock; it does nothing once the stage has ended."""

        def act(*arguments: Any) -> None:
            with self._lock:
                if self._open:
                    action(*arguments)

        return act

    def catching(self, action: Callable[..., None]) -> Callable[..., None]:
        """Returns the action like `guarded`; an exception in it fails the stream.

        For callers that cannot pass an exception to the subscriber: timers, and replies to puts.
        """

        def act(*arguments: Any) -> None:
            with self._lock:
                if not self._open:
                    return
                try:
                    action(*arguments)
                except Exception as error:
                    _log.exception("subscriber raised, its subscription ends")
                    self._fail_safely(error)

        return act

    def _on_tick(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        self.catching(self.tick)()

    def _fail_safely(self, error: Exception) -> None:
        try:
            self.fail(error)
        except Exception as unhandled:
            if unhandled is not error:  # reactivex raises the error itself if there is no on_error
                _log.exception("on_error of a subscriber raised")

    def run(self, source: Observable[_In], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the source.

        Args:
            source: The source of items.
            subscribed: Scheduler that was given to `subscribe`; passed on to the source.
        """
        self.guarded(self.start)()
        self.hold(
            source.subscribe(
                self.guarded(self.take),
                self.guarded(self.source_failed),
                self.guarded(self.source_completed),
                scheduler=subscribed,
            )
        )
        return Disposable(self.dispose)

    def dispose(self) -> None:
        """Ends the subscription without emitting anything."""
        self._open = False
        self._held.dispose()


def staged(
    source: Observable[_In],
    make: Callable[[abc.ObserverBase[_Out], abc.SchedulerBase], Stage[_In, _Out]],
    scheduler: abc.SchedulerBase | None,
) -> Observable[_Out]:
    """Returns an Observable that runs a new stage for each subscription.

    Args:
        source: The source of items.
        make: Makes a stage from observer and scheduler.
        scheduler: Scheduler given to the operator, if any.
    """

    check_scheduler(scheduler)

    def subscribe(observer: abc.ObserverBase[_Out], subscribed: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        return make(observer, scheduler_or(scheduler, subscribed)).run(source, subscribed)

    return Observable(subscribe)


class Collector(Protocol[_In_contra, _Out_co]):
    """State of an operator without timers: takes items, returns those to emit, an empty list or tuple for none.

    What a method raises, or an iterator that it returns, fails the stream.
    """

    def feed(self, item: _In_contra, /) -> Iterable[_Out_co]:
        """Called with each item of the source."""
        ...

    def finish(self) -> Iterable[_Out_co]:
        """Called when the source completes."""
        ...

    def abandon(self) -> Iterable[_Out_co]:
        """Called when the source fails."""
        ...


def collected(source: Observable[_In], make: Callable[[], Collector[_In, _Out]]) -> Observable[_Out]:
    """Returns an Observable that feeds a new collector for each subscription. It takes no lock.

    Args:
        source: The source of items, one at a time.
        make: Makes a collector.
    """

    def subscribe(observer: abc.ObserverBase[_Out], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        collector = make()
        subscription = SingleAssignmentDisposable()

        def emit(produce: Callable[[], Iterable[_Out]]) -> bool:
            """Emits what a method returns; returns whether it did not raise."""
            try:
                outputs = produce()
                if not outputs:
                    return True  # the usual case
                items = iter(outputs)
            except Exception as error:
                observer.on_error(error)
                return False
            while not subscription.is_disposed:  # a subscriber may have enough before the last one
                try:
                    item = next(items)
                except StopIteration:
                    return True
                except Exception as error:
                    observer.on_error(error)
                    return False
                observer.on_next(item)
            return False

        def on_next(item: _In) -> None:
            emit(lambda: collector.feed(item))

        def on_error(error: Exception) -> None:
            if emit(collector.abandon):
                observer.on_error(error)

        def on_completed() -> None:
            if emit(collector.finish):
                observer.on_completed()

        subscription.disposable = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        return subscription

    return Observable(subscribe)
