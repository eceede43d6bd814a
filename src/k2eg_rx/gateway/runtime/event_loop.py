"""The gateway's event loop: one thread that owns monitors, snapshots, pending commands and the publisher.

Thread safety: actions may be scheduled on any thread (EPICS callbacks, the poll thread of the command topic, futures);
they run one at a time on the thread `k2eg-gateway`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from reactivex import abc

from k2eg_rx.concurrency import SchedulerClosedError, TimerScheduler


class EventLoop(TimerScheduler):
    """The scheduler of the gateway's thread. After `close` it runs nothing, not even actions that are due.

    Args:
        on_failure: Called after an action has raised.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        super().__init__("k2eg-gateway", on_failure)


def call_soon(scheduler: abc.SchedulerBase, action: Callable[[], None]) -> None:
    """Runs an action on the scheduler's thread as soon as possible; not if the scheduler is closed."""

    def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
        action()

    with contextlib.suppress(SchedulerClosedError):
        scheduler.schedule(run)
