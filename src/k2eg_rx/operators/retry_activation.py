"""`retry_activation`: a monitor whose activation failed is asked for again, later and later.

In: a stream that may fail. Out: its items, and its error once there is no hope. The source is subscribed to again on
the thread of the scheduler. There is one subscription to it at a time, and what is kept belongs to whoever it calls on.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.arguments import non_negative, positive
from k2eg_rx.concurrency import scheduler_or
from k2eg_rx.errors import OperationError, OperationTimeout, TransportError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MAY_PASS = (OperationError, OperationTimeout, TransportError)


@dataclass(frozen=True, slots=True)
class _Backoff:
    first: float
    factor: float
    max_backoff: float
    jitter: float

    def delay(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures in a row."""
        try:
            grown = self.first * self.factor ** (failures - 1)
        except OverflowError:
            grown = self.max_backoff
        return min(grown, self.max_backoff) * random.uniform(1 - self.jitter, 1 + self.jitter)


class _Retries(abc.ObserverBase[_T]):
    """One subscriber, and one subscription to the source after the other."""

    def __init__(
        self,
        source: Observable[_T],
        observer: abc.ObserverBase[_T],
        *,
        backoff: _Backoff,
        attempts: int | None,
        scheduler: abc.SchedulerBase,
        subscribed: abc.SchedulerBase | None,
    ) -> None:
        self._source = source
        self._observer = observer
        self._backoff = backoff
        self._attempts = attempts
        self._scheduler = scheduler
        self._subscribed = subscribed
        self._failures = 0  # in a row
        self._raised: Exception | None = None  # by the subscriber
        self._subscription = SerialDisposable()
        self._timer = SerialDisposable()
        self.held = CompositeDisposable(self._subscription, self._timer)

    def subscribe(self) -> None:
        """Subscribes to the source."""
        subscription = SingleAssignmentDisposable()
        self._subscription.disposable = subscription  # before it may fail and the next one take its place
        subscription.disposable = self._source.subscribe(self, scheduler=self._subscribed)

    def on_next(self, value: _T) -> None:
        """Passes an item on: a success."""
        self._failures = 0
        try:
            self._observer.on_next(value)
        except Exception as error:
            self._raised = error
            raise

    def on_error(self, error: Exception) -> None:
        """Waits and subscribes again, or passes the error on."""
        if error is self._raised or not isinstance(error, _MAY_PASS) or self._failures == self._attempts:
            self._observer.on_error(error)
            return
        self._failures += 1
        delay = self._backoff.delay(self._failures)
        _log.warning("%s; trying again in %.1f s", error, delay)
        self._timer.disposable = self._scheduler.schedule_relative(delay, self._again)

    def _again(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        if self.held.is_disposed:
            return
        try:
            self.subscribe()
        except Exception as error:  # by a source that raises in place of failing, or a subscriber without on_error
            _log.exception("a new attempt ended in an exception")
            self._observer.on_error(error)

    def on_completed(self) -> None:
        """Passes the end on."""
        self._observer.on_completed()


def retry_activation(
    backoff: float = 1.0,
    *,
    factor: float = 2.0,
    max_backoff: float = 60.0,
    jitter: float = 0.2,
    attempts: int | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that subscribes again when a monitor could not be activated.

    A monitor outlives outages once it is activated; a gateway that is down just then, a PV that does not exist yet or
    a broker that cannot be reached fail it. With this it is asked for again: after `backoff` seconds, then ever later.
    Once an update has come the delay starts anew.

    Tried again are `OperationError`, `OperationTimeout` and `TransportError`. Everything else is passed on at once: a
    closed client, a bad argument, an exception of the subscriber's own code. Put it directly behind the monitor: an
    operator before it that fails with one of those errors would be tried again as well. A new subscription first gets
    the last known update, which then comes twice.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx import OperationTimeout
        >>> from k2eg_rx.operators import retry_activation
        >>> from k2eg_rx.testing import update
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time: it passes when it is told to
        >>> answers = [rx.throw(OperationTimeout("monitor", "pva://demo:x", 12.0)), rx.of(update("demo:x", 1.5))]
        >>> monitor = rx.defer(lambda _: answers.pop(0))  # fails at first
        >>> def show(update):
        ...     print(float(clock.clock), update.name, update.value)
        >>> subscription = monitor.pipe(retry_activation(2.0, jitter=0)).subscribe(show, scheduler=clock)
        >>> clock.advance_to(10.0)
        2.0 demo:x 1.5

    Args:
        backoff: Seconds until the first new attempt.
        factor: By what the delay grows from one attempt to the next; at least 1.
        max_backoff: Seconds that it grows to.
        jitter: The part of the delay by which it is made longer or shorter at random, so that a hundred programs that
            lost the same gateway do not all come back in the same moment; 0 to 1.
        attempts: How often to try again without a success between; the last error is then passed on. None: for ever.
        scheduler: Whose time and threads; see `k2eg_rx.concurrency.schedulers.scheduler_or`.

    Raises:
        ValueError: An argument makes no sense.
    """
    if non_negative(jitter, "jitter") > 1 or not positive(factor, "factor") >= 1:
        raise ValueError(f"jitter is 0 to 1 and factor at least 1, not {jitter!r} and {factor!r}")
    if attempts is not None and attempts < 0:
        raise ValueError(f"attempts is a number of 0 or more or None, not {attempts!r}")
    delays = _Backoff(positive(backoff, "backoff"), factor, positive(max_backoff, "max_backoff"), jitter)

    def operator(source: Observable[_T]) -> Observable[_T]:
        def subscribe(
            observer: abc.ObserverBase[_T], subscribed: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            timing = scheduler_or(scheduler, subscribed)
            retries = _Retries(
                source, observer, backoff=delays, attempts=attempts, scheduler=timing, subscribed=subscribed
            )
            retries.subscribe()
            return retries.held

        return Observable(subscribe)

    return operator
