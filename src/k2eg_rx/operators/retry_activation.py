"""Retries failed activations of monitors with increasing delays: `retry_activation`.

Thread safety: one subscription to the source at a time; retries run on a thread of the scheduler.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable, SingleAssignmentDisposable

from k2eg_rx.arguments import non_negative, positive, whole
from k2eg_rx.concurrency import check_scheduler, scheduler_or
from k2eg_rx.errors import OperationError, OperationTimeout, TransportError
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_T = TypeVar("_T")

_TRANSIENT = (OperationError, OperationTimeout, TransportError)


@dataclass(frozen=True, slots=True)
class _Backoff:
    first: float
    factor: float
    longest: float
    jitter: float

    def delay(self, failures: int) -> float:
        """Returns the delay in seconds after a number of failures in a row."""
        try:
            grown = self.first * self.factor ** (failures - 1)
        except OverflowError:
            grown = self.longest
        return min(grown, self.longest) * random.uniform(1 - self.jitter, 1 + self.jitter)


class _Retries(abc.ObserverBase[_T]):
    """One subscriber and its successive subscriptions to the source."""

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
        self._subscription.disposable = subscription  # first: if it fails at once, a retry replaces it
        subscription.disposable = self._source.subscribe(self, scheduler=self._subscribed)

    def on_next(self, value: _T) -> None:
        """Emits an item and resets the failure count."""
        self._failures = 0
        try:
            self._observer.on_next(value)
        except Exception as error:
            self._raised = error
            raise

    def on_error(self, error: Exception) -> None:
        """Schedules a retry, or fails the stream."""
        if error is self._raised or not isinstance(error, _TRANSIENT) or self._failures == self._attempts:
            self._observer.on_error(error)
            return
        self._failures += 1
        delay = self._backoff.delay(self._failures)
        _log.warning("activation failed, retrying: delay=%.1f s error=%s", delay, error)
        self._timer.disposable = self._scheduler.schedule_relative(delay, self._retry)

    def _retry(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        if self.held.is_disposed:
            return
        try:
            self.subscribe()
        except Exception as error:  # a source that raises instead of failing, or no on_error
            _log.exception("retry of an activation raised")
            self._observer.on_error(error)

    def on_completed(self) -> None:
        """Completes the stream."""
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
    """Subscribes again when a monitor could not be activated, after increasing delays.

    A monitor survives outages by itself, at its start too. It fails if the gateway or the broker refuses it. This
    operator then activates it again after `backoff` seconds, then after longer delays. An update resets the delay.

    `OperationError`, `OperationTimeout` and `TransportError` are retried. Other errors are passed on: a closed client,
    a bad argument, an exception of the subscriber. Put this operator directly behind the monitor: it would also retry
    these errors of operators before it. A new subscription starts with the last known update, which is emitted again.

    Args:
        backoff: Seconds before the first retry.
        factor: Growth of the delay from one retry to the next, at least 1.
        max_backoff: Longest delay in seconds.
        jitter: Fraction, 0 to 1, by which delays vary at random, so that many programs do not retry at the same time.
        attempts: Retries in a row before the last error is passed on; None for no limit.
        scheduler: Clock and timer threads; by default that of `subscribe`, else the shared one.

    Emits:
        Items of the source.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import reactivex as rx
        >>> from k2eg_rx import OperationTimeout
        >>> from k2eg_rx.operators import retry_activation
        >>> from k2eg_rx.testing import update
        >>> from reactivex.testing import TestScheduler
        >>> clock = TestScheduler()  # virtual time
        >>> attempts = [rx.throw(OperationTimeout("monitor", "pva://demo:x", 12.0)), rx.of(update("demo:x", 1.5))]
        >>> monitor = rx.defer(lambda _: attempts.pop(0))  # fails once
        >>> def show(update):
        ...     print(float(clock.clock), update.name, update.value)
        >>> subscription = monitor.pipe(retry_activation(2.0, jitter=0)).subscribe(show, scheduler=clock)
        >>> clock.advance_to(10.0)
        2.0 demo:x 1.5
    """
    if non_negative(jitter, "jitter") > 1 or not positive(factor, "factor") >= 1:
        raise ValueError(f"jitter must be 0 to 1 and factor at least 1, got {jitter!r} and {factor!r}")
    if attempts is not None:
        attempts = whole(attempts, "attempts", 0)
    check_scheduler(scheduler)
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
