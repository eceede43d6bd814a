"""One subscription of an operator that has timers: where its items and its ticks come together, one at a time.

In: items, on the thread of the source; ticks, on that of the scheduler. Out: items, on either.

All state of a `Stage`, that of its subclasses included, belongs to its lock, which is held while an item is handed on:
who comes meanwhile waits, as it would for a slow subscriber. It is reentrant, for subscribers that feed the source.
`dispose` alone takes no lock, so that it cannot wait for a subscriber; what is under way when it is called ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.concurrency import scheduler_or

_log = logging.getLogger(__name__)

_In = TypeVar("_In")
_Out = TypeVar("_Out")

RESOLUTION = 1e-6
"""Seconds: schedulers tell the time in datetimes, so what is due within a microsecond is due."""


class Stage(Generic[_In, _Out]):
    """An operator at work for one subscriber. A subclass says what it does with an item, a tick and the end.

    Everything but `dispose` is called with the lock held.

    Args:
        observer: The subscriber.
        scheduler: What tells the time and runs the ticks.
    """

    def __init__(self, observer: abc.ObserverBase[_Out], scheduler: abc.SchedulerBase) -> None:
        self.scheduler = scheduler
        self._began = scheduler.now
        self._observer = observer
        self._lock = threading.RLock()
        self._open = True  # cleared by `dispose` without the lock
        self._timer = SerialDisposable()
        self._held = CompositeDisposable(self._timer)

    # what a subclass says

    def start(self) -> None:
        """Called before the source is subscribed to."""

    def take(self, item: _In) -> None:
        """Called with each item of the source."""
        raise NotImplementedError

    def tick(self) -> None:
        """Called when the time is up that was given to `tick_in`."""

    def source_completed(self) -> None:
        """Called at the source's end."""
        self.complete()

    def source_failed(self, error: Exception) -> None:
        """Called at the source's failure."""
        self.fail(error)

    # what a subclass may use

    @property
    def is_open(self) -> bool:
        """Whether anything may still be emitted."""
        return self._open

    def now(self) -> float:
        """Returns the seconds since the subscription, by the scheduler's time."""
        return (self.scheduler.now - self._began).total_seconds()

    def emit(self, item: _Out) -> None:
        """Hands an item to the subscriber."""
        if self._open:
            self._observer.on_next(item)

    def complete(self) -> None:
        """Ends the stream."""
        if self._open:
            self.dispose()
            self._observer.on_completed()

    def fail(self, error: Exception) -> None:
        """Ends the stream with an error."""
        if self._open:
            self.dispose()  # first: nothing goes on while the subscriber is told
            self._observer.on_error(error)

    def tick_in(self, seconds: float) -> None:
        """Has `tick` called after so many seconds, in place of any earlier wish."""
        self._timer.disposable = self.scheduler.schedule_relative(max(0.0, seconds), self._on_tick)

    def hold(self, subscription: abc.DisposableBase) -> None:
        """Has a subscription disposed of with this one."""
        self._held.add(subscription)

    # what the source and the scheduler call

    def guarded(self, action: Callable[..., None]) -> Callable[..., None]:
        """Returns a function that does the action under the lock, and nothing once this has ended."""

        def act(*arguments: Any) -> None:
            with self._lock:
                if self._open:
                    action(*arguments)

        return act

    def alone(self, action: Callable[..., None]) -> Callable[..., None]:
        """Returns a function like `guarded`, for callers that cannot tell the subscriber of an exception: a timer, the
        reply to a put. It ends the subscription with it."""

        def act(*arguments: Any) -> None:
            with self._lock:
                if not self._open:
                    return
                try:
                    action(*arguments)
                except Exception as error:
                    _log.exception("a subscriber raised; its subscription ends")
                    self._tell(error)

        return act

    def _on_tick(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        self.alone(self.tick)()

    def _tell(self, error: Exception) -> None:
        try:
            self.fail(error)
        except Exception as unhandled:
            if unhandled is not error:  # reactivex raises the error itself where no on_error was given
                _log.exception("the error handler of a subscriber raised")

    def run(self, source: Observable[_In], subscribed: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the source.

        Args:
            source: Where the items come from.
            subscribed: The scheduler that was given to `subscribe`, if any; it is passed on to the source.
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
        """Ends it without a word."""
        self._open = False
        self._held.dispose()


def staged(
    source: Observable[_In],
    make: Callable[[abc.ObserverBase[_Out], abc.SchedulerBase], Stage[_In, _Out]],
    scheduler: abc.SchedulerBase | None,
) -> Observable[_Out]:
    """Returns the stream of a stage that is made for each subscription.

    Args:
        source: Where the items come from.
        make: Makes the stage.
        scheduler: The scheduler that the user gave to the operator, if any.
    """

    def subscribe(observer: abc.ObserverBase[_Out], subscribed: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        return make(observer, scheduler_or(scheduler, subscribed)).run(source, subscribed)

    return Observable(subscribe)
