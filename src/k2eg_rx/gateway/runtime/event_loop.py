"""The gateway's event loop: one thread that owns monitors, snapshots, pending commands and the publisher.

Thread safety: actions may be scheduled on any thread (EPICS callbacks, the poll thread of the command topic, futures);
they run one at a time on the thread `k2eg-gateway`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from reactivex import abc
from reactivex.disposable import BooleanDisposable

from k2eg_rx.concurrency import SchedulerClosedError, TimerScheduler

_T = TypeVar("_T")

_SLICE = 25  # items; subscribing to a PV, the slowest action, takes up to 1 ms, and gets are to be answered meanwhile


class EventLoop(TimerScheduler):
    """The scheduler of the gateway's thread. After `close` it runs nothing, not even actions that are due.

    Args:
        on_failure: Called after an action has raised.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        super().__init__("k2eg-gateway", on_failure)


def call_soon(scheduler: abc.SchedulerBase, action: Callable[[], None]) -> None:
    """Runs an action on the scheduler's thread as soon as possible; not if the scheduler is closed."""
    call_later(scheduler, 0.0, action)


def call_later(scheduler: abc.SchedulerBase, seconds: float, action: Callable[[], None]) -> None:
    """Runs an action on the scheduler's thread after some seconds; not if the scheduler is closed."""

    def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
        action()

    with contextlib.suppress(SchedulerClosedError):
        scheduler.schedule_relative(seconds, run)


def in_slices(
    scheduler: abc.SchedulerBase,
    items: Iterable[_T],
    action: Callable[[_T], object],
    done: Callable[[], None] = lambda: None,
    failed: Callable[[Exception], None] | None = None,
) -> abc.DisposableBase:
    """Calls an action with each item, 25 at a time; other work of the event loop runs in between.

    The first slice is done before this function returns.

    Args:
        scheduler: The event loop.
        items: The items.
        action: Called with each item.
        done: Called after the last item.
        failed: Called with an exception of the action, which ends the work; None: it is raised.

    Returns:
        Ends the work when it is disposed; neither `done` nor `failed` is called then.
    """
    ended = BooleanDisposable()
    left = iter(items)

    def step() -> None:
        try:
            count = 0
            for item in () if ended.is_disposed else islice(left, _SLICE):
                action(item)
                count += 1
                if ended.is_disposed:
                    return
        except Exception as error:
            if failed is None:
                raise
            ended.dispose()
            failed(error)
            return
        if ended.is_disposed:
            return
        if count == _SLICE:
            call_soon(scheduler, step)
        else:
            ended.dispose()
            done()

    step()
    return ended


class SlicedDisposable(abc.DisposableBase):
    """Any number of subscriptions, which are disposed of in slices.

    Args:
        scheduler: The event loop.
    """

    def __init__(self, scheduler: abc.SchedulerBase) -> None:
        self._scheduler = scheduler
        self._disposables: list[abc.DisposableBase] = []
        self._is_disposed = False

    def add(self, disposable: abc.DisposableBase) -> None:
        """Adds a subscription; disposes of it at once if this one is disposed."""
        if self._is_disposed:
            disposable.dispose()
        else:
            self._disposables.append(disposable)

    def dispose(self) -> None:
        """Disposes of the subscriptions, of the first ones at once. Idempotent."""
        self._is_disposed = True
        disposables, self._disposables = self._disposables, []
        in_slices(self._scheduler, disposables, lambda disposable: disposable.dispose())
